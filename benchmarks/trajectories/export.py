"""Write the series of a few runs to the tests' data, so that detectors are tested on real training without training.

python -m benchmarks.trajectories.export tests/data/trajectories.json
"""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import Any

from benchmarks.trajectories.cache import trajectory
from benchmarks.trajectories.scenarios import draw
from benchmarks.trajectories.series import observations
from benchmarks.trajectories.truth import truth

RUNS = (
    ("digits", "clean", 0),
    ("digits", "strong_wd", 1),
    ("mnist", "dropout", 1),
    ("mnist", "cosine_wd", 0),
    ("pydoc", "clean", 1),
    ("digits", "noise40", 0),
    ("mnist", "noise20", 1),
    ("pydoc", "noise40", 1),
    ("digits", "tiny", 0),
    ("digits", "rate_too_high", 1),
    ("digits", "scale_collapse", 0),
    ("digits", "rank_collapse", 1),
    ("digits", "nan", 0),
    ("digits", "dead_layer", 0),
)
"""Tuning runs, of every kind."""


def _short(value: float) -> float | None:
    """Five digits; null for what JSON has no number for."""
    return float(f"{value:.5g}") if math.isfinite(value) else None


def series(domain: str, scenario: str, seed: int) -> dict[str, Any]:
    """One run: what the detectors are told, and its test accuracy."""
    run = draw(domain, scenario, seed)
    arrays = trajectory(run)
    shown = list(observations(run, arrays))
    layers = list(shown[0].layers)
    return {
        "steps": [o.step for o in shown],
        "epochs": [o.epoch for o in shown],
        "metrics": {
            name: [_short(o.metrics.get(name, math.nan)) for o in shown]
            for name in ("train_loss", "train_accuracy", "learning_rate")
        },
        "layers": {
            layer: {name: [_short(float(o.layers[layer][name])) for o in shown] for name in shown[0].layers[layer]}
            for layer in layers
        },
        "test_accuracy": [_short(float(x)) for x in arrays["test_accuracy"]],
        "overtrained": truth(arrays).overtrained,
    }


def main(path: Path) -> None:
    """Write them all."""
    content = {"-".join(map(str, key)): series(*key) for key in RUNS}
    path.write_text(json.dumps(content, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
