"""How far W has moved from W_0, its weights at the baseline. Norms run over all elements of all matrices."""

from __future__ import annotations

import numpy as np

from ww_callbacks.spectral.layers.spec import Array
from ww_callbacks.spectral.linalg.arrays import as_array, beside, difference, float64, frobenius
from ww_callbacks.spectral.linalg.spectrum import gram_singular_values
from ww_callbacks.spectral.measuring.layer_weights import Difference, LayerWeights
from ww_callbacks.spectral.measuring.registry import quantity


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
def distance_from_init(sample: LayerWeights) -> float:
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
def relative_distance_from_init(sample: LayerWeights) -> float:
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
def cosine_to_init(sample: LayerWeights) -> float:
    """Cosine of the angle between W and W_0: 1 where W was only rescaled; NaN where either is zero."""
    norms = sample.norm * sample.from_initial.norm
    return float(np.clip(sample.from_initial.product / norms, -1.0, 1.0)) if norms > 0.0 else np.nan


@quantity(
    "mean_distance_from_init",
    title="mean distance over matrices",
    definition="mean over the layer's matrices of ‖W−W_0‖_F",
    family="distance",
    cost="cheap",
    needs="initial",
)
def mean_distance_from_init(sample: LayerWeights) -> float:
    """Mean over the matrices of ‖W−W_0‖_F: WeightWatcher's `euclidean` distance; one matrix gives the plain one."""
    if sample.initial is None:
        return np.nan
    return float(np.mean([Difference.between([w], [v]).distance for w, v in _pairs(sample)]))


@quantity(
    "cka_to_init",
    title="CKA with init",
    definition="mean over matrices of ‖W_0ᵀW‖_F / √(‖WᵀW‖_F·‖W_0ᵀW_0‖_F)",
    family="distance",
    cost="request",
    needs="initial",
    worst="low",
)
def cka_to_init(sample: LayerWeights) -> float:
    """Uncentred alignment of the column spaces of W and W_0, 1 where they agree: WeightWatcher's `cka`.

    It is blind to scale and to an orthogonal map of the inputs. Its square is the uncentred linear CKA of Kornblith et
    al. (2019).
    """
    if sample.initial is None:
        return np.nan
    return float(np.mean([_alignment(w, v) for w, v in _pairs(sample)]))


@quantity(
    "displacement_top10_share",
    title="top-10 share of the displacement",
    definition="Σ_{i≤10} σ_i² / Σσ_i² of W−W_0",
    family="distance",
    cost="request",
    needs="initial",
)
def displacement_top10_share(sample: LayerWeights) -> float:
    """Share of ‖W−W_0‖_F² in its ten largest singular values, over all matrices: how concentrated the learning is."""
    if sample.initial is None:
        return np.nan
    values = np.sort(np.concatenate([gram_singular_values(difference(w, v)) for w, v in _pairs(sample)]))[::-1]
    total = float(np.sum(values**2))
    return float(np.sum(values[:10] ** 2)) / total if total > 0.0 else np.nan


def _pairs(sample: LayerWeights) -> zip[tuple[Array, Array]]:
    """The matrices of W with those of W_0."""
    return zip(sample.matrices, sample.initial or (), strict=True)


def _alignment(matrix: Array, initial: Array) -> float:
    """‖VᵀW‖_F / √(‖WᵀW‖_F·‖VᵀV‖_F); NaN where either is zero."""
    w = as_array(matrix)
    v = beside(as_array(initial), w)
    sizes = [float(np.sqrt(np.sum(gram_singular_values(a) ** 4))) for a in (w, v)]
    scale = float(np.sqrt(sizes[0] * sizes[1]))
    return frobenius(float64(v).T @ float64(w)) / scale if scale > 0.0 else np.nan
