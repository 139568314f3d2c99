"""Distance of a spectrum from a random one: the Jensen–Shannon distance between two sorted lists of eigenvalues.

d = √{[KL(p‖m) + KL(q‖m)]/2}, m = (p + q)/2, natural logarithm, where p and q are the eigenvalues of W and of its null,
each sorted and divided by its sum. So it compares the k-th eigenvalues of both; it is not a distance between densities.
Between 0 and √ln 2 = 0.8326, whatever the scale of W.

Two nulls: the spectrum of a shuffle of W (WeightWatcher's ``rand_distance``, which needs a second decomposition), and
the quantiles of the Marchenko–Pastur law (``mp_distance``, which needs none).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from ww_callbacks.spectral.random_matrix.marchenko_pastur import Shape, expected_eigenvalues, sides


def jensen_shannon_distance(p: ArrayLike, q: ArrayLike) -> float:
    """√{[KL(p‖m) + KL(q‖m)]/2} of two non-negative vectors, each normalised to sum 1.

    Args:
        p: n numbers, none negative.
        q: n numbers, none negative.

    Returns:
        The distance, natural logarithm; NaN where one of them sums to 0.

    Raises:
        ValueError: if the lengths differ.

    >>> round(jensen_shannon_distance([1.0, 0.0], [0.0, 1.0]), 4)
    0.8326
    """
    from scipy.special import rel_entr

    first, second = np.asarray(p, dtype=np.float64), np.asarray(q, dtype=np.float64)
    if first.shape != second.shape:
        raise ValueError(f"Expected two lists of one length but got shapes {first.shape} and {second.shape}.")
    if not (np.sum(first) > 0 and np.sum(second) > 0):
        return float("nan")
    first, second = first / np.sum(first), second / np.sum(second)
    middle = (first + second) / 2
    divergence = (np.sum(rel_entr(first, middle)) + np.sum(rel_entr(second, middle))) / 2
    return float(np.sqrt(max(divergence, 0.0)))


def rand_distance(eigenvalues: ArrayLike, null_eigenvalues: ArrayLike) -> float:
    """WeightWatcher's ``rand_distance``: the distance of W's eigenvalues from those of a shuffle.

    Args:
        eigenvalues: λ of W, in any order.
        null_eigenvalues: as many λ of a null, in any order.

    >>> rand_distance([1.0, 2.0], [2.0, 1.0])
    0.0
    """
    return jensen_shannon_distance(np.sort(np.ravel(eigenvalues)), np.sort(np.ravel(null_eigenvalues)))


def mp_distance(eigenvalues: ArrayLike, shape: Shape) -> float:
    """The same distance, from the Marchenko–Pastur law's expected eigenvalues instead of a shuffle's.

    It has no chance in it and costs no decomposition. For a random matrix it is of the order of 1/M, where
    ``rand_distance`` is about √2 times that.

    Args:
        eigenvalues: λ of one matrix, or of k matrices of one shape pooled, in any order.
        shape: the shape of one such matrix.

    Raises:
        ValueError: if the number of eigenvalues is no multiple of M.

    >>> mp_distance(expected_eigenvalues((300, 100)), (300, 100))
    0.0
    """
    values = np.sort(np.ravel(np.asarray(eigenvalues, dtype=np.float64)))
    pooled, rest = divmod(len(values), sides(shape)[1])
    if rest:
        raise ValueError(f"Expected a multiple of {sides(shape)[1]} eigenvalues for {shape} but got {len(values)}.")
    return jensen_shannon_distance(values, np.repeat(expected_eigenvalues(shape), pooled))
