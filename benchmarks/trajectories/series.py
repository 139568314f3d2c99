"""Series of a trajectory: what the quantities of its layers were, snapshot by snapshot."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from benchmarks.trajectories.domains import DOMAINS
from benchmarks.trajectories.scenarios import Run
from benchmarks.trajectories.train import names_of
from benchmarks.trajectories.truth import Arrays
from ww_callbacks.spectral.detectors import Observation


def spectrum(arrays: Arrays, layer: str, which: str) -> np.ndarray:
    """Singular values of W (``w``), W − W_0 (``d``) or the last update (``u``): (snapshots, values), descending."""
    return arrays[f"{layer}|spectrum_{which}"].astype(np.float64)


def norms(arrays: Arrays, layer: str, which: str) -> np.ndarray:
    """Frobenius norm of the same."""
    return np.sqrt((spectrum(arrays, layer, which) ** 2).sum(axis=1))


def effective_rank(values: np.ndarray) -> np.ndarray:
    """Exp of the entropy of the normalised singular values, of each snapshot."""
    with np.errstate(divide="ignore", invalid="ignore"):
        p = values / values.sum(axis=1, keepdims=True)
        return np.exp(-np.nansum(np.where(p > 0, p * np.log(p), 0.0), axis=1))


def shapes(run: Run) -> dict[str, tuple[int, int]]:
    """Rows and columns of each layer's matrix."""
    model = DOMAINS[run.domain].network(run.width, run.dropout)
    return {n: tuple(p.flatten(1).shape) for n, p in model.named_parameters() if p.dim() >= 2 and n != "position"}


def observations(run: Run, arrays: Arrays) -> Iterator[Observation]:
    """The run as the detectors see it: no validation and no test data."""
    layers = list(names_of(arrays))
    steps = math.ceil((run.size - run.size // 10) / run.batch)
    columns: dict[str, dict[str, np.ndarray]] = {}
    with np.errstate(divide="ignore", invalid="ignore"):
        for layer in layers:
            w, weight = spectrum(arrays, layer, "w"), norms(arrays, layer, "w")
            update = norms(arrays, layer, "u")
            update[0] = np.nan
            columns[layer] = {
                "frobenius_norm": weight,
                "distance_from_init": norms(arrays, layer, "d"),
                "update_norm": update,
                "relative_update_norm": update / np.concatenate([[np.nan], weight[:-1]]),
                "effective_rank": np.where(np.isfinite(weight), effective_rank(w), np.nan),
                "scale_collapse": np.log10(np.minimum(weight / weight[0], w[:, 0] / w[0, 0])),
            }
    told = {"train_loss": "loss", "train_accuracy": "accuracy", "learning_rate": "rate"}
    for i in range(len(arrays["loss"])):
        yield Observation(
            step=i * steps,
            epoch=float(i),
            layers={layer: {name: float(c[i]) for name, c in columns[layer].items()} for layer in layers},
            metrics={name: float(arrays[key][i]) for name, key in told.items() if i > 0 or name == "learning_rate"},
            status={
                layer: "ok" if math.isfinite(columns[layer]["frobenius_norm"][i]) else "non-finite" for layer in layers
            },
            changed={layer: i == 0 or columns[layer]["update_norm"][i] != 0 for layer in layers},
        )
