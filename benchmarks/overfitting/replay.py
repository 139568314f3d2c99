"""A trajectory as the detectors see it: no validation data unless requested, and no test data."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from benchmarks.overfitting.runs import Run
from benchmarks.overfitting.training import Arrays
from benchmarks.overfitting.truth import RAW, VAL_ACCURACY, VAL_LOSS
from ww_callbacks.spectral.detectors.base import Observation


def observations(run: Run, arrays: Arrays, validation: bool = False) -> Iterator[Observation]:
    """The run's snapshots, one before training and one an epoch."""
    names = [str(n) for n in arrays["names"]]
    first, steps = float(arrays["scalars"][0]), int(arrays["scalars"][1])
    for e in range(len(arrays["loss"])):
        metrics = {"learning_rate": float(arrays["rate"][e])}
        if e:
            metrics |= {"train_loss": float(arrays["loss"][e]), "first_loss": first}
            accuracy = float(arrays["accuracy"][e])
            if run.told and math.isfinite(accuracy):
                metrics["train_accuracy"] = accuracy
        if validation and e:
            metrics["val_loss"] = float(arrays["truth"][e, RAW, VAL_LOSS])
            accuracy = float(arrays["truth"][e, RAW, VAL_ACCURACY])
            if math.isfinite(accuracy):
                metrics["val_accuracy"] = accuracy
        parts = arrays["parts"][e]
        yield Observation(
            step=e * steps,
            epoch=float(e),
            layers={
                n: {
                    "frobenius_norm": float(row[e, 0]),
                    "distance_from_init": float(row[e, 1]),
                    "relative_update_norm": float(row[e, 2] / row[e - 1, 0]) if e and row[e - 1, 0] > 0 else math.nan,
                }
                for n, row in zip(names, arrays["layers"], strict=True)
            },
            metrics=metrics,
            epoch_losses=tuple(float(p) for p in parts) if np.all(np.isfinite(parts)) else (),
        )
