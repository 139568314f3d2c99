"""Power law p(x) ∝ x^−α for x ≥ xmin, with xmin where the Kolmogorov–Smirnov distance is smallest.

Clauset, Shalizi, Newman: Power-law distributions in empirical data, SIAM Review 51 (2009) 661. For the sorted
x_1 ≤ … ≤ x_N and every candidate xmin = x_i, with n = N − i + 1 the size of its tail,

    α_i = 1 + n / Σ_{j≥i} ln(x_j/x_i),        D_i = max_{j≥i} |1 − (x_j/x_i)^{1−α_i} − (j−i)/n|,

and the fit is the first i with the smallest D_i. The scan is exact but rarely computes a whole D_i: the maximum over a
few j bounds D_i from below, and a candidate whose bound exceeds the best D so far is discarded.
"""

from __future__ import annotations

from functools import lru_cache
from math import isfinite
from typing import Literal, NamedTuple

import numpy as np

RELATIVE_CUT = 1e-10
"""Eigenvalues below this share of the largest are ignored: in float32 weights they are rounding noise."""

WEIGHTWATCHER_CUT = 1e-5
"""WeightWatcher ignores λ ≤ 1e-5 in absolute terms, so its α depends on the scale of W."""

FEW = 96
"""Up to this number of eigenvalues all D_i are computed at once, as one matrix."""

_EQUAL = 1e-13
"""If the logarithms of a tail exceed its first by no more than this on average, the exponent is undefined."""


class PowerLawFit(NamedTuple):
    """A power law fitted to the tail of eigenvalues.

    Attributes:
        alpha: the exponent α.
        xmin: start of the tail.
        xmax: the largest eigenvalue of the tail, or the given upper limit.
        D: Kolmogorov–Smirnov distance between the tail and the fit.
        sigma: standard error of α, (α−1)/√tail.
        tail: number of eigenvalues in the tail.
        eigenvalues: number of eigenvalues considered.

    Examples:
        >>> fit = PowerLawFit(alpha=3.0, xmin=1.0, xmax=50.0, D=0.05, sigma=0.2, tail=100, eigenvalues=200)
        >>> fit.rescaled(4.0).xmin
        4.0
    """

    alpha: float
    xmin: float
    xmax: float
    D: float
    sigma: float
    tail: int
    eigenvalues: int

    def rescaled(self, factor: float) -> PowerLawFit:
        """The fit to ``factor`` times the eigenvalues: only xmin and xmax change."""
        return self._replace(xmin=self.xmin * factor, xmax=self.xmax * factor)


NO_FIT = PowerLawFit(np.nan, np.nan, np.nan, np.nan, np.nan, 0, 0)
"""The result of a fit without data."""


def usable(eigenvalues: np.ndarray, cut: float | Literal["weightwatcher"] = RELATIVE_CUT) -> np.ndarray:
    """The eigenvalues that a fit considers, ascending: finite, positive and above the cut.

    Args:
        eigenvalues: λ, in any order.
        cut: share of the largest below which they are ignored, or ``"weightwatcher"`` for its absolute 1e-5.

    Raises:
        ValueError: if ``cut`` is neither.
    """
    values = np.array(eigenvalues, dtype=np.float64).ravel()
    values.sort()
    # After sorting, NaN and infinity are at the end; usually there are none.
    if len(values) and not isfinite(values[-1]):
        values = values[np.isfinite(values)]
    if len(values) and not values[0] > 0.0:
        values = values[values > 0.0]
    if len(values) == 0:
        return values
    if cut == "weightwatcher":
        return values[np.searchsorted(values, WEIGHTWATCHER_CUT, side="right") :]
    if not isinstance(cut, (float, int)) or not 0.0 <= cut < 1.0:
        raise ValueError(f"Expected `cut` to be 'weightwatcher' or a share of the largest eigenvalue, but got {cut!r}.")
    least = cut * values[-1]
    return values if values[0] >= least else values[values.searchsorted(least) :]


def clauset_fit(
    eigenvalues: np.ndarray,
    *,
    min_tail: int = 2,
    max_tail: int | None = None,
    cut: float | Literal["weightwatcher"] = RELATIVE_CUT,
) -> PowerLawFit:
    """The Clauset–Shalizi–Newman fit over all candidates for xmin (all distinct eigenvalues except the largest).

    Args:
        eigenvalues: λ, in any order.
        min_tail: size of the smallest tail considered.
        max_tail: size of the largest tail considered; None for all.
        cut: see :func:`usable`.

    Returns:
        The fit; :data:`NO_FIT` with fewer than two different eigenvalues.

    Raises:
        ValueError: if the limits on the tail leave no candidate, or ``cut`` is invalid.

    >>> fit = clauset_fit((1 - (np.arange(1, 101) - 0.5) / 100) ** -1.0)
    >>> round(fit.alpha, 6), fit.tail
    (2.008547, 100)
    """
    if min_tail < 2 or (max_tail is not None and max_tail < min_tail):
        raise ValueError(f"Expected 2 ≤ `min_tail` ≤ `max_tail` but got {min_tail} and {max_tail}.")
    x = usable(eigenvalues, cut)
    first = 0 if max_tail is None else max(0, len(x) - max_tail)
    last = len(x) - min_tail
    best = _best_of_few(x, first, last) if len(x) <= FEW else Scan(x, first, last).best()
    return NO_FIT if best is None else _fit(x, *best)


def _fit(x: np.ndarray, i: int, beta: float, distance: float) -> PowerLawFit:
    """The fit with xmin = x_i, whose α is 1 + β and whose D is ``distance``."""
    tail = len(x) - i
    return PowerLawFit(1.0 + beta, float(x[i]), float(x[-1]), distance, beta / tail**0.5, tail, len(x))


def _best_of_few(x: np.ndarray, first: int, last: int) -> tuple[int, float, float] | None:
    """Like :meth:`Scan.best` in the fewest operations, whose overhead dominates for few eigenvalues."""
    if last < first:
        return None
    tail, survival = _empirical(len(x))
    log = np.log(x / x[-1])
    # Rows are j, columns are i. Below x_i, which D_i ignores, both survival functions are set to 1.
    gap = log[:, None] - log
    np.maximum(gap, 0.0, out=gap)
    beta = tail / np.maximum(np.add.reduce(gap), 1e-300)
    gap *= -beta
    np.exp(gap, out=gap)
    gap -= survival
    distance = np.maximum.reduce(np.abs(gap, out=gap))
    if -log[-2] <= _EQUAL * len(x):  # otherwise each mean gap is large enough, because that to the largest alone is
        distance[beta >= 1.0 / _EQUAL] = np.inf
    repeated = x[1:] == x[:-1]
    if np.count_nonzero(repeated):
        distance[1:][repeated] = np.inf
    i = first + int(distance[first : last + 1].argmin())
    return (i, float(beta[i]), float(distance[i])) if distance[i] < np.inf else None


class Scanned(NamedTuple):
    """A fit with the results for every candidate xmin.

    Attributes:
        fit: the fit.
        beta: α_i − 1 of every candidate.
        distance: D_i of every candidate.
    """

    fit: PowerLawFit
    beta: np.ndarray
    distance: np.ndarray


def best_of_each(x: np.ndarray) -> list[Scanned | None]:
    """:func:`clauset_fit` with default settings of several small sets of eigenvalues at once, with bit-for-bit the same
    results.

    Args:
        x: one set per row, each ascending and entirely usable, at most :data:`FEW` per row.

    Returns:
        The fits; None for a set with equal eigenvalues, which needs the checks of :func:`clauset_fit`.
    """
    if len(x) == 0:
        return []
    size = x.shape[1]
    tail, survival = _empirical(size)
    log = np.log(x / x[:, -1:])
    found: list[Scanned | None] = []
    gap = np.empty((size, size))
    distinct = (x[:, 1:] != x[:, :-1]).all(axis=1) & (-log[:, -2] > _EQUAL * size)
    for at, usual in enumerate(distinct.tolist()):
        if not usual:
            found.append(None)
            continue
        np.subtract(log[at][:, None], log[at], out=gap)
        np.maximum(gap, 0.0, out=gap)
        beta = tail / np.maximum(np.add.reduce(gap), 1e-300)
        gap *= -beta
        np.exp(gap, out=gap)
        gap -= survival
        distance = np.maximum.reduce(np.abs(gap, out=gap))
        i = int(distance[: size - 1].argmin())
        fit = _fit(x[at], i, float(beta[i]), float(distance[i]))
        found.append(Scanned(fit, beta[:-1], distance[:-1]))
    return found


@lru_cache(maxsize=FEW)
def _empirical(size: int) -> tuple[np.ndarray, np.ndarray]:
    """Sizes n = N, …, 1 of the tails of all x_i, and in row j, column i the share of the i-th that is at least x_j."""
    tail = np.arange(size, 0, -1.0)
    return tail, np.minimum(tail[:, None] / tail, 1.0)


class Scan:
    """All candidates for xmin of one set of eigenvalues.

    Attributes:
        x: the eigenvalues, ascending.
        candidates: the indices i of the candidates xmin = x_i that can be fitted: of equal eigenvalues the first, whose
            tail contains all of them.
        beta: α_i − 1 of every eigenvalue except the last (huge if all larger ones are equal).
    """

    def __init__(self, x: np.ndarray, first: int = 0, last: int | None = None) -> None:
        self.x = x
        size = len(x)
        # Relative to the largest, so the result does not depend on scale and is identical for W·2^k.
        self._log = np.log(x / x[-1]) if size else x
        self._tail = np.arange(size, 0, -1.0)
        sums = self._log[::-1].cumsum()[::-1] - self._tail * self._log
        fits = sums > _EQUAL * self._tail
        fits[1:] &= x[1:] != x[:-1]
        self.beta = self._tail / np.where(fits, sums, 1e-300)
        last = size - 2 if last is None else max(-1, min(last, size - 2))
        self.candidates = fits[: last + 1].nonzero()[0]
        if first:
            self.candidates = self.candidates[self.candidates >= first]

    def distance(self, i: int) -> float:
        """D_i."""
        size = len(self.x) - i
        survival = np.exp(self.beta[i] * (self._log[i] - self._log[i:]))
        return float(np.max(np.abs(1.0 - survival - np.arange(size) / size)))

    def best(self) -> tuple[int, float, float] | None:
        """The first candidate i with the smallest D, with α_i − 1 and D_i; None without candidates."""
        if len(self.candidates) == 0:
            return None
        remaining, bounds = self.candidates, np.zeros(len(self.candidates))
        best, smallest = -1, np.inf
        for points in (8, 32, 128):
            bounds = np.maximum(bounds, self._bounds(remaining, points))
            i = int(remaining[np.argmin(bounds)])
            best, smallest = min((smallest, best), (self.distance(i), i))[::-1]
            keep = bounds <= smallest
            remaining, bounds = remaining[keep], bounds[keep]
        for bound, i in sorted(zip(bounds.tolist(), remaining.tolist(), strict=True)):
            if bound > smallest:
                break
            distance = self.distance(i)
            if (distance, i) < (smallest, best):
                smallest, best = distance, i
        return best, float(self.beta[best]), smallest

    def distances(self, i: np.ndarray) -> np.ndarray:
        """D of several candidates, by one matrix of candidates × all eigenvalues."""
        # Below x_i, which D_i ignores, both survival functions are set to 1.
        gap = self._log[i, None] - self._log
        np.minimum(gap, 0.0, out=gap)
        gap *= self.beta[i, None]
        np.exp(gap, out=gap)
        gap -= np.minimum(self._tail / self._tail[i, None], 1.0)
        return np.abs(gap, out=gap).max(axis=1, initial=0.0)

    def _bounds(self, candidates: np.ndarray, points: int) -> np.ndarray:
        """Lower bounds on D: the largest gap at ``points`` positions spread evenly over each candidate's tail."""
        tail = self._tail[candidates]
        offset = np.floor(((np.arange(points) + 0.5) / points)[:, None] * tail)
        place = candidates + offset.astype(np.intp)
        survival = np.exp(self.beta[candidates] * (self._log[candidates] - self._log[place]))
        return np.max(np.abs(1.0 - survival - offset / tail), axis=0)
