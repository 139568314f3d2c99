"""Ranks: how many directions W uses. Hard ranks count singular values, soft ranks weigh them."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from ww_callbacks.spectral.estimates import quadrature
from ww_callbacks.spectral.estimates.perturbation import (
    effective_rank_change,
    participation_ratio_change,
    stable_rank_change,
)
from ww_callbacks.spectral.measuring.registry import quantity
from ww_callbacks.spectral.quantities.arguments import check_larger_side, spectrum_of
from ww_callbacks.spectral.quantities.shared import largest_estimate, space_of

_SMALLEST = float(np.finfo(np.float64).tiny)
"""The reciprocal of less would overflow; times its logarithm, a share of 0 is 0."""

WEAK_TOLERANCE = 1e-6
"""WeightWatcher's absolute tolerance on λ for `weak_rank_loss`."""


def effective_rank(singular_values: ArrayLike) -> float:
    r"""Effective rank: the exponential of the entropy of the normalised singular values.

    .. math:: \exp\Bigl(-\sum_i p_i \ln p_i\Bigr), \qquad p_i = \sigma_i / \sum_j \sigma_j

    It is between 1 and the rank. It is not the stable rank, not the participation ratio, and not WeightWatcher's
    ``entropy``.

    Args:
        singular_values: σ ≥ 0 of one matrix, or of several pooled, in any order; any shape is flattened.

    Returns:
        The effective rank, without a unit; NaN where all σ are zero, or one is not finite.

    Raises:
        ValueError: if a singular value is negative.

    References:
        O. Roy and M. Vetterli: The effective rank: a measure of effective dimensionality. EUSIPCO 2007.

    Examples:
        >>> round(effective_rank([1.0, 1.0, 1.0, 0.0]), 6)
        3.0
    """
    return float(np.exp(_entropy(spectrum_of(singular_values))))


def stable_rank(singular_values: ArrayLike) -> float:
    """Stable rank Σσ²/σ_1² = ‖W‖_F²/‖W‖_2²: at least 1, at most the rank.

    Args:
        singular_values: σ ≥ 0, in any order.

    Returns:
        The stable rank; NaN where all σ are zero, or one is not finite.

    Raises:
        ValueError: if a singular value is negative.

    Examples:
        >>> stable_rank([2.0, 1.0, 1.0])
        1.5
    """
    return float(_shares(singular_values).sum())


def participation_ratio(singular_values: ArrayLike) -> float:
    """(Σλ)²/Σλ² with λ = σ²: the number of eigenvalues that would carry the same weight if they were equal.

    Args:
        singular_values: σ ≥ 0, in any order.

    Returns:
        The ratio, from 1 to the rank; NaN where all σ are zero, or one is not finite.

    Raises:
        ValueError: if a singular value is negative.

    Examples:
        >>> participation_ratio([1.0, 1.0, 0.0])
        2.0
    """
    shares = _shares(singular_values)
    return float(np.sum(shares) ** 2 / np.sum(shares**2))


def matrix_entropy(singular_values: ArrayLike) -> float:
    """−Σ p ln p in nats with p = λ/Σλ and λ = σ²: von Neumann's entropy of WᵀW/tr WᵀW.

    Args:
        singular_values: σ ≥ 0, in any order.

    Returns:
        The entropy; NaN where all σ are zero, or one is not finite.

    Raises:
        ValueError: if a singular value is negative.

    Examples:
        >>> round(matrix_entropy([1.0, 1.0]), 6)  # ln 2
        0.693147
    """
    return _entropy(_shares(singular_values))


def entropy(singular_values: ArrayLike, larger_side: int) -> float:
    """WeightWatcher's ``entropy``: the matrix entropy over ln(rank), between 0 and 1; 0 for rank one.

    WeightWatcher adds 1e-10 to every p and to the rank, which moves its value by about 1e-8 (and makes it 1127 at rank
    one); here nothing is added.

    Args:
        singular_values: σ ≥ 0, in any order, the smallest ones resolved.
        larger_side: N, the larger side of the matrix.

    Returns:
        The normalised entropy; NaN where all σ are zero, or one is not finite.

    Raises:
        ValueError: if a singular value is negative, or ``larger_side`` is not positive.

    Examples:
        >>> round(entropy([1.0, 1.0, 1.0], larger_side=3), 6)
        1.0
    """
    rank = matrix_rank(singular_values, larger_side)
    if not rank >= 1.0:
        return np.nan
    return matrix_entropy(singular_values) / float(np.log(rank)) if rank > 1.0 else 0.0


def matrix_rank(singular_values: ArrayLike, larger_side: int) -> float:
    """Number of singular values above σ_1·N·eps, eps = 2.2e-16 of float64.

    Args:
        singular_values: σ ≥ 0, in any order, the smallest ones resolved (from an SVD, not from a Gram product).
        larger_side: N, the larger side of the matrix.

    Returns:
        The rank; NaN where a σ is not finite.

    Raises:
        ValueError: if a singular value is negative, or ``larger_side`` is not positive.

    Examples:
        >>> matrix_rank([1.0, 1e-3, 1e-17], larger_side=3)
        2.0
    """
    values = spectrum_of(singular_values)
    if not np.all(np.isfinite(values)):
        return np.nan
    return float(np.count_nonzero(values > zero_tolerance(values, larger_side)))


def zero_tolerance(singular_values: np.ndarray, larger_side: int) -> float:
    """σ_1·N·eps, eps of float64: what LAPACK cannot tell from zero among ``singular_values``."""
    check_larger_side(larger_side)
    return float(np.max(singular_values, initial=0.0)) * larger_side * float(np.finfo(np.float64).eps)


def _shares(singular_values: ArrayLike) -> np.ndarray:
    """λ/λ_1, from (σ/σ_1)² so that no scale over- or underflows; one NaN where all σ are zero."""
    values = spectrum_of(singular_values)
    largest = values.max(initial=0.0)
    return (values / largest) ** 2 if largest > 0.0 else np.array([np.nan])


def _entropy(weights: np.ndarray) -> float:
    """−Σ p ln p of non-negative weights normalised to sum 1, in nats; NaN where all are zero."""
    largest = float(weights.max(initial=0.0))  # NaN and infinity come through
    return float(_entropies(weights)) if 0.0 < largest < np.inf else np.nan


def _entropies(weights: np.ndarray) -> np.ndarray:
    """−Σ p ln p over the last axis of weights that are finite and not negative, and not all zero."""
    shares = weights / weights.max(axis=-1, keepdims=True)
    shares /= shares.sum(axis=-1, keepdims=True)
    return (shares * np.log(1.0 / np.maximum(shares, _SMALLEST))).sum(axis=-1)


quantity(
    "effective_rank",
    title="effective rank",
    definition="exp(−Σ p ln p), p = σ/Σσ (Roy & Vetterli 2007)",
    family="rank",
    default=True,
    headline=True,
    worst="low",
    estimate=lambda layer: quadrature.effective_rank(space_of(layer), layer.norm),
    change=lambda layer, distance: effective_rank_change(layer.pooled_singular_values, distance),
    slow=True,
    of_spectra=lambda values: np.exp(_entropies(values)),
)(lambda layer: effective_rank(layer.pooled_singular_values))

quantity(
    "stable_rank",
    title="stable rank",
    definition="Σλ/λ_1 = ‖W‖_F²/σ_1²",
    family="rank",
    default=True,
    worst="low",
    estimate=lambda layer: largest_estimate(layer).through(lambda value: (layer.norm / value) ** 2),
    change=lambda layer, distance: stable_rank_change(layer.norm, layer.largest_singular_value, distance),
    of_spectra=lambda values: ((values / values[:, :1]) ** 2).sum(axis=-1),
)(lambda layer: stable_rank(layer.pooled_singular_values))

quantity(
    "participation_ratio",
    title="participation ratio",
    definition="(Σλ)²/Σλ²",
    family="rank",
    worst="low",
    estimate=lambda layer: quadrature.participation_ratio(space_of(layer), layer.norm),
    change=lambda layer, distance: participation_ratio_change(layer.pooled_singular_values, distance),
)(lambda layer: participation_ratio(layer.pooled_singular_values))

quantity(
    "entropy", title="normalised matrix entropy", definition="−Σ p ln p / ln rank, p = λ/Σλ", family="rank", worst="low"
)(lambda layer: entropy(layer.pooled_resolved_singular_values, layer.shape[0]))

quantity(
    "matrix_entropy",
    title="matrix entropy",
    definition="−Σ p ln p in nats, p = λ/Σλ",
    family="rank",
    worst="low",
    estimate=lambda layer: quadrature.matrix_entropy(space_of(layer), layer.norm),
)(lambda layer: matrix_entropy(layer.pooled_singular_values))

quantity("matrix_rank", title="rank", definition="#{σ > σ_1·N·eps}, eps of float64", family="rank", worst="low")(
    lambda layer: matrix_rank(layer.pooled_resolved_singular_values, layer.shape[0])
)

quantity(
    "rank_loss", title="rank loss", definition="number of σ ≤ σ_1·N·eps, matrix by matrix", family="rank", worst="high"
)(lambda layer: sum(len(s) - matrix_rank(s, layer.shape[0]) for s in layer.resolved_singular_values))

quantity("weak_rank_loss", title="weak rank loss", definition="#{λ < 1e-6}, absolute", family="rank", worst="high")(
    lambda layer: float(np.count_nonzero(layer.pooled_resolved_singular_values**2 < WEAK_TOLERANCE))
)
