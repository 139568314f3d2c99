"""Scale collapse: a layer that has become much smaller than it was."""

from __future__ import annotations

import numpy as np

from ww_callbacks.spectral.measuring.layer_weights import LayerWeights
from ww_callbacks.spectral.measuring.registry import quantity


@quantity(
    "scale_collapse",
    title="scale against init",
    definition="log10 min(‖W‖_F/‖W_0‖_F, σ_1/σ_1(W_0))",
    family="scale",
    needs="reference",
    default=True,
    headline=True,
    worst="low",
)
def scale_collapse(sample: LayerWeights) -> float:
    """log10 of the smaller of ‖W‖_F/‖W_0‖_F and σ_1/σ_1(W_0): −1 is a tenth of the size at the baseline.

    NaN where W or W_0 is 0. W_0's norms are taken from ``sample.reference`` where it has them, and measured on
    ``sample.initial`` otherwise.
    """
    reference = sample.reference or {}
    frobenius, log_spectral = reference.get("frobenius_norm"), reference.get("log_spectral_norm")
    if not isinstance(frobenius, int | float):
        frobenius = sample.from_initial.norm
    if isinstance(log_spectral, int | float):
        largest = 10.0 ** (log_spectral / 2.0)
    else:
        largest = max((float(s[0]) for s in sample.initial_singular_values if len(s)), default=np.nan)
    ratio = np.minimum(np.divide(sample.norm, frobenius), np.divide(sample.largest_singular_value, largest))
    return float(np.log10(ratio)) if 0.0 < ratio < np.inf else np.nan
