"""How far W has moved from W_0, its weights at the baseline. Norms run over all elements of all matrices."""

from __future__ import annotations

import numpy as np

from spectral.registry import quantity
from spectral.sample import LayerSample


@quantity(
    "distance_from_init",
    title="distance from init",
    definition="‖W−W_0‖_F",
    family="distance",
    cost="cheap",
    needs="initial",
    default=True,
    headline=True,
)
def distance_from_init(sample: LayerSample) -> float:
    """‖W−W_0‖_F, element-wise."""
    return sample.from_initial.distance


@quantity(
    "relative_distance_from_init",
    title="relative distance from init",
    definition="‖W−W_0‖_F / ‖W_0‖_F",
    family="distance",
    cost="cheap",
    needs="initial",
    default=True,
    headline=True,
)
def relative_distance_from_init(sample: LayerSample) -> float:
    """‖W−W_0‖_F/‖W_0‖_F; NaN for W_0 = 0."""
    norm = sample.from_initial.norm
    return sample.from_initial.distance / norm if norm > 0.0 else np.nan


@quantity(
    "cosine_to_init",
    title="cosine with init",
    definition="⟨W, W_0⟩ / (‖W‖_F‖W_0‖_F)",
    family="distance",
    cost="cheap",
    needs="initial",
    default=True,
    worst="low",
)
def cosine_to_init(sample: LayerSample) -> float:
    """Cosine of the angle between W and W_0: 1 where W was only rescaled; NaN where either is zero."""
    norms = sample.norm * sample.from_initial.norm
    return float(np.clip(sample.from_initial.product / norms, -1.0, 1.0)) if norms > 0.0 else np.nan
