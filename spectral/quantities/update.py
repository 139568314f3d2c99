"""The update ΔW = W_t − W_{t−1} since the last snapshot. Norms run over all elements of all matrices."""

from __future__ import annotations

import numpy as np

from spectral.arrays import dot, row_blocks
from spectral.registry import quantity
from spectral.sample import LayerSample


@quantity(
    "update_norm",
    title="update size",
    definition="‖W_t−W_{t−1}‖_F",
    family="update",
    cost="cheap",
    needs="previous",
    unchanged=0.0,
    default=True,
)
def update_norm(sample: LayerSample) -> float:
    """‖ΔW‖_F since the last snapshot."""
    return sample.from_previous.distance


@quantity(
    "relative_update_norm",
    title="relative update size",
    definition="‖W_t−W_{t−1}‖_F / ‖W_{t−1}‖_F",
    family="update",
    cost="cheap",
    needs="previous",
    unchanged=0.0,
    default=True,
    headline=True,
)
def relative_update_norm(sample: LayerSample) -> float:
    """‖ΔW‖_F/‖W_{t−1}‖_F; NaN where W_{t−1} = 0."""
    norm = sample.from_previous.norm
    return sample.from_previous.distance / norm if norm > 0.0 else np.nan


@quantity(
    "update_displacement_cosine",
    title="cosine of update and displacement",
    definition="cosine of W_t−W_{t−1} with W_{t−1}−W_0",
    family="update",
    cost="cheap",
    needs="previous",
)
def update_displacement_cosine(sample: LayerSample) -> float:
    """Cosine of the update with the displacement before it: 1 onwards, 0 sideways, −1 back to W_0; NaN without both."""
    if sample.previous is None or sample.initial is None:
        return np.nan
    product = update = displacement = 0.0
    for matrices in zip(sample.matrices, sample.previous, sample.initial, strict=True):
        for now, before, first in row_blocks(*matrices):
            product += float(dot(now - before, before - first))
            update += float(dot(now - before, now - before))
            displacement += float(dot(before - first, before - first))
    norms = np.sqrt(update) * np.sqrt(displacement)
    return float(np.clip(product / norms, -1.0, 1.0)) if norms > 0.0 else np.nan
