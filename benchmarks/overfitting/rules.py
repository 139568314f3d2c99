"""Rules that stop a run, and which of its weights each keeps."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from benchmarks.overfitting.former_detector import FormerOvertraining
from benchmarks.overfitting.replay import observations
from benchmarks.overfitting.rows import Judged
from benchmarks.overfitting.training import Arrays
from benchmarks.overfitting.truth import RAW, SHORT, VAL_LOSS
from ww_callbacks.spectral.detectors.overtraining import LONGEST, Overtraining
from ww_callbacks.spectral.detectors.signals import coefficients as fitted
from ww_callbacks.spectral.detectors.signals.judgement import Coefficients


@dataclass(frozen=True)
class Outcome:
    """What a rule did in a run.

    Attributes:
        stop: epoch of the alarm; None without one.
        points, loss: accuracy points lost, and per cent of test loss above the lowest, with the weights it keeps.
        overconfident: whether the alarm was for a rising loss whose score holds.
    """

    stop: int | None
    points: float
    loss: float
    overconfident: bool = False


def kept(judged: Judged, arrays: Arrays, stop: int | None, epoch: int, which: int, soft: bool = False) -> Outcome:
    """The outcome of keeping the weights of an epoch."""
    return Outcome(stop, *judged.regret(arrays, epoch, which), soft)


def never(judged: Judged, which: int = RAW) -> Outcome:
    """Train to the end."""
    return kept(judged, judged.full, None, len(judged.full["loss"]) - 1, which)


def patience(judged: Judged, epochs: int | None, which: int = RAW, charged: bool = True) -> Outcome:
    """Stop when the validation loss has had no new best for ``epochs`` (None: a fifth of the run), restore the best.

    Args:
        judged: the run.
        epochs: how long to wait.
        which: whose loss is followed and whose weights are restored.
        charged: whether the validation data is a tenth of the training data; otherwise as much data comes on top.
    """
    arrays = judged.held if charged else judged.full
    loss = judged.held["truth"][1:, which, VAL_LOSS] if charged else judged.full["extra"][1:, which, VAL_LOSS]
    wait = epochs or (10 if judged.run.epochs >= 50 else max(1, round(judged.run.epochs / 5)))
    best, at = math.inf, 0
    for e, value in enumerate(loss):
        if value < best:
            best, at = float(value), e
        elif e - at >= wait:
            return kept(judged, arrays, e + 1, at + 1, which)
    return kept(judged, arrays, None, at + 1, which)


def _first(judged: Judged, reached: np.ndarray, which: int) -> Outcome:
    """Stop at the first epoch for which this holds, and keep its weights."""
    found = np.flatnonzero(reached)
    stop = int(found[0]) if len(found) else None
    return kept(judged, judged.full, stop, len(judged.full["loss"]) - 1 if stop is None else stop, which)


def fitted_data(judged: Judged, which: int = RAW) -> Outcome:
    """Stop when the training accuracy reaches 99 %."""
    return _first(judged, judged.full["accuracy"] >= 0.99, which)


def evidence_criterion(judged: Judged, which: int = RAW) -> Outcome:
    """Stop when the gradients are no larger than their noise allows (Mahsereci et al. 2017): criterion above 0.

    Mean and variance of the gradients come from eight batches of the epoch.
    """
    return _first(judged, judged.full["gradients"][:, 2] > 0, which)


def gradient_disparity(judged: Judged, which: int = RAW, rises: int = 5) -> Outcome:
    """Stop when the mean distance between two batches' gradients has risen five times (Forouzesh and Thiran 2021)."""
    square_of_mean, mean_square, _ = judged.full["gradients"].T
    disparity = np.sqrt(np.maximum(mean_square - square_of_mean, 0))
    risen = np.concatenate([[0], np.cumsum(np.diff(disparity) > 0)])
    return _first(judged, risen >= rises, which)


def low_alpha(judged: Judged, which: int = RAW) -> Outcome:
    """Stop when the mean α of the layers is below 2 (Martin, Peng and Mahoney 2021 call such layers overtrained)."""
    alpha = judged.full["layers"][:, :, 6]
    known = np.isfinite(alpha)
    mean = np.where(known, alpha, 0).sum(axis=0) / np.maximum(known.sum(axis=0), 1)
    reached = (mean < 2) & known.any(axis=0)
    reached[0] = False
    return _first(judged, reached, which)


def former(judged: Judged, which: int = RAW) -> Outcome:
    """The detector of version 0.1.0, and the epoch it names."""
    detector = FormerOvertraining()
    for e, observation in enumerate(observations(judged.run, judged.full)):
        if detector.update(observation):
            return kept(judged, judged.full, e, int(detector.best_epoch or 0), which)
    return never(judged, which)


@contextmanager
def using(coefficients: Coefficients) -> Iterator[None]:
    """Let the detector judge by these coefficients."""
    shipped, fitted.COEFFICIENTS = fitted.COEFFICIENTS, coefficients
    try:
        yield
    finally:
        fitted.COEFFICIENTS = shipped


def ours(judged: Judged, threshold: float, which: int = SHORT, validation: bool = False, soft: bool = False) -> Outcome:
    """The detector as the callbacks run it.

    Args:
        judged: the run.
        threshold: of the training signals' score.
        which: whose weights are kept.
        validation: whether the run holds out a tenth of its data and logs validation values.
        soft: whether an alarm for overconfidence stops the run too.
    """
    arrays = judged.held if validation else judged.full
    detector = Overtraining(threshold=threshold, stops_overconfident=soft)
    for e, observation in enumerate(observations(judged.run, arrays, validation)):
        for finding in detector.update(observation):
            overconfident = finding.severity == "warning"
            if not finding.may_stop:
                continue
            return kept(judged, arrays, e, int(detector.best_epoch or 0), which, overconfident)
    return kept(judged, arrays, None, int(detector.best_epoch or len(arrays["loss"]) - 1), which)


def highest_threshold(scores: Sequence[float], share: float = 1 / 3, least: int = 2) -> float:
    """The threshold below which the scores of a run, from its first epoch on, raise an alarm in :func:`ours`.

    It follows from :func:`.sustained` without a replay. The first epoch is not judged.
    """
    judged = np.asarray(scores[1:], dtype=float)
    highest = -math.inf
    for epochs in range(2, len(judged) + 2):
        needed, seen = min(max(least, math.ceil(share * epochs)), LONGEST), judged[: epochs - 1]
        if len(seen) >= needed:
            highest = max(highest, min(float(seen[-needed:].mean()), float(seen[-1])))
    return highest
