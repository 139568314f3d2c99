r"""Spikes: eigenvalues of W beyond the bulk, and the strength of the rank-one parts that make them.

For W = θ s·uvᵀ + noise of variance s² (u, v unit vectors, θ the strength in units of s) an eigenvalue leaves the bulk
if and only if θ² > √(NM); it then lies at

    λ(θ) = s²(θ² + N)(θ² + M)/θ².

Source: J. Baik and J. W. Silverstein, Journal of Multivariate Analysis 97 (2006) 1382; F. Benaych-Georges and
R. R. Nadakuditi, Journal of Multivariate Analysis 111 (2012) 120.

A spike of W is another object than a correlation trap, which is a spike of W's shuffle (see ``traps``).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from spectral.random_matrix import tracy_widom
from spectral.random_matrix.marchenko_pastur import Shape, bulk_variance, edges, sides


def critical_strength(shape: Shape) -> float:
    """The strength θ_c = (NM)^{1/4} below which a rank-one part leaves no trace in the largest eigenvalue.

    >>> critical_strength((400, 100))
    14.142135623730951
    """
    larger, smaller = sides(shape)
    return float((larger * smaller) ** 0.25)


def spike_location(strength: ArrayLike, shape: Shape, variance: float = 1.0) -> np.ndarray:
    """Where a rank-one part of strength θ shows: s²(θ² + N)(θ² + M)/θ², or the edge λ₊ below the critical strength.

    Args:
        strength: θ in units of s, any shape.
        shape: shape of the matrix.
        variance: s², the variance of the noise.

    >>> spike_location([1.0, 20.0], (400, 100)).round(9).tolist()
    [900.0, 1000.0]
    """
    larger, smaller = sides(shape)
    squared = np.maximum(np.asarray(strength, dtype=np.float64), critical_strength(shape)) ** 2
    return variance * (squared + larger) * (squared + smaller) / squared


def spike_strength(eigenvalues: ArrayLike, shape: Shape, variance: float = 1.0) -> np.ndarray:
    """The strength θ (in units of s) that puts a spike at λ: the inverse of :func:`spike_location`.

    θ² = ½[c + √(c² − 4NM)] with c = λ/s² − N − M.

    Args:
        eigenvalues: λ, any shape; NaN is returned for those inside the bulk, whose strength cannot be told.
        shape: shape of the matrix.
        variance: s², the variance of the noise.

    >>> spike_strength(1000.0, (400, 100)).round(9).tolist()
    20.0
    """
    larger, smaller = sides(shape)
    excess = np.asarray(eigenvalues, dtype=np.float64) / variance - larger - smaller
    outside = excess >= 2 * np.sqrt(larger * smaller)
    root = np.sqrt(np.where(outside, excess**2 - 4 * larger * smaller, 0.0))
    return np.where(outside, np.sqrt(np.maximum(excess + root, 0) / 2), np.nan)


def spike_overlaps(strength: ArrayLike, shape: Shape) -> tuple[np.ndarray, np.ndarray]:
    """Squared cosines of a spike's singular vectors with the true ones, on the larger side and on the smaller side.

    cos²_N = (θ⁴ − NM)/(θ²(θ² + N)) and cos²_M = (θ⁴ − NM)/(θ²(θ² + M)); both 0 below the critical strength.

    Args:
        strength: θ in units of s, any shape.
        shape: shape of the matrix.

    >>> [round(float(c), 3) for c in spike_overlaps(20.0, (400, 100))]
    [0.375, 0.6]
    """
    larger, smaller = sides(shape)
    squared = np.asarray(strength, dtype=np.float64) ** 2
    signal = np.maximum(squared**2 - larger * smaller, 0.0)
    positive = np.maximum(squared, np.finfo(np.float64).tiny)
    return signal / (positive * (positive + larger)), signal / (positive * (positive + smaller))


@dataclass(frozen=True)
class Spikes:
    """Eigenvalues beyond the Tracy–Widom edge of the bulk.

    Attributes:
        variance: s² of the bulk (``marchenko_pastur.bulk_variance``).
        bulk_max: the bulk's edge λ₊ in units of λ.
        cut: the λ beyond which an eigenvalue counts.
        eigenvalues: the spikes, descending.
        strengths: their strengths θ in units of s, descending.
        z: the largest eigenvalue in Tracy–Widom units of the bulk.
    """

    variance: float
    bulk_max: float
    cut: float
    eigenvalues: np.ndarray
    strengths: np.ndarray
    z: float


def find_spikes(eigenvalues: ArrayLike, shape: Shape, *, variance: float | None = None, level: float = 0.01) -> Spikes:
    """The eigenvalues that a random matrix with the bulk's variance would not have.

    Args:
        eigenvalues: λ of one matrix, or of several of one shape pooled, in any order.
        shape: the shape of one such matrix.
        variance: s² of the bulk where it is known; from the median eigenvalue otherwise.
        level: how often a random matrix may have one or more by chance. For k pooled matrices the cut is taken at
            level/k.

    Raises:
        ValueError: for a level outside (0, 1).

    >>> from spectral.random_matrix.marchenko_pastur import expected_eigenvalues
    >>> found = find_spikes([*expected_eigenvalues((300, 100)), 900.0], (300, 100))
    >>> found.eigenvalues.tolist(), found.strengths.round(1).tolist()
    ([900.0], [20.7])
    """
    if not 0 < level < 1:
        raise ValueError(f"Expected a level between 0 and 1 but got {level}.")
    values = np.sort(np.asarray(eigenvalues, dtype=np.float64).ravel())[::-1]
    s2 = bulk_variance(values, shape) if variance is None else variance
    if not (len(values) and s2 > 0):
        nan = float("nan")
        return Spikes(s2, nan, nan, np.empty(0), np.empty(0), nan)
    pooled = max(1, round(len(values) / sides(shape)[1]))
    cut = tracy_widom.edge(shape, s2, level / pooled)
    beyond = values[values > cut]
    return Spikes(
        variance=s2,
        bulk_max=edges(shape, s2)[1],
        cut=cut,
        eigenvalues=beyond,
        strengths=spike_strength(beyond, shape, s2),
        z=tracy_widom.z_score(float(values[0]), shape, s2),
    )
