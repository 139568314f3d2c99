"""The update ΔW = W_t − W_{t−1} since the last snapshot. Norms run over all elements of all matrices."""

from __future__ import annotations

import numpy as np

from ww_callbacks.spectral.layers.spec import Array
from ww_callbacks.spectral.linalg.arrays import as_array, difference, dot, frobenius, row_blocks, to_device_of
from ww_callbacks.spectral.linalg.spectrum import gram_singular_values, leading_vectors
from ww_callbacks.spectral.measuring.layer_weights import LayerWeights
from ww_callbacks.spectral.measuring.registry import quantity

LEADING = 10
"""Singular vectors that count as leading."""


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
def update_norm(sample: LayerWeights) -> float:
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
def relative_update_norm(sample: LayerWeights) -> float:
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
def update_displacement_cosine(sample: LayerWeights) -> float:
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


@quantity(
    "update_stable_rank",
    title="stable rank of the update",
    definition="‖ΔW‖_F²/σ_1(ΔW)²",
    family="update",
    cost="request",
    needs="previous",
    worst="low",
)
def update_stable_rank(sample: LayerWeights) -> float:
    """‖ΔW‖_F²/σ_1(ΔW)², over all matrices: how many directions the update uses; NaN without a change."""
    values = np.concatenate([gram_singular_values(difference(w, v)) for w, v in _pairs(sample)])
    largest = float(np.max(values, initial=0.0))
    return float(np.sum((values / largest) ** 2)) if largest > 0.0 else np.nan


@quantity(
    "update_leading_share",
    title="update within the leading subspace",
    definition="‖ΔW·V_10‖_F²/‖ΔW‖_F², V_10 the ten leading singular vectors of W_{t−1} on its smaller side",
    family="update",
    cost="request",
    needs="previous",
)
def update_leading_share(sample: LayerWeights) -> float:
    """Share of ‖ΔW‖_F² in the ten leading singular directions of W_{t−1} on its smaller side (10/M for a random ΔW)."""
    inside = 0.0
    for now, before in _pairs(sample):
        change = difference(now, before)
        tall = change if change.shape[0] >= change.shape[1] else change.T
        inside += frobenius(tall @ leading_vectors(to_device_of(as_array(before), change), LEADING)) ** 2
    total = sample.from_previous.distance**2
    return inside / total if total > 0.0 else np.nan


def _pairs(sample: LayerWeights) -> zip[tuple[Array, Array]]:
    """The matrices of W with those of the last snapshot."""
    return zip(sample.matrices, sample.previous or (), strict=True)
