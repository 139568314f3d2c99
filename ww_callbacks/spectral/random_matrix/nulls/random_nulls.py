"""Random nulls of a matrix: spectra without correlations between its elements.

Two kinds. ``shuffled`` keeps W's elements, hence their distribution with its large ones and its mean, and destroys
their places. ``gaussian`` keeps only shape, mean and variance. Every draw comes from a separate generator; the
global one is never touched.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from ww_callbacks.spectral.random_matrix.marchenko_pastur import Shape, sides


def generator(seed: int, *stream: int) -> np.random.Generator:
    """A generator for ``seed``, independent for every ``stream`` (each matrix, or each draw).

    >>> bool(generator(0, 1).random() == generator(0, 1).random()), bool(generator(0).random() == generator(1).random())
    (True, False)
    """
    return np.random.default_rng([seed, *stream])


def shuffling_generator(seed: int, *stream: int) -> np.random.Generator:
    """Like :func:`generator`, with a faster bit generator: shuffling takes half the time."""
    return np.random.Generator(np.random.SFC64([seed, *stream]))


def shuffled(matrix: ArrayLike, rng: np.random.Generator) -> np.ndarray:
    """W with its elements in random positions: the same values, no correlations.

    Args:
        matrix: W.
        rng: generator of the permutation.

    Returns:
        A float64 matrix of the same shape, C-contiguous.

    >>> shuffled([[1.0, 2.0], [3.0, 4.0]], generator(0)).sum()
    np.float64(10.0)
    """
    w = np.array(matrix, dtype=np.float64, order="C")
    rng.shuffle(w.reshape(-1))
    return w


def gaussian(matrix: ArrayLike, rng: np.random.Generator) -> np.ndarray:
    """A Gaussian matrix with W's shape, mean and variance.

    >>> gaussian([[1.0, 1.0]], generator(0)).tolist()
    [[1.0, 1.0]]
    """
    w = np.asarray(matrix, dtype=np.float64)
    return rng.normal(np.mean(w), np.std(w), size=w.shape)


def gaussian_eigenvalues(shape: Shape, rng: np.random.Generator) -> np.ndarray:
    """Eigenvalues λ of WᵀW for W of independent standard normal entries, without creating W: O(M²) instead of O(NM²).

    Householder reflections turn a Gaussian matrix into a bidiagonal one of independent entries: χ_N, χ_{N−1}, … on the
    diagonal, χ_{M−1}, …, χ_1 next to it, with the same singular values in law. Exact, not an approximation.

    Args:
        shape: shape of the matrix, in either orientation.
        rng: generator of the draw.

    Returns:
        M eigenvalues, ascending.

    Source:
        I. Dumitriu and A. Edelman, Journal of Mathematical Physics 43 (2002) 5830.

    >>> len(gaussian_eigenvalues((300, 100), generator(0)))
    100
    """
    from scipy.linalg import eigvalsh_tridiagonal

    larger, smaller = sides(shape)
    diagonal = rng.chisquare(larger - np.arange(smaller))
    off_diagonal = rng.chisquare(np.arange(smaller - 1, 0, -1))
    # BᵀB of the bidiagonal B: diagonal d_i² + e_{i−1}², off-diagonal d_i·e_i
    on = diagonal + np.concatenate([[0.0], off_diagonal])
    if smaller == 1:
        return on
    return np.maximum(eigvalsh_tridiagonal(on, np.sqrt(diagonal[:-1] * off_diagonal)), 0.0)
