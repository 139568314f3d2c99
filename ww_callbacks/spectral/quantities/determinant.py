"""detX, or ERG: the tail whose eigenvalues have product 1, after W is scaled so that they have mean 1.

With λ′ = λ·(number of λ)/Σλ in descending order, the tail is the first k for which λ′_1·…·λ′_k < 1, that k-th one
included. (Martin & Hinrichs: SETOL, 2025.) Sums of logarithms replace the products, which over- and underflow.
"""

from __future__ import annotations

import numpy as np

from ww_callbacks.spectral.measuring.layer_weights import LayerWeights
from ww_callbacks.spectral.measuring.registry import quantity


@quantity(
    "detX_num",
    title="detX tail size",
    definition="first k whose k largest λ, scaled to mean 1, have a product below 1",
    family="power law",
)
def detX_num(sample: LayerWeights) -> float:
    """Number of eigenvalues in the detX (ERG) tail."""
    return float(_tail(sample)) if _tail(sample) else np.nan


@quantity("num_ERG_spikes", title="ERG tail size", definition="the same as detX_num", family="power law")
def num_ERG_spikes(sample: LayerWeights) -> float:
    """`detX_num` under WeightWatcher's second name."""
    return detX_num(sample)


@quantity("detX_val", title="start of the detX tail", definition="λ at which the detX tail begins", family="power law")
def detX_val(sample: LayerWeights) -> float:
    """The smallest eigenvalue of the detX tail."""
    return float(sample.eigenvalues[-_tail(sample)]) if _tail(sample) else np.nan


@quantity(
    "detX_val_unrescaled",
    title="start of the detX tail, mean eigenvalue 1",
    definition="λ·(number of λ)/Σλ at which the detX tail begins",
    family="power law",
)
def detX_val_unrescaled(sample: LayerWeights) -> float:
    """The same in units of the mean eigenvalue. (The name is WeightWatcher's; this is the rescaled one.)"""
    if not _tail(sample):
        return np.nan
    shares = sample.relative_eigenvalues
    return float(shares[-_tail(sample)] * len(shares) / np.sum(shares))


@quantity(
    "ERG_gap",
    title="ERG gap",
    definition="detX_num − num_pl_spikes",
    family="power law",
    worst="both",
)
def ERG_gap(sample: LayerWeights) -> float:
    """How many eigenvalues the detX tail has more than the fitted power law's; 0 is SETOL's ideal."""
    return detX_num(sample) - sample.power_law.tail if np.isfinite(sample.power_law.alpha) else np.nan


def _tail(sample: LayerWeights) -> int:
    """k; 0 without eigenvalues above zero, or where all are equal (no product falls below 1)."""
    shares = sample.relative_eigenvalues
    if len(shares) < 2 or not shares[0] < 1.0 - 1e-12:
        return 0
    products = np.cumsum(np.log(shares[::-1] * (len(shares) / np.sum(shares))))
    below = np.flatnonzero(products < 0.0)
    return int(below[0]) + 1 if len(below) else 0
