"""What really happened in a run: the event, judged by test data that no detector sees."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from benchmarks.trajectories.scenarios import HEALTHY, LONG, Run

Arrays = dict[str, np.ndarray]


@dataclass(frozen=True)
class Truth:
    """The test accuracy of a run in a few numbers.

    Attributes:
        best: highest test accuracy.
        best_epoch: its epoch.
        final: test accuracy at the end.
        error: standard error of ``best``.
        overtrained: best − final > max(2 points, 3 standard errors) while the training loss still fell.
    """

    best: float
    best_epoch: int
    final: float
    error: float
    overtrained: bool


def truth(arrays: Arrays) -> Truth:
    """Judge a run by its test accuracy."""
    test, loss = arrays["test_accuracy"], arrays["loss"]
    at = int(np.nanargmax(test))
    best, final = float(test[at]), float(test[-1])
    error = math.sqrt(best * (1 - best) / float(arrays["tests"]))
    fell = bool(loss[-1] <= 1.02 * loss[max(at, 1)])  # the last epochs of a finished schedule jitter
    return Truth(best, at, final, error, fell and best - final > max(0.02, 3 * error))


def group(run: Run, judged: Truth) -> str:
    """``overtrained`` (the event came), ``healthy`` (a healthy scenario, no event) or ``nothing lost`` (neither)."""
    if judged.overtrained:
        return "overtrained"
    return "healthy" if run.scenario in (*HEALTHY, LONG) else "nothing lost"


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
