"""Norms of W and the largest and smallest of its spectrum. λ are the eigenvalues of all matrices pooled, λ = σ²."""

from __future__ import annotations

import numpy as np

from ww_callbacks.spectral.linalg.spectrum import RESOLVED
from ww_callbacks.spectral.measuring.layer_weights import LayerWeights
from ww_callbacks.spectral.measuring.registry import quantity


@quantity(
    "log_spectral_norm",
    title="log spectral norm",
    definition="log10 λ_1 = 2·log10 σ_1",
    family="norm",
    default=True,
    headline=True,
    worst="high",
)
def log_spectral_norm(sample: LayerWeights) -> float:
    """log10 λ_1: WeightWatcher's `log_spectral_norm`; twice the log10 of what others call the spectral norm, σ_1."""
    return sample.log_spectral_norm


@quantity(
    "frobenius_norm",
    title="Frobenius norm",
    definition="‖W‖_F = √Σ W_ij²",
    family="norm",
    cost="cheap",
    default=True,
)
def frobenius_norm(sample: LayerWeights) -> float:
    """‖W‖_F over all matrices of the layer."""
    return sample.norm


@quantity("norm", title="squared norm", definition="Σλ = ‖W‖_F²", family="norm")
def norm(sample: LayerWeights) -> float:
    """Σλ, which WeightWatcher calls `norm`: the square of the Frobenius norm."""
    return float(np.sum(sample.eigenvalues))


@quantity("log_norm", title="log squared norm", definition="log10 Σλ = 2·log10 ‖W‖_F", family="norm")
def log_norm(sample: LayerWeights) -> float:
    """log10 Σλ (the blog's lognorm, log10 ‖W‖_F, is half of it)."""
    return sample.log_spectral_norm + _log10(float(np.sum(sample.relative_eigenvalues)))


@quantity("spectral_norm", title="largest eigenvalue", definition="λ_1 = σ_1²", family="norm")
def spectral_norm(sample: LayerWeights) -> float:
    """λ_1, which WeightWatcher calls `spectral_norm`; others mean σ_1 (here `sv_max`)."""
    return float(sample.eigenvalues[-1]) if len(sample.eigenvalues) else np.nan


@quantity("lambda_max", title="largest eigenvalue", definition="λ_1 = σ_1²", family="norm")
def lambda_max(sample: LayerWeights) -> float:
    """λ_1 again, under WeightWatcher's second name."""
    return spectral_norm(sample)


@quantity("sv_max", title="largest singular value", definition="σ_1", family="norm")
def sv_max(sample: LayerWeights) -> float:
    """σ_1, the largest over all matrices of the layer."""
    return sample.largest_singular_value


@quantity(
    "sv_min", title="smallest singular value", definition="σ_M; the largest of them over the matrices", family="norm"
)
def sv_min(sample: LayerWeights) -> float:
    """The smallest singular value; of several matrices the largest one's, as WeightWatcher has it."""
    return max((float(s[-1]) for s in sample.resolved_singular_values if len(s)), default=np.nan)


@quantity(
    "log_median_singular_value",
    title="log median singular value",
    definition="ln of the median σ",
    family="norm",
)
def log_median_singular_value(sample: LayerWeights) -> float:
    """Natural log of the median singular value, pooled over the matrices: where the bulk of the spectrum lies.

    NaN where that one is zero as `matrix_rank` counts zeros.
    """
    values = np.concatenate(sample.singular_values)
    median = float(np.median(values))
    if median < RESOLVED * sample.largest_singular_value:
        median = float(np.median(np.concatenate(sample.resolved_singular_values)))
    # What an SVD leaves of a σ that is zero is rounding noise, whose log would be any number.
    return float(np.log(median)) if median > zero_tolerance(values, sample) else np.nan


@quantity("W_scale", title="scale to unit mean eigenvalue", definition="√(number of λ / Σλ)", family="norm")
def W_scale(sample: LayerWeights) -> float:
    """The factor by which WeightWatcher scales W so that its eigenvalues have mean 1."""
    shares = sample.relative_eigenvalues
    total = float(np.sum(shares))
    return float(np.sqrt(len(shares) / total) / sample.largest_singular_value) if total > 0.0 else np.nan


@quantity(
    "num_evals",
    title="number of eigenvalues",
    definition="number of λ, all matrices pooled",
    family="shape",
    cost="cheap",
)
def num_evals(sample: LayerWeights) -> float:
    """Number of eigenvalues that the layer gives."""
    return float(sum(min(w.shape) for w in sample.matrices))


@quantity("N", title="larger side", definition="larger side of a matrix", family="shape", cost="cheap")
def larger_side(sample: LayerWeights) -> float:
    """N."""
    return float(sample.shape[0])


@quantity("M", title="smaller side", definition="smaller side of a matrix", family="shape", cost="cheap")
def smaller_side(sample: LayerWeights) -> float:
    """M."""
    return float(sample.shape[1])


@quantity("Q", title="aspect ratio", definition="N/M", family="shape", cost="cheap")
def aspect_ratio(sample: LayerWeights) -> float:
    """N/M, at least 1."""
    return sample.shape[0] / sample.shape[1]


@quantity(
    "rf", title="number of matrices", definition="matrices pooled, the receptive field", family="shape", cost="cheap"
)
def receptive_field(sample: LayerWeights) -> float:
    """Number of matrices whose eigenvalues are pooled: kernel positions of a convolution taken slice by slice."""
    return float(len(sample.matrices))


def zero_tolerance(values: np.ndarray, sample: LayerWeights) -> float:
    """σ_1·N·eps, eps of float64: what LAPACK cannot tell from zero among the singular values ``values``."""
    return float(np.max(values, initial=0.0)) * sample.shape[0] * float(np.finfo(np.float64).eps)


def _log10(value: float) -> float:
    """log10, NaN where there is none."""
    return float(np.log10(value)) if value > 0.0 else np.nan
