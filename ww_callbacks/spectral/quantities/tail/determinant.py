"""detX, or ERG: the tail whose eigenvalues have product 1, after W is scaled so that they have mean 1.

With λ′ = λ·(number of λ)/Σλ in descending order, the tail is the first k for which λ′_1·…·λ′_k < 1, that k-th one
included. (Martin & Hinrichs: SETOL, 2025.) Sums of logarithms replace the products, which over- and underflow.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from ww_callbacks.spectral.measuring.layer_weights import LayerWeights
from ww_callbacks.spectral.measuring.registry import quantity
from ww_callbacks.spectral.quantities.arguments import spectrum_of


def determinant_tail(eigenvalues: ArrayLike) -> int:
    """Size k of the detX (ERG) tail; see the module docstring.

    Args:
        eigenvalues: λ ≥ 0, in any order and on any scale.

    Returns:
        k; 0 without eigenvalues above zero, or if all are equal (no product falls below 1).

    Raises:
        ValueError: if an eigenvalue is negative.

    Examples:
        >>> determinant_tail([4.0, 1.0, 0.5, 0.5])
        3
    """
    values = np.sort(spectrum_of(eigenvalues, "eigenvalues"))
    if len(values) < 2 or not values[-1] > 0.0 or not values[0] < (1.0 - 1e-12) * values[-1]:
        return 0
    shares = values / values[-1]
    with np.errstate(divide="ignore"):
        products = np.cumsum(np.log(shares[::-1] * (len(shares) / np.sum(shares))))
    below = np.flatnonzero(products < 0.0)
    return int(below[0]) + 1 if len(below) else 0


def _tail(layer: LayerWeights) -> int:
    return determinant_tail(layer.relative_eigenvalues)


def _count(layer: LayerWeights) -> float:
    return float(_tail(layer)) if _tail(layer) else np.nan


quantity(
    "detX_num",
    title="detX tail size",
    definition="first k whose k largest λ, scaled to mean 1, have a product below 1",
    family="power law",
)(_count)

quantity("num_ERG_spikes", title="ERG tail size", definition="the same as detX_num", family="power law")(_count)

quantity("detX_val", title="start of the detX tail", definition="λ at which the detX tail begins", family="power law")(
    lambda layer: float(layer.eigenvalues[-_tail(layer)]) if _tail(layer) else np.nan
)


@quantity(
    "detX_val_unrescaled",
    title="start of the detX tail, mean eigenvalue 1",
    definition="λ·(number of λ)/Σλ at which the detX tail begins",
    family="power law",
)
def _rescaled_start(layer: LayerWeights) -> float:
    """In units of the mean eigenvalue. (The name is WeightWatcher's; this is the rescaled one.)"""
    if not _tail(layer):
        return np.nan
    shares = layer.relative_eigenvalues
    return float(shares[-_tail(layer)] * len(shares) / np.sum(shares))


# How many eigenvalues the detX tail has more than the fitted power law's; 0 is SETOL's ideal.
quantity(
    "ERG_gap",
    title="ERG gap",
    definition="detX_num − num_pl_spikes",
    family="power law",
    worst="both",
)(lambda layer: _count(layer) - layer.power_law.tail if np.isfinite(layer.power_law.alpha) else np.nan)
