"""Fit the judgement: a logistic regression that weighs every epoch by what stopping there gains or costs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from benchmarks.overfitting.rows import Judged, families, stack
from ww_callbacks.spectral.detectors.signals.judgement import LIMITS, SIGNALS, Coefficients, clipped

CAUTION = 3.0
"""How much dearer an alarm that costs is than one that gains: chosen leave-one-family-out from 1, 2 and 3."""
PENALTY = 0.03
"""Inverse strength of the L2 penalty."""


def _design(signals: np.ndarray) -> np.ndarray:
    return np.array([[clipped(name, v) for name, v in zip(SIGNALS, row, strict=True)] for row in signals])


def fit(judged: Sequence[Judged]) -> Coefficients:
    """The coefficients fitted to these runs, with the calibration of the score to a probability."""
    from sklearn.linear_model import LogisticRegression

    signals, gain, _, length = stack(judged)
    x = _design(signals)
    mean, spread = np.nanmean(x, axis=0), np.nanstd(x, axis=0) + 1e-9
    z = np.nan_to_num((x - mean) / spread)
    label = gain > 0
    weight = (np.abs(gain) + 0.05) / np.sqrt(length) * np.where(label, 1.0, CAUTION)
    model = LogisticRegression(C=PENALTY, max_iter=800)
    model.fit(z, label, sample_weight=weight * len(weight) / weight.sum())
    weights = model.coef_[0] / spread
    return Coefficients(
        intercept=float(model.intercept_[0] - np.sum(weights * mean)),
        weights={n: float(w) for n, w in zip(SIGNALS, weights, strict=True)},
        typical={n: float(m) for n, m in zip(SIGNALS, mean, strict=True)},
    )


def calibrate(scores: np.ndarray, worse: np.ndarray, weight: np.ndarray) -> tuple[float, float]:
    """Intercept and slope that turn a score into the probability that training on makes the weights worse."""
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(C=1e6).fit(scores[:, None], worse, sample_weight=weight)
    return float(model.intercept_[0]), float(model.coef_[0, 0])


def scores(coefficients: Coefficients, signals: np.ndarray) -> np.ndarray:
    """The score of every epoch."""
    return np.array([coefficients.score(dict(zip(SIGNALS, row, strict=True))) for row in signals])


def leave_family_out(judged: Sequence[Judged]) -> tuple[dict[str, Coefficients], list[np.ndarray], list[np.ndarray]]:
    """For each run, the scores that coefficients give which never saw its family.

    Returns:
        Coefficients by the family left out; the scores of each run, full and with held-out data.
    """
    fitted = {f: fit([j for j in judged if j.run.family != f]) for f in families(judged)}
    full = [scores(fitted[j.run.family], j.signals) for j in judged]
    held = [scores(fitted[j.run.family], j.held_signals) for j in judged]
    return fitted, full, held


def epoch_weights(judged: Sequence[Judged]) -> np.ndarray:
    """Each run weighs the same."""
    return np.concatenate([np.full(len(j.signals), 1 / len(j.signals)) for j in judged])


__all__ = ["LIMITS", "calibrate", "epoch_weights", "fit", "leave_family_out", "scores"]
