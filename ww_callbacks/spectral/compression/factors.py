"""Low-rank factorisation: a matrix as the product of two thin ones."""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Integral

import numpy as np


def check_whole(rank: int) -> None:
    """See that ``rank`` is an integer of Python or NumPy.

    Raises:
        TypeError: if not.
    """
    if not isinstance(rank, Integral):
        raise TypeError(f"Expected a whole number as rank, but got {rank!r}. Round it first: `math.ceil(rank)`.")


def check_sigma(sigma: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """``sigma`` in float64, in descending order.

    Raises:
        ValueError: if a matrix of this shape cannot have these singular values.
    """
    sigma = np.asarray(sigma, dtype=np.float64)
    if len(shape) != 2 or min(shape) < 1:
        raise ValueError(f"Expected `shape` as (rows, columns), both positive, but got {tuple(shape)}.")
    if sigma.ndim != 1 or not 1 <= sigma.size <= min(shape) or not np.isfinite(sigma).all() or (sigma < 0).any():
        raise ValueError(
            f"Expected at most {min(shape)} finite singular values ≥ 0 for a {shape[0]} × {shape[1]} matrix, but got "
            f"{_described(sigma)}. Give `sigma` and `shape` of the same matrix."
        )
    return np.sort(sigma)[::-1]


def _described(sigma: np.ndarray) -> str:
    if sigma.ndim != 1:
        return f"the shape {sigma.shape}"
    bad = sigma[~np.isfinite(sigma) | (sigma < 0)]
    return f"{bad[0]:g} among {sigma.size}" if bad.size else f"{sigma.size}"


def check_rank(matrix: np.ndarray, rank: int) -> np.ndarray:
    """``matrix`` in float64.

    Raises:
        ValueError: if it is no finite matrix, or ``rank`` is not between 1 and its smaller side.
        TypeError: if ``rank`` is no whole number.
    """
    matrix = np.asarray(matrix, dtype=np.float64)
    if matrix.ndim != 2 or matrix.size == 0:
        raise ValueError(f"Expected a matrix, but got the shape {matrix.shape}.")
    if not np.isfinite(matrix).all():
        raise ValueError("Expected finite elements, but got NaN or infinity.")
    check_whole(rank)
    if not 1 <= rank <= min(matrix.shape):
        raise ValueError(f"Expected a rank between 1 and {min(matrix.shape)}, but got {rank}.")
    return matrix


@dataclass(frozen=True)
class Factors:
    """W ≈ U·V.

    Attributes:
        u: rows × rank.
        v: rank × columns.
    """

    u: np.ndarray
    v: np.ndarray

    @property
    def rank(self) -> int:
        """The rank r."""
        return self.u.shape[1]

    @property
    def size(self) -> int:
        """Number of values stored: r·(rows + columns)."""
        return self.u.size + self.v.size

    def matrix(self) -> np.ndarray:
        """The product U·V."""
        return self.u @ self.v


def split(u: np.ndarray, sigma: np.ndarray, vt: np.ndarray) -> Factors:
    """Factors with √σ on both sides, so that neither is badly scaled in half precision or under weight decay."""
    root = np.sqrt(sigma)
    return Factors(u * root, root[:, None] * vt)


def truncated_svd(matrix: np.ndarray, rank: int) -> Factors:
    r"""The best approximation of the given rank, :math:`U\sqrt{\Sigma_r}\cdot\sqrt{\Sigma_r}V^\top`.

    Its error is :math:`\sigma_{r+1}` in the spectral norm and :math:`(\sum_{i>r}\sigma_i^2)^{1/2}` in Frobenius'.

    Args:
        matrix: W, rows × columns.
        rank: r.

    Returns:
        The factors, float64.

    Raises:
        ValueError: if ``matrix`` is no finite matrix or ``rank`` is out of range.
        TypeError: if ``rank`` is no whole number.

    Source: C. Eckart and G. Young (1936).

    >>> truncated_svd(np.diag([3.0, 2.0, 1.0]), 2).matrix().round(12) + 0.0
    array([[3., 0., 0.],
           [0., 2., 0.],
           [0., 0., 0.]])
    """
    u, sigma, vt = np.linalg.svd(check_rank(matrix, rank), full_matrices=False)
    return split(u[:, :rank], sigma[:rank], vt[:rank])
