"""Ranks: how many directions W uses. Hard ranks count, soft ranks weigh; σ and λ = σ² are pooled over the matrices."""

from __future__ import annotations

import numpy as np

from ww_callbacks.spectral.measuring.layer_weights import LayerWeights
from ww_callbacks.spectral.measuring.registry import quantity
from ww_callbacks.spectral.quantities.norms import zero_tolerance

WEAK_TOLERANCE = 1e-6
"""WeightWatcher's absolute tolerance on λ for `weak_rank_loss`."""


@quantity(
    "effective_rank",
    title="effective rank",
    definition="exp(−Σ p ln p), p = σ/Σσ (Roy & Vetterli 2007)",
    family="rank",
    default=True,
    headline=True,
    worst="low",
)
def effective_rank(sample: LayerWeights) -> float:
    """Effective rank: exp of the entropy (natural log) of the normalised singular values.

    Roy, Vetterli: The effective rank, EUSIPCO 2007. Between 1 and the rank; not the stable rank, not the participation
    ratio, and not WeightWatcher's `entropy`.
    """
    return float(np.exp(_entropy(np.concatenate(sample.singular_values))))


@quantity(
    "stable_rank",
    title="stable rank",
    definition="Σλ/λ_1 = ‖W‖_F²/σ_1²",
    family="rank",
    default=True,
    worst="low",
)
def stable_rank(sample: LayerWeights) -> float:
    """‖W‖_F²/σ_1²: at least 1, at most the rank."""
    shares = sample.relative_eigenvalues
    return float(np.sum(shares)) if _any(shares) else np.nan


@quantity("participation_ratio", title="participation ratio", definition="(Σλ)²/Σλ²", family="rank", worst="low")
def participation_ratio(sample: LayerWeights) -> float:
    """(Σλ)²/Σλ²: the number of eigenvalues that would carry the same weight if they were equal."""
    shares = sample.relative_eigenvalues
    return float(np.sum(shares) ** 2 / np.sum(shares**2)) if _any(shares) else np.nan


@quantity(
    "entropy", title="normalised matrix entropy", definition="−Σ p ln p / ln rank, p = λ/Σλ", family="rank", worst="low"
)
def entropy(sample: LayerWeights) -> float:
    """WeightWatcher's `entropy`: of the normalised λ, over the entropy of as many equal ones; 0 for rank one.

    WeightWatcher adds 1e-10 to every p and to the rank, which moves its value by about 1e-8 (and makes it 1127 at rank
    one); here nothing is added.
    """
    rank = matrix_rank(sample)
    if not _any(sample.relative_eigenvalues) or not np.isfinite(rank):
        return np.nan
    return _entropy(sample.relative_eigenvalues) / float(np.log(rank)) if rank > 1.0 else 0.0


@quantity(
    "matrix_entropy", title="matrix entropy", definition="−Σ p ln p in nats, p = λ/Σλ", family="rank", worst="low"
)
def matrix_entropy(sample: LayerWeights) -> float:
    """−Σ p ln p of the normalised eigenvalues, in nats (von Neumann's entropy of WᵀW/tr WᵀW)."""
    return _entropy(sample.relative_eigenvalues)


@quantity("matrix_rank", title="rank", definition="#{σ > σ_1·N·eps}, eps of float64", family="rank", worst="low")
def matrix_rank(sample: LayerWeights) -> float:
    """Number of singular values above σ_1·N·eps (eps = 2.2e-16), pooled over the matrices as WeightWatcher has it."""
    values = np.concatenate(sample.resolved_singular_values)
    return float(np.count_nonzero(values > zero_tolerance(values, sample)))


@quantity(
    "rank_loss", title="rank loss", definition="number of σ ≤ σ_1·N·eps, matrix by matrix", family="rank", worst="high"
)
def rank_loss(sample: LayerWeights) -> float:
    """Number of singular values that are zero to float64, each matrix against its own σ_1."""
    return float(sum(np.count_nonzero(s <= zero_tolerance(s, sample)) for s in sample.resolved_singular_values))


@quantity("weak_rank_loss", title="weak rank loss", definition="#{λ < 1e-6}, absolute", family="rank", worst="high")
def weak_rank_loss(sample: LayerWeights) -> float:
    """#{λ < 1e-6}: absolute, so it depends on the scale of W (WeightWatcher's definition)."""
    return float(np.count_nonzero(np.concatenate(sample.resolved_singular_values) ** 2 < WEAK_TOLERANCE))


def _entropy(weights: np.ndarray) -> float:
    """−Σ p ln p of non-negative weights normalised to sum 1, in nats; NaN where all are zero."""
    if not _any(weights):
        return np.nan
    shares = weights[weights > 0.0] / np.max(weights)
    shares /= np.sum(shares)
    return float(np.sum(shares * np.log(1.0 / shares)))


def _any(values: np.ndarray) -> bool:
    """Whether at least one is positive."""
    return bool(np.any(values > 0.0))
