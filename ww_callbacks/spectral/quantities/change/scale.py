"""Scale collapse: a layer that has become much smaller than at the start."""

from __future__ import annotations

from math import log10

import numpy as np

from ww_callbacks.spectral.estimates.estimate import Estimate
from ww_callbacks.spectral.estimates.lanczos import BlockLanczos
from ww_callbacks.spectral.estimates.leading import largest_singular_value, leading_eigenvalues
from ww_callbacks.spectral.estimates.perturbation import log_spectral_norm_change
from ww_callbacks.spectral.measuring.layer_weights import LayerWeights
from ww_callbacks.spectral.measuring.registry import quantity
from ww_callbacks.spectral.quantities.shared import largest_estimate, space_of


def scale_collapse(norm: float, initial_norm: float, spectral: float, initial_spectral: float) -> float:
    """log10 of the smaller of ‖W‖_F/‖W_0‖_F and σ_1/σ_1(W_0).

    Args:
        norm: ‖W‖_F.
        initial_norm: ‖W_0‖_F.
        spectral: σ_1(W).
        initial_spectral: σ_1(W_0).

    Returns:
        The logarithm to base 10: −1 is a tenth of the initial size; NaN where W or W_0 is zero or not finite.

    Examples:
        >>> round(scale_collapse(1.0, 10.0, 1.0, 2.0), 6)
        -1.0
    """
    if not (initial_norm > 0.0 and initial_spectral > 0.0):
        return np.nan
    ratios = norm / initial_norm, spectral / initial_spectral
    return log10(min(ratios)) if all(ratio > 0.0 for ratio in ratios) and min(ratios) < np.inf else np.nan


def _estimate(layer: LayerWeights) -> Estimate:
    """σ_1 of both from Krylov spaces of as many steps, but what is known of W_0 already."""
    reference = layer.reference or {}
    frobenius, log_spectral = reference.get("frobenius_norm"), reference.get("log_spectral_norm")
    initial_norm = frobenius if isinstance(frobenius, int | float) else layer.from_initial.norm
    if isinstance(log_spectral, int | float):
        known = Estimate(float(log_spectral), layer.reference_errors.get("log_spectral_norm", 0.0))
        initial = known.through(lambda value: 10.0 ** (value / 2.0))
    else:
        assert layer.initial is not None
        space = BlockLanczos(layer.initial[0], seed=layer.seed)
        space.extend(space_of(layer).steps)
        initial = largest_singular_value(leading_eigenvalues(space, 1))
    now = largest_estimate(layer)
    value = scale_collapse(layer.norm, initial_norm, now.value, initial.value)
    if not initial_norm > 0.0:
        return Estimate(value)
    # log10 of the ratio: the relative errors add up, whichever of the two ratios is the smaller.
    return Estimate(value, sum(e.through(log10).error for e in (now, initial)))


@quantity(
    "scale_collapse",
    title="scale against init, log10",
    definition="log10 min(‖W‖_F/‖W_0‖_F, σ_1/σ_1(W_0))",
    family="scale",
    needs="reference",
    default=True,
    headline=True,
    worst="low",
    estimate=_estimate,
    change=lambda layer, distance: 0.5 * log_spectral_norm_change(layer.largest_singular_value, distance),
    logarithm=True,
)
def _scale_collapse(layer: LayerWeights) -> float:
    """W_0's norms come from ``layer.reference`` where it has them, and are measured on ``layer.initial`` otherwise."""
    reference = layer.reference or {}
    frobenius, log_spectral = reference.get("frobenius_norm"), reference.get("log_spectral_norm")
    if not isinstance(frobenius, int | float):
        frobenius = layer.from_initial.norm
    if isinstance(log_spectral, int | float):
        largest = 10.0 ** (log_spectral / 2.0)
    else:
        largest = max((float(s[0]) for s in layer.initial_singular_values if len(s)), default=np.nan)
    return scale_collapse(layer.norm, frobenius, layer.largest_singular_value, largest)
