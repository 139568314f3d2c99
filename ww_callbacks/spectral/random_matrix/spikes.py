r"""Spikes: eigenvalues of W beyond the bulk, and the strength of the rank-one parts that make them.

For W = θ s·uvᵀ + noise of variance s² (u, v unit vectors, θ the strength in units of s) an eigenvalue leaves the bulk
if and only if θ² > √(NM); it is then at

    λ(θ) = s²(θ² + N)(θ² + M)/θ².

Source: J. Baik and J. W. Silverstein, Journal of Multivariate Analysis 97 (2006) 1382; F. Benaych-Georges and
R. R. Nadakuditi, Journal of Multivariate Analysis 111 (2012) 120.

A spike of W is another object than a correlation trap, which is a spike of W's shuffle (see ``traps``).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike

from ww_callbacks.spectral.random_matrix import tracy_widom
from ww_callbacks.spectral.random_matrix.marchenko_pastur import Shape, bulk_variance, cdf, edges, sides


def critical_strength(shape: Shape) -> float:
    """The strength θ_c = (NM)^{1/4} below which a rank-one part leaves no trace in the largest eigenvalue.

    Examples:
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

    Examples:
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
        eigenvalues: λ, any shape; NaN is returned for those inside the bulk, whose strength is undetermined.
        shape: shape of the matrix.
        variance: s², the variance of the noise.

    Examples:
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

    Examples:
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
        variance: s² of the bulk: the mean square of what is left when the spikes are taken off.
        bulk_min: the bulk's lower edge λ₋ in units of λ.
        bulk_max: the bulk's upper edge λ₊ in units of λ.
        cut: the λ beyond which an eigenvalue counts.
        eigenvalues: the spikes, descending.
        strengths: their strengths θ in units of s, descending.
        z: the largest eigenvalue in Tracy–Widom units of the bulk.
    """

    variance: float
    bulk_min: float
    bulk_max: float
    cut: float
    eigenvalues: np.ndarray
    strengths: np.ndarray
    z: float


def find_spikes(eigenvalues: ArrayLike, shape: Shape, *, level: float = 0.01) -> Spikes:
    """Find the eigenvalues that a random matrix with the variance of the bulk would not have.

    The spikes are the k largest eigenvalues whose smallest, λ_k, is beyond the Tracy–Widom edge of the
    (N−k+1)×(M−k+1) matrix that remains without the k−1 others, of variance s² = Σ_{i≥k} λ_i / ((N−k+1)(M−k+1)): λ_k is
    tested as the largest eigenvalue of the bulk. The search starts from the number of eigenvalues beyond the edge that
    the median eigenvalue implies and decreases k, so that many spikes cannot mask each other.

    Args:
        eigenvalues: λ of one matrix, or of several of one shape pooled, in any order.
        shape: the shape of one such matrix.
        level: probability that a random matrix has one or more spikes. For p pooled matrices the test uses level/p.

    Returns:
        The spikes; all numbers are NaN and none is found if there is no positive eigenvalue.

    Raises:
        ValueError: for a level outside (0, 1).

    Source:
        the test of S. Kritchman and B. Nadler, IEEE Transactions on Signal Processing 57 (2009) 3930, with the
        starting point of ``marchenko_pastur.bulk_variance``.

    Examples:
        >>> from ww_callbacks.spectral.random_matrix.marchenko_pastur import expected_eigenvalues
        >>> found = find_spikes([*expected_eigenvalues((299, 99)), 900.0], (300, 100))
        >>> found.eigenvalues.tolist(), found.strengths.round(1).tolist()
        ([900.0], [20.7])
    """
    if not 0 < level < 1:
        raise ValueError(f"Expected a level between 0 and 1 but got {level}.")
    values = np.sort(np.asarray(eigenvalues, dtype=np.float64).ravel())[::-1]
    larger, smaller = sides(shape)
    if not (len(values) and np.isfinite(values[0]) and values[0] > 0):
        nan = float("nan")
        return Spikes(nan, nan, nan, nan, np.empty(0), np.empty(0), nan)
    pooled = max(1, round(len(values) / smaller))
    median = bulk_variance(values, shape)
    limit = len(values) // 2
    if median > 0:
        limit = min(limit, int(np.count_nonzero(values > edges(shape, median)[1])))
    elements, unit_cuts = _what_is_left(larger, smaller, len(values) // 2, pooled, level)
    variances = values[::-1].cumsum()[::-1][: limit + 1] / elements[: limit + 1]
    cuts = variances * unit_cuts[: limit + 1]
    beyond = np.flatnonzero(values[:limit] > cuts[:limit])
    count = int(beyond[-1]) + 1 if len(beyond) else 0
    s2 = float(variances[count])
    spikes = values[:count]
    low, high = edges(shape, s2)
    return Spikes(
        variance=s2,
        bulk_min=low,
        bulk_max=high,
        cut=float(cuts[count]),
        eigenvalues=spikes,
        strengths=spike_strength(spikes, shape, s2) if count else spikes,
        z=tracy_widom.z_score(float(values[0]), shape, s2),
    )


@lru_cache(maxsize=256)
def _what_is_left(larger: int, smaller: int, most: int, pooled: int, level: float) -> tuple[np.ndarray, np.ndarray]:
    """The matrix that k = 0 … ``most`` spikes leave: its elements, and the Tracy–Widom edge for s = 1."""
    each = np.minimum(np.arange(most + 1) / pooled, smaller - 1)
    root = np.sqrt(larger - each - 0.5), np.sqrt(smaller - each - 0.5)
    centres = (root[0] + root[1]) ** 2
    scales = (root[0] + root[1]) * (1 / root[0] + 1 / root[1]) ** (1 / 3)
    elements = pooled * (larger - each) * (smaller - each)
    return elements, centres + tracy_widom.quantile(1 - level / pooled) * scales


def bulk_tolerance(eigenvalues: int) -> float:
    """The :func:`bulk_distance` up to which so many eigenvalues follow the Marchenko–Pastur law: 0.02 + 1.5·√(ln n)/n.

    The second term is what noise itself has in 99 % of cases; the first is a convention.

    Examples:
        >>> round(bulk_tolerance(100), 3)
        0.052
    """
    return 0.02 + 1.5 * float(np.sqrt(np.log(eigenvalues))) / eigenvalues


def bulk_distance(eigenvalues: ArrayLike, shape: Shape, spikes: Spikes) -> float:
    """Kolmogorov–Smirnov distance between the eigenvalues that are no spikes and the Marchenko–Pastur law.

    The law is that of the (N−k)×(M−k) matrix that k spikes leave. On noise the distance is about 0.6·√(ln M)/M, far
    below the 1/√M of independent numbers, for eigenvalues repel each other.

    Args:
        eigenvalues: λ of one matrix, or of several of one shape pooled, in any order.
        shape: the shape of one such matrix.
        spikes: what :func:`find_spikes` found in them.

    Returns:
        Between 0 and 1; NaN where no bulk is left.
    """
    larger, smaller = sides(shape)
    count = len(spikes.eigenvalues)
    bulk = np.sort(np.asarray(eigenvalues, dtype=np.float64).ravel())[: len(np.ravel(eigenvalues)) - count]
    pooled = max(1, round((len(bulk) + count) / smaller))
    each = round(count / pooled)
    if len(bulk) == 0 or smaller <= each or not spikes.variance > 0:
        return float("nan")
    law = cdf(bulk, (larger - each, smaller - each), spikes.variance)
    steps = np.arange(len(bulk) + 1) / len(bulk)
    return float(max(np.max(steps[1:] - law), np.max(law - steps[:-1])))
