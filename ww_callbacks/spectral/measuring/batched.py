"""Measures many small layers of the same shape in one batch.

For a 64×64 matrix, LAPACK takes a quarter of a millisecond, and the hundred or so calls of NumPy take several times as
long. Here the matrices of several layers are stacked, so that each call processes all of them: products, spectra,
norms, the power law, and the curves of the spectral density. The results are bit-for-bit those of single layers, except
for the curve of D and α over xmin.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from math import sqrt

import numpy as np

from ww_callbacks.spectral.fits.clauset import FEW, RELATIVE_CUT, Scanned, best_of_each
from ww_callbacks.spectral.layers.spec import Array
from ww_callbacks.spectral.linalg.arrays import is_small
from ww_callbacks.spectral.linalg.density import CURVES, curves
from ww_callbacks.spectral.linalg.spectrum import gram_singular_values_of_stack, scaling_exponent
from ww_callbacks.spectral.measuring.registry import Quantity

STACK = 64
"""Layers per stack: 2 MB of 64×64 matrices in float64, which fit into a core's cache."""


def stackable(array: object) -> bool:
    """Whether ``array`` is a matrix small enough to be measured faster in a batch."""
    return (
        isinstance(array, np.ndarray)
        and is_small(array)
        and array.ndim == 2
        and array.size > 0
        and array.dtype in (np.float32, np.float64)
    )


def together(
    matrices: Sequence[Array], densities: bool = True, quantities: Iterable[Quantity] = ()
) -> list[Mapping[str, object]]:
    """The cached attributes of :class:`~ww_callbacks.spectral.measuring.layer_weights.LayerWeights` for each matrix.

    Args:
        matrices: one matrix per layer, all :func:`stackable` and of the same shape.
        densities: whether to compute the curves of the spectral density.
        quantities: those whose values are wanted, where they follow from the singular values.

    Returns:
        For each matrix its attributes by name, and the entries of ``scratch`` under that name; empty for a matrix that
        needs special treatment: zero, not finite, or of extreme scale.
    """
    stack = np.stack([np.asarray(m) for m in matrices]).astype(np.float64)
    flat = stack.reshape(len(stack), -1)
    largest = np.maximum(flat.max(axis=1), -flat.min(axis=1))
    usual = np.array(
        [value > 0.0 and np.isfinite(value) and scaling_exponent(value) == 0 for value in largest.tolist()]
    )
    found: list[Mapping[str, object]] = [{} for _ in matrices]
    if not usual.any():
        return found
    if not usual.all():
        stack, largest = stack[usual], largest[usual]
        flat = stack.reshape(len(stack), -1)
    sigma = gram_singular_values_of_stack(stack)
    ascending = np.ascontiguousarray(sigma[:, ::-1])
    relative = (ascending / ascending[:, -1:]) ** 2
    mean = flat.sum(axis=1) / flat.shape[1]
    centred = flat - mean[:, None]
    fitted = _fits(relative)
    known = {q.name: q.of_spectra(sigma).tolist() for q in quantities if q.of_spectra is not None}
    drawn: Sequence[object] = curves(ascending**2, fitted) if densities else [None] * len(stack)
    for at, place in enumerate(np.flatnonzero(usual).tolist()):
        attributes: dict[str, object] = {
            "known": {name: values[at] for name, values in known.items()},
            "largest": float(largest[at]),
            "singular_values": [sigma[at]],
            "eigenvalues": ascending[at] ** 2,
            "relative_eigenvalues": relative[at],
            "norm": sqrt(flat[at].dot(flat[at])),
            "element_mean": float(mean[at]),
            "element_variance": float(centred[at].dot(centred[at])) / flat.shape[1],
        }
        if (fit := fitted[at]) is not None:
            attributes["relative_power_law"] = fit.fit
        if drawn[at] is not None:
            attributes["scratch"] = {CURVES: drawn[at]}
        found[place] = attributes
    return found


def _fits(relative: np.ndarray) -> list[Scanned | None]:
    """The power laws fitted to λ/λ_1, one per row; None if there are too many eigenvalues or not all are usable."""
    if not 1 < relative.shape[1] <= FEW:
        return [None] * len(relative)
    usable = relative[:, 0] >= RELATIVE_CUT
    fits = iter(best_of_each(relative[usable]))
    return [next(fits) if use else None for use in usable.tolist()]
