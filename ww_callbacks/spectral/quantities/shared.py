"""Helpers shared by several families of quantities."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from functools import wraps
from typing import TypeVar, cast

import numpy as np

from ww_callbacks.spectral.estimates.estimate import Estimate
from ww_callbacks.spectral.estimates.lanczos import BlockLanczos
from ww_callbacks.spectral.estimates.leading import largest_singular_value, leading_eigenvalues
from ww_callbacks.spectral.layers.spec import Array
from ww_callbacks.spectral.linalg.arrays import as_array, on_accelerator
from ww_callbacks.spectral.measuring.layer_weights import LayerWeights
from ww_callbacks.spectral.random_matrix.spikes import Spikes, find_spikes

T = TypeVar("T")


def once(compute: Callable[[LayerWeights], T]) -> Callable[[LayerWeights], T]:
    """Decorator: caches an intermediate result that several quantities share, computed on first use.

    It is kept in ``sample.scratch`` under the decorated function, where another worker may have promised it.
    """

    @wraps(compute)
    def kept(sample: LayerWeights) -> T:
        if kept not in sample.scratch:
            sample.scratch[kept] = compute(sample)
        value = sample.scratch[kept]
        return cast(T, value.result() if isinstance(value, Future) else value)

    return kept


def relative_eigenvalues_of_one_shape(sample: LayerWeights) -> np.ndarray:
    """The pooled λ/λ_1; none where the matrices' shapes differ, for then no one Marchenko–Pastur law holds."""
    return sample.relative_eigenvalues if of_one_shape(sample) else np.empty(0)


def largest_eigenvalue(sample: LayerWeights) -> float:
    """λ_1, the unit of the relative eigenvalues; NaN without any."""
    return float(sample.eigenvalues[-1]) if len(sample.eigenvalues) else np.nan


def space_of(sample: LayerWeights) -> BlockLanczos:
    """The Krylov space that estimates read.

    Raises:
        ValueError: if the sample has none.
    """
    if sample.space is None:
        raise ValueError("Expected a layer with a Krylov space but got one without.")
    return sample.space


def largest_estimate(sample: LayerWeights) -> Estimate:
    """σ_1 from the Krylov space."""
    return largest_singular_value(leading_eigenvalues(space_of(sample), 1))


@once
def spikes(sample: LayerWeights) -> Spikes:
    """The eigenvalues beyond the random bulk, in units of λ_1, so that no scale over- or underflows."""
    return find_spikes(relative_eigenvalues_of_one_shape(sample), sample.shape)


def of_one_shape(sample: LayerWeights) -> bool:
    """Whether all matrices have the same sides."""
    return len({tuple(sorted(w.shape)) for w in sample.matrices}) == 1


def on_host(matrix: Array) -> np.ndarray:
    """The matrix as a NumPy array, copied from an accelerator if needed."""
    return np.asarray(as_array(matrix.cpu() if on_accelerator(matrix) else matrix))
