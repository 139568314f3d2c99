"""How far W has moved from W_0, its weights at the baseline. Norms run over all elements of all matrices."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from ww_callbacks.spectral.layers.spec import Array
from ww_callbacks.spectral.linalg.arrays import as_array, difference, float64, frobenius, to_device_of
from ww_callbacks.spectral.linalg.spectrum import gram_singular_values
from ww_callbacks.spectral.measuring.layer_weights import Difference, LayerWeights
from ww_callbacks.spectral.measuring.registry import quantity
from ww_callbacks.spectral.quantities.arguments import same_shape


def distance_from_init(w: ArrayLike, initial: ArrayLike) -> float:
    """‖W−W_0‖_F, computed from the differences of the elements, not from norms, which would cancel.

    Args:
        w: W, of any shape.
        initial: W_0, of the same shape.

    Returns:
        The distance, in units of the weights.

    Raises:
        ValueError: if the shapes differ.

    Examples:
        >>> distance_from_init([[3.0, 0.0]], [[0.0, 4.0]])
        5.0
    """
    return _difference(w, initial).distance


def relative_distance_from_init(w: ArrayLike, initial: ArrayLike) -> float:
    """‖W−W_0‖_F/‖W_0‖_F.

    Args:
        w: W, of any shape.
        initial: W_0, of the same shape.

    Returns:
        The ratio; NaN for W_0 = 0.

    Raises:
        ValueError: if the shapes differ.

    Examples:
        >>> relative_distance_from_init([[3.0, 0.0]], [[0.0, 4.0]])
        1.25
    """
    return _relative(_difference(w, initial))


def cosine_to_init(w: ArrayLike, initial: ArrayLike) -> float:
    """⟨W, W_0⟩/(‖W‖_F‖W_0‖_F): 1 where W was only rescaled.

    Args:
        w: W, of any shape.
        initial: W_0, of the same shape.

    Returns:
        The cosine, from −1 to 1; NaN if either is zero.

    Raises:
        ValueError: if the shapes differ.

    Examples:
        >>> cosine_to_init([[2.0, 0.0]], [[1.0, 0.0]])
        1.0
    """
    a, _ = same_shape(w, initial)
    return _cosine(float(np.linalg.norm(a)), _difference(w, initial))


def _difference(w: ArrayLike, initial: ArrayLike) -> Difference:
    a, b = same_shape(w, initial)
    return Difference.between([a.reshape(len(a) or 1, -1)], [b.reshape(len(b) or 1, -1)])


def _relative(difference: Difference) -> float:
    return difference.distance / difference.norm if difference.norm > 0.0 else np.nan


def _cosine(norm: float, difference: Difference) -> float:
    norms = norm * difference.norm
    return min(max(difference.product / norms, -1.0), 1.0) if norms > 0.0 else np.nan


quantity(
    "distance_from_init",
    title="distance from init",
    definition="‖W−W_0‖_F",
    family="distance",
    cost="cheap",
    needs="initial",
    default=True,
    headline=True,
)(lambda layer: layer.from_initial.distance)

quantity(
    "relative_distance_from_init",
    title="relative distance from init",
    definition="‖W−W_0‖_F / ‖W_0‖_F",
    family="distance",
    cost="cheap",
    needs="initial",
    default=True,
    headline=True,
)(lambda layer: _relative(layer.from_initial))

quantity(
    "cosine_to_init",
    title="cosine with init",
    definition="⟨W, W_0⟩ / (‖W‖_F‖W_0‖_F)",
    family="distance",
    cost="cheap",
    needs="initial",
    default=True,
    worst="low",
)(lambda layer: _cosine(layer.norm, layer.from_initial))


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
    v = to_device_of(as_array(initial), w)
    sizes = [float(np.sqrt(np.sum(gram_singular_values(a) ** 4))) for a in (w, v)]
    scale = float(np.sqrt(sizes[0] * sizes[1]))
    return frobenius(float64(v).T @ float64(w)) / scale if scale > 0.0 else np.nan
