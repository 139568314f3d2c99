"""Independence deficit: how far a class's logit is a sparse combination of the other classes' logits."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Substitution:
    """One class's logit, replaced by a sparse combination of the others.

    Attributes:
        target: the class i.
        coefficients: w_j for every class, 0 for the class itself.
        explained: 1 − ‖y_i − Σ_j w_j y_j‖²/‖y_i‖² over the samples of the fit: 0 independent, 1 fully dependent.
        recall: share of the class's own samples that are classified right with its own logit.
        recall_substituted: the same with the substituted logit.
        accuracy: accuracy over all samples with its own logit.
        accuracy_substituted: the same with the substituted logit.
    """

    target: int
    coefficients: np.ndarray
    explained: float
    recall: float
    recall_substituted: float
    accuracy: float
    accuracy_substituted: float


def _check(logits: np.ndarray, labels: np.ndarray, eta: float) -> tuple[np.ndarray, np.ndarray]:
    logits = np.asarray(logits, dtype=np.float64)
    labels = np.asarray(labels)
    if logits.ndim != 2 or logits.shape[1] < 2 or labels.shape != logits.shape[:1]:
        raise ValueError(
            f"Expected logits (samples × 2 or more classes) and one label a sample, "
            f"but got {logits.shape} and {labels.shape}."
        )
    if not eta > 0:
        raise ValueError(f"Expected a positive `eta`, but got {eta}.")
    missing = sorted(set(range(logits.shape[1])) - {int(label) for label in np.unique(labels)})
    if missing:
        raise ValueError(
            f"Expected samples of all {logits.shape[1]} classes, but got none of: {missing}. "
            "Take a probe batch that holds every class."
        )
    return logits, labels


def substitute_logit(logits: np.ndarray, labels: np.ndarray, target: int, eta: float = 20.0) -> Substitution:
    r"""Fit :math:`\min_w \mathbb{E}[(y_i - \sum_{j\ne i} w_j y_j)^2] + \eta\lVert w\rVert_1` on class i's own samples.

    scikit-learn's Lasso halves the mean square, so its alpha is η/2. There is no intercept.

    Args:
        logits: y, samples × classes.
        labels: class of each sample.
        target: the class i whose logit is replaced.
        eta: weight η of the L1 norm, in units of a squared logit.

    Returns:
        The coefficients, with the accuracy before and after.

    Raises:
        ValueError: if shapes do not fit, η is not positive, or a class has no sample.
        ImportError: without scikit-learn.

    Source: Feng et al. (2022), section 6 and its algorithm (η = 20).
    """
    logits, labels = _check(logits, labels, eta)
    try:
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.linear_model import Lasso
    except ImportError as error:
        raise ImportError('The independence deficit needs scikit-learn: pip install "ww-callbacks[probes]".') from error
    own = labels == target
    others = np.delete(np.arange(logits.shape[1]), target)
    lasso = Lasso(alpha=eta / 2, fit_intercept=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        lasso.fit(logits[np.ix_(own, others)], logits[own, target])
    coefficients = np.zeros(logits.shape[1])
    coefficients[others] = lasso.coef_
    substituted = logits.copy()
    substituted[:, target] = logits @ coefficients
    right = np.argmax(logits, axis=1) == labels
    right_substituted = np.argmax(substituted, axis=1) == labels
    square = float(np.sum(logits[own, target] ** 2))
    residual = float(np.sum((logits[own, target] - substituted[own, target]) ** 2))
    return Substitution(
        target=target,
        coefficients=coefficients,
        explained=1 - residual / square if square > 0 else float("nan"),
        recall=float(right[own].mean()),
        recall_substituted=float(right_substituted[own].mean()),
        accuracy=float(right.mean()),
        accuracy_substituted=float(right_substituted.mean()),
    )


def independence_deficit(logits: np.ndarray, labels: np.ndarray, eta: float = 20.0) -> float:
    """Mean over classes of the share of a class's logit that the others explain (see :func:`substitute_logit`).

    Returns:
        0 if every logit is needed, 1 if each follows from the others.

    Raises:
        ValueError: as :func:`substitute_logit`.
        ImportError: without scikit-learn.
    """
    logits, labels = _check(logits, labels, eta)
    return float(np.nanmean([substitute_logit(logits, labels, i, eta).explained for i in range(logits.shape[1])]))
