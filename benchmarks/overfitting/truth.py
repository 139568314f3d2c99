"""What really happened in a run, by test data that no detector sees."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from benchmarks.overfitting.domains import DOMAINS
from benchmarks.overfitting.runs import Run
from benchmarks.overfitting.training import Arrays

RAW, SHORT, LONG = 0, 1, 2
"""Which weights: raw, averaged over one epoch, over two."""
VAL_LOSS, VAL_ACCURACY, TEST_LOSS, TEST_ACCURACY = range(4)

RISE = 0.10
"""A test loss that ends this share above its lowest has risen."""


@dataclass(frozen=True)
class Truth:
    """How a run went, judged by the raw weights.

    Attributes:
        lost_accuracy: best − final test accuracy > max(2 points, 3 standard errors), while training still succeeded.
        lost_loss: the final test loss lies more than a tenth above the lowest.
        best_accuracy, best_loss: highest test accuracy and lowest test loss of the raw weights over the epochs.
    """

    lost_accuracy: bool
    lost_loss: bool
    best_accuracy: float
    best_loss: float

    @property
    def group(self) -> str:
        """``accuracy``, ``loss`` or ``healthy``."""
        return "accuracy" if self.lost_accuracy else "loss" if self.lost_loss else "healthy"


def truth(run: Run, arrays: Arrays) -> Truth:
    """Judge a run."""
    seen, loss = arrays["truth"][1:, RAW], arrays["loss"]
    accuracy, test_loss = seen[:, TEST_ACCURACY], seen[:, TEST_LOSS]
    fell = bool(np.isfinite(loss[-1]) and loss[-1] <= 1.02 * np.nanmin(loss[1:]) + 1e-3) or bool(loss[-1] < loss[1])
    lost_accuracy, best = False, math.nan
    if DOMAINS[run.domain].task in ("classification", "multilabel"):
        best = float(np.max(accuracy))
        error = math.sqrt(max(best * (1 - best), 1e-6) / float(arrays["scalars"][2]))
        last = float(np.mean(accuracy[-2:])) if len(accuracy) > 3 else float(accuracy[-1])
        lost_accuracy = fell and best - last > max(0.02, 3 * error)
    lowest = float(np.min(test_loss))
    lost_loss = fell and bool(np.mean(test_loss[-2:]) > (1 + RISE) * lowest)
    return Truth(lost_accuracy, lost_loss, best, lowest)


def wilson(events: int, runs: int, z: float = 1.96) -> tuple[float, float]:
    """Wilson's 95 % interval of a share.

    >>> [round(x, 3) for x in wilson(0, 30)]
    [0.0, 0.114]
    """
    if runs == 0:
        return math.nan, math.nan
    p = events / runs
    middle = (p + z * z / (2 * runs)) / (1 + z * z / runs)
    half = z * math.sqrt(p * (1 - p) / runs + z * z / (4 * runs * runs)) / (1 + z * z / runs)
    return max(0.0, middle - half), min(1.0, middle + half)
