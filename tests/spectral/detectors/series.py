"""Series of real small runs as the detectors see them."""

import json
import math
from functools import lru_cache
from pathlib import Path

from ww_callbacks.spectral.detectors import Detector, Finding, Observation

HEALTHY = ("digits-clean-0", "digits-strong_wd-1", "mnist-dropout-1", "mnist-cosine_wd-0", "pydoc-clean-1")
OVERTRAINED = ("digits-noise40-0", "mnist-noise20-1", "pydoc-noise40-1")
BROKEN = {
    "digits-rate_too_high-1": "explosion",
    "digits-scale_collapse-0": "scale collapse",
    "digits-rank_collapse-1": "rank collapse",
    "digits-nan-0": "non-finite",
    "digits-dead_layer-0": "dead layer",
}


@lru_cache
def runs() -> dict:
    return json.loads((Path(__file__).parents[2] / "data" / "breakage.json").read_text())


def _number(value: float | None) -> float:
    return math.nan if value is None else value


def observations(name: str, without: tuple[str, ...] = (), scale: float = 1.0, rate_unit: float = 1.0):
    """The run's snapshots; ``without`` leaves metrics out, ``scale`` multiplies all weights."""
    run = runs()[name]
    for i, step in enumerate(run["steps"]):
        layers = {}
        for layer, columns in run["layers"].items():
            values = {q: _number(v[i]) for q, v in columns.items()}
            for q in ("frobenius_norm", "distance_from_init", "update_norm"):
                values[q] *= scale
            layers[layer] = values
        metrics = {
            m: _number(v[i]) for m, v in run["metrics"].items() if m not in without and (i > 0 or m == "learning_rate")
        }
        if "learning_rate" in metrics:
            metrics["learning_rate"] *= rate_unit
        status = {n: "ok" if math.isfinite(v["frobenius_norm"]) else "non-finite" for n, v in layers.items()}
        changed = {n: i == 0 or v["update_norm"] != 0 for n, v in layers.items()}
        yield Observation(step, run["epochs"][i], layers, metrics, status=status, changed=changed)


def replay(detector: Detector, name: str, **how) -> list[list[Finding]]:
    """What the detector returned at each snapshot."""
    return [detector.update(observation) for observation in observations(name, **how)]
