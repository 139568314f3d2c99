"""Matrix → singular values.

The eigenvalues of the smaller Gram product (WᵀW or WWᵀ, M×M) are λ = σ². In float64 they have an absolute error of
about ``M·eps·λ_1``, so σ has a relative error of about ``½·M·eps·(σ_1/σ)²``: below 1e-6 down to σ = 2e-5·σ_1 for every
practical M, and no information below about 1e-7·σ_1. Therefore:

* :func:`gram_singular_values` uses the Gram product alone and sets to zero what is below its noise; it serves every
  quantity that weighs σ by its size (norms, stable and effective rank, entropy, the power law);
* :func:`singular_values` continues to LAPACK's SVD where the smallest value is below :data:`RESOLVED` ·σ_1; it serves
  the quantities that look at the smallest values (matrix rank, rank loss, smallest singular value).

Before anything is squared, W is scaled by a power of two, which is exact, so that nothing over- or underflows.
"""

from __future__ import annotations

import sys
from math import frexp, isfinite, ldexp
from typing import Any

import numpy as np

from ww_callbacks.spectral.layers.spec import Array
from ww_callbacks.spectral.linalg.arrays import as_array, float64, largest_magnitude, on_accelerator, row_blocks
from ww_callbacks.spectral.linalg.lapack import (
    callable_directly,
    leading_eigenvectors,
    symmetric_eigenvalues,
    symmetric_eigenvalues_of_stack,
    symmetric_product,
)

RESOLVED = 2e-5
"""Smallest σ/σ_1 for which the Gram product gives σ to about 1e-6."""

_LARGE = 1024
"""From this side on, WᵀW is summed in place over few rows at a time, so that it needs no other memory."""

_ROWS = 256

_SAFE_EXPONENT = 200
"""|W| between 2^−200 and 2^200 may be squared and summed in float64 without scaling."""


def singular_values(matrix: Array) -> np.ndarray:
    """All singular values of W, each as exact as float64 allows.

    Args:
        matrix: W, of shape (rows, columns), finite, of any real dtype; NumPy array or torch tensor.

    Returns:
        σ_1 ≥ σ_2 ≥ …, float64, min(rows, columns) of them.

    Raises:
        ValueError: if ``matrix`` is not two-dimensional, or holds NaN or infinity.
        numpy.linalg.LinAlgError: if LAPACK does not converge.

    >>> singular_values(np.array([[3.0, 0.0], [0.0, 1e-9]])).tolist()
    [3.0, 1e-09]
    """
    fast = gram_singular_values(matrix)
    return fast if resolved(fast) else svd_singular_values(matrix)


def resolved(values: np.ndarray) -> bool:
    """Whether the Gram product gave even the smallest of these singular values to about 1e-6."""
    return len(values) == 0 or bool(values[-1] >= RESOLVED * values[0])


def gram_singular_values(matrix: Array) -> np.ndarray:
    """Singular values of W from its smaller Gram product; those below the product's noise are 0.

    Shapes, dtypes and errors as in :func:`singular_values`. Accurate to a relative ½·M·eps·(σ_1/σ)², and set to zero
    where σ² < M·eps·σ_1² (M the smaller side).

    >>> gram_singular_values(np.array([[3.0, 0.0], [0.0, 1e-9]])).tolist()
    [3.0, 0.0]
    """
    tall, exponent = _tall(matrix)
    side = tall.shape[1]
    if side == 0:
        return np.zeros(0)
    eigenvalues = _symmetric_eigenvalues(_gram(tall, exponent))[::-1]
    floor = side * np.finfo(np.float64).eps * eigenvalues[0]
    return np.ldexp(np.sqrt(np.where(eigenvalues > floor, eigenvalues, 0.0)), exponent)


def gram_singular_values_of_stack(stack: np.ndarray) -> np.ndarray:
    """:func:`gram_singular_values` of several small matrices of one shape, with bit-for-bit the same results.

    Args:
        stack: shape (matrices, rows, columns), float64, C-contiguous, finite, none of extreme scale.

    Returns:
        σ descending, one row per matrix.
    """
    swapped = stack.transpose(0, 2, 1)
    grams = swapped @ stack if stack.shape[1] >= stack.shape[2] else stack @ swapped
    eigenvalues = symmetric_eigenvalues_of_stack(grams)[:, ::-1]
    floor = grams.shape[1] * np.finfo(np.float64).eps * eigenvalues[:, :1]
    return np.sqrt(np.where(eigenvalues > floor, eigenvalues, 0.0))


def svd_singular_values(matrix: Array) -> np.ndarray:
    """Singular values of W by LAPACK's SVD: gesdd, or gesvd if that does not converge."""
    tall, exponent = _tall(matrix)
    if on_accelerator(tall):
        torch = sys.modules["torch"]
        return np.ldexp(torch.linalg.svdvals(scaled(float64(tall), exponent)).cpu().numpy(), exponent)
    small = scaled(float64(tall), exponent)
    try:
        values = np.linalg.svd(small, compute_uv=False)
    except np.linalg.LinAlgError:
        import scipy.linalg

        values = scipy.linalg.svd(small, compute_uv=False, lapack_driver="gesvd")
    return np.ldexp(values, exponent)


def leading_vectors(matrix: Array, count: int) -> Array:
    """The ``count`` leading singular vectors of W on its smaller side, as columns, float64, on W's device.

    Args:
        matrix: W, finite; the vectors are right singular ones if it has at least as many rows as columns, else left.
        count: how many; all if there are fewer.
    """
    tall, exponent = _tall(matrix)
    side = tall.shape[1]
    gram = _gram(tall, exponent)
    if on_accelerator(gram):
        return sys.modules["torch"].linalg.eigh(gram)[1][:, max(0, side - count) :]
    return leading_eigenvectors(np.asarray(gram), count)


def scaling_exponent(largest: float) -> int:
    """The exponent e for which W·2^−e can be squared and summed: 0 unless max |W| = ``largest`` is extreme.

    >>> scaling_exponent(0.3), scaling_exponent(1e-300)
    (0, -997)
    """
    exponent = frexp(largest)[1] - 1 if isfinite(largest) else 0
    return exponent if abs(exponent) > _SAFE_EXPONENT and largest > 0.0 else 0


def _tall(matrix: Array) -> tuple[Array, int]:
    """W or its transpose, whichever has at least as many rows as columns, and its scaling exponent."""
    array = as_array(matrix)
    if array.ndim != 2:
        raise ValueError(f"Expected a matrix of two dimensions but got the shape {tuple(array.shape)}.")
    largest = largest_magnitude(array)
    if not isfinite(largest):
        raise ValueError("Expected a finite matrix but got NaN or infinite elements.")
    return (array if array.shape[0] >= array.shape[1] else array.T), scaling_exponent(largest)


def scaled(array: Array, exponent: int) -> Array:
    """W·2^−exponent, exactly; in two steps, since 2^−exponent itself may overflow."""
    if exponent == 0:
        return array
    half = exponent // 2
    return (array * ldexp(1.0, -half)) * ldexp(1.0, half - exponent)


def _gram(tall: Array, exponent: int) -> Array:
    """WᵀW in float64, summed over blocks of rows; ``a.T @ a`` is LAPACK's syrk in NumPy."""
    side = tall.shape[1]
    if side >= _LARGE and not on_accelerator(tall) and callable_directly():
        return symmetric_product(np.asarray(scaled(b, exponent)) for (b,) in row_blocks(tall, rows=_ROWS))
    gram: Any = None
    # A block at least as tall as wide keeps the product efficient and its float64 copy no larger than the Gram matrix.
    for (block,) in row_blocks(tall, rows=max(side, (1 << 20) // side)):
        block = scaled(block, exponent)
        gram = block.T @ block if gram is None else gram.__iadd__(block.T @ block)
    return gram


def _symmetric_eigenvalues(gram: Array) -> np.ndarray:
    """Eigenvalues of a symmetric matrix, which is overwritten, ascending, float64, on the host."""
    if on_accelerator(gram):
        return sys.modules["torch"].linalg.eigvalsh(gram).cpu().numpy()
    return symmetric_eigenvalues(np.asarray(gram))
