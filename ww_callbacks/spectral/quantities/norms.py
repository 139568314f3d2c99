"""Norms of W, its largest and smallest singular values, and the sides of its matrices."""

from __future__ import annotations

from math import log10

import numpy as np
from numpy.typing import ArrayLike

from ww_callbacks.spectral.estimates.estimate import Estimate
from ww_callbacks.spectral.estimates.perturbation import log_spectral_norm_change
from ww_callbacks.spectral.linalg.spectrum import RESOLVED
from ww_callbacks.spectral.measuring.layer_weights import LayerWeights
from ww_callbacks.spectral.measuring.registry import quantity
from ww_callbacks.spectral.quantities.arguments import spectrum_of
from ww_callbacks.spectral.quantities.ranks import zero_tolerance
from ww_callbacks.spectral.quantities.shared import largest_estimate


def log_spectral_norm(singular_values: ArrayLike) -> float:
    """log10 λ_1 = 2·log10 σ_1: WeightWatcher's ``log_spectral_norm``.

    The spectral norm usually means σ_1; this is twice its log10.

    Args:
        singular_values: σ ≥ 0 of one matrix, or of several pooled, in any order.

    Returns:
        The logarithm to base 10; NaN where all σ are zero.

    Raises:
        ValueError: if a singular value is negative.

    Examples:
        >>> log_spectral_norm([10.0, 1.0])
        2.0
    """
    largest = float(np.max(spectrum_of(singular_values), initial=0.0))
    return 2.0 * float(np.log10(largest)) if largest > 0.0 else np.nan


def log_norm(singular_values: ArrayLike) -> float:
    """log10 Σλ = 2·log10 ‖W‖_F, summed relative to σ_1 so that no scale over- or underflows.

    The blog's lognorm, log10 ‖W‖_F, is half of it.

    Args:
        singular_values: σ ≥ 0, in any order.

    Returns:
        The logarithm to base 10; NaN where all σ are zero.

    Raises:
        ValueError: if a singular value is negative.

    Examples:
        >>> round(log_norm([3.0, 1.0]), 6)
        1.0
    """
    values = spectrum_of(singular_values)
    largest = float(np.max(values, initial=0.0))
    if not largest > 0.0:
        return np.nan
    return 2.0 * float(np.log10(largest)) + float(np.log10(np.sum((values / largest) ** 2)))


def log_median_singular_value(singular_values: ArrayLike, larger_side: int) -> float:
    """Natural logarithm of the median σ: the location of the bulk of the spectrum.

    Args:
        singular_values: σ ≥ 0, in any order, the smallest ones resolved.
        larger_side: N, the larger side of the matrix.

    Returns:
        The natural logarithm; NaN where the median is zero as :func:`.matrix_rank` counts zeros.

    Raises:
        ValueError: if a singular value is negative, or ``larger_side`` is not positive.

    Examples:
        >>> log_median_singular_value([4.0, 1.0, 0.5], larger_side=3)
        0.0
    """
    values = spectrum_of(singular_values)
    median = float(np.median(values)) if len(values) else np.nan
    # What an SVD leaves of a σ that is zero is rounding noise, whose log would be any number.
    return float(np.log(median)) if median > zero_tolerance(values, larger_side) else np.nan


quantity(
    "log_spectral_norm",
    title="log spectral norm",
    definition="log10 λ_1 = 2·log10 σ_1",
    family="norm",
    default=True,
    headline=True,
    worst="high",
    estimate=lambda layer: largest_estimate(layer).through(lambda value: 2.0 * log10(value)),
    change=lambda layer, distance: log_spectral_norm_change(layer.largest_singular_value, distance),
    logarithm=True,
)(lambda layer: layer.log_spectral_norm)

quantity(
    "frobenius_norm",
    title="Frobenius norm",
    definition="‖W‖_F = √Σ W_ij²",
    family="norm",
    cost="cheap",
    default=True,
)(lambda layer: layer.norm)

# What ‖W‖_F gives needs no spectrum, where none is there.
quantity(
    "norm",
    title="squared norm",
    definition="Σλ = ‖W‖_F²",
    family="norm",
    estimate=lambda layer: Estimate(layer.norm**2),
    change=lambda layer, distance: distance * (2.0 * layer.norm + distance),
)(lambda layer: float(np.sum(layer.eigenvalues)))

quantity(
    "log_norm",
    title="log squared norm",
    definition="log10 Σλ = 2·log10 ‖W‖_F",
    family="norm",
    estimate=lambda layer: Estimate(2.0 * log10(layer.norm)),
    change=lambda layer, distance: log_spectral_norm_change(layer.norm, distance),
    logarithm=True,
)(lambda layer: log_norm(layer.pooled_singular_values))

# WeightWatcher has two names for λ_1; others mean σ_1 (here `sv_max`) by the first.
for _name in ("spectral_norm", "lambda_max"):
    quantity(
        _name,
        title="largest eigenvalue",
        definition="λ_1 = σ_1²",
        family="norm",
        estimate=lambda layer: largest_estimate(layer).through(lambda value: value**2),
        change=lambda layer, distance: distance * (2.0 * layer.largest_singular_value + distance),
    )(lambda layer: float(layer.eigenvalues[-1]) if len(layer.eigenvalues) else np.nan)

quantity(
    "sv_max",
    title="largest singular value",
    definition="σ_1",
    family="norm",
    estimate=largest_estimate,
    change=lambda layer, distance: distance,
)(lambda layer: layer.largest_singular_value)

quantity(
    "sv_min", title="smallest singular value", definition="σ_M; the largest of them over the matrices", family="norm"
)(lambda layer: max((float(s[-1]) for s in layer.resolved_singular_values if len(s)), default=np.nan))


@quantity(
    "log_median_singular_value",
    title="log median singular value",
    definition="ln of the median σ",
    family="norm",
)
def _log_median(layer: LayerWeights) -> float:
    """From the Gram product where the median is resolved there, else from an SVD."""
    values = layer.pooled_singular_values
    if float(np.median(values)) < RESOLVED * layer.largest_singular_value:
        values = layer.pooled_resolved_singular_values
    return log_median_singular_value(values, layer.shape[0])


@quantity(
    "W_scale",
    title="scale to unit mean eigenvalue",
    definition="√(number of λ / Σλ)",
    family="norm",
    estimate=lambda layer: Estimate(layer.shape[1] ** 0.5 / layer.norm),
)
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
