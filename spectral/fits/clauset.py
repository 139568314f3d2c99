"""Power law p(x) ∝ x^−α for x ≥ xmin, with xmin where the Kolmogorov–Smirnov distance is smallest.

Clauset, Shalizi, Newman: Power-law distributions in empirical data, SIAM Review 51 (2009) 661. For the sorted
x_1 ≤ … ≤ x_N and every candidate xmin = x_i, with n = N − i + 1 the size of its tail,

    α_i = 1 + n / Σ_{j≥i} ln(x_j/x_i),        D_i = max_{j≥i} |1 − (x_j/x_i)^{1−α_i} − (j−i)/n|,

and the fit is the first i of smallest D_i. The scan is exact and yet seldom computes a whole D_i: the maximum over a
few j bounds D_i from below, and a candidate whose bound exceeds the best D found is out.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from math import isfinite
from typing import Literal

import numpy as np

RELATIVE_CUT = 1e-10
"""Eigenvalues below this share of the largest are left out: there float32 weights are rounding noise."""

WEIGHTWATCHER_CUT = 1e-5
"""WeightWatcher leaves out λ ≤ 1e-5, in absolute terms, which makes its α depend on the scale of W."""

_DENSE = 96
"""Up to this many eigenvalues all D_i are computed at once, as one matrix."""


@dataclass(frozen=True)
class PowerLawFit:
    """A power law fitted to the tail of eigenvalues.

    Attributes:
        alpha: the exponent α.
        xmin: where the tail begins.
        xmax: the largest eigenvalue of the tail, or the upper limit that was given.
        D: Kolmogorov–Smirnov distance between the tail and the fit.
        sigma: standard error of α, (α−1)/√tail.
        tail: number of eigenvalues in the tail.
        eigenvalues: number of eigenvalues that were considered.
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
        return replace(self, xmin=self.xmin * factor, xmax=self.xmax * factor)


NO_FIT = PowerLawFit(np.nan, np.nan, np.nan, np.nan, np.nan, 0, 0)
"""What a fit gives where there is nothing to fit."""


def usable(eigenvalues: np.ndarray, cut: float | Literal["weightwatcher"] = RELATIVE_CUT) -> np.ndarray:
    """The eigenvalues that a fit considers, ascending: finite, positive and above the cut.

    Args:
        eigenvalues: λ, in any order.
        cut: share of the largest below which they are left out, or ``"weightwatcher"`` for its absolute 1e-5.

    Raises:
        ValueError: if ``cut`` is neither.
    """
    values = np.sort(np.asarray(eigenvalues, dtype=np.float64).ravel())
    # Sorted, NaN and infinity are at the end; mostly nothing is to be left out.
    if len(values) and not isfinite(values[-1]):
        values = values[np.isfinite(values)]
    if len(values) and not values[0] > 0.0:
        values = values[values > 0.0]
    if len(values) == 0:
        return values
    if cut == "weightwatcher":
        return values[np.searchsorted(values, WEIGHTWATCHER_CUT, side="right") :]
    if not isinstance(cut, int | float) or not 0.0 <= cut < 1.0:
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
    """The Clauset–Shalizi–Newman fit over all candidates for xmin (all eigenvalues but the largest).

    Args:
        eigenvalues: λ, in any order.
        min_tail: smallest tail that is considered.
        max_tail: largest tail that is considered; None for all.
        cut: see :func:`usable`.

    Returns:
        The fit; :data:`NO_FIT` with fewer than two different eigenvalues.

    Raises:
        ValueError: if the limits on the tail leave no candidate possible, or ``cut`` is not understood.

    >>> fit = clauset_fit((1 - (np.arange(1, 101) - 0.5) / 100) ** -1.0)
    >>> round(fit.alpha, 6), fit.tail
    (2.008547, 100)
    """
    if min_tail < 2 or (max_tail is not None and max_tail < min_tail):
        raise ValueError(f"Expected 2 ≤ `min_tail` ≤ `max_tail` but got {min_tail} and {max_tail}.")
    x = usable(eigenvalues, cut)
    first = 0 if max_tail is None else max(0, len(x) - max_tail)
    scan = Scan(x, first=first, last=len(x) - min_tail)
    best = scan.best()
    return NO_FIT if best is None else scan.fit(*best)


class Scan:
    """All candidates for xmin of one set of eigenvalues.

    Attributes:
        x: the eigenvalues, ascending.
        candidates: the indices i of the candidates xmin = x_i that can be fitted.
        beta: α_i − 1 of every eigenvalue but the last (huge where all above are equal).
    """

    def __init__(self, x: np.ndarray, first: int = 0, last: int | None = None) -> None:
        self.x = x
        size = len(x)
        # Relative to the largest: no scale enters, and for W·2^k the very same numbers come out.
        self._log = np.log(x / x[-1]) if size else x
        self._tail = np.arange(size, 0, -1.0)
        sums = self._log[::-1].cumsum()[::-1] - self._tail * self._log
        # Where all above are equal to rounding, a power law has no exponent.
        fits = sums > 1e-13 * self._tail
        self.beta = self._tail / np.where(fits, sums, 1e-300)
        last = size - 2 if last is None else min(last, size - 2)
        self.candidates = fits[: last + 1].nonzero()[0]
        if first:
            self.candidates = self.candidates[self.candidates >= first]

    def distance(self, i: int) -> float:
        """D_i."""
        size = len(self.x) - i
        survival = np.exp(self.beta[i] * (self._log[i] - self._log[i:]))
        return float(np.max(np.abs(1.0 - survival - np.arange(size) / size)))

    def best(self) -> tuple[int, float] | None:
        """The first candidate of smallest D, and that D; None without candidates."""
        if len(self.candidates) == 0:
            return None
        if len(self.x) <= _DENSE:
            first, last = self.candidates[0], self.candidates[-1] + 1
            # Mostly every eigenvalue is a candidate, and a slice spares copies.
            whole = last - first == len(self.candidates)
            distances = self.distances(slice(first, last) if whole else self.candidates)
            nearest = int(distances.argmin())
            return int(self.candidates[nearest]), float(distances[nearest])
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
        return best, smallest

    def fit(self, i: int, distance: float) -> PowerLawFit:
        """The fit with xmin = x_i, whose D is ``distance``."""
        size = len(self.x)
        beta = float(self.beta[i])
        return PowerLawFit(
            alpha=1.0 + beta,
            xmin=float(self.x[i]),
            xmax=float(self.x[-1]),
            D=distance,
            sigma=beta / (size - i) ** 0.5,
            tail=size - int(self.x.searchsorted(self.x[i])),
            eigenvalues=size,
        )

    def distances(self, i: np.ndarray | slice) -> np.ndarray:
        """D of several eigenvalues, through one matrix of these × all eigenvalues."""
        # Below x_i, where D_i does not look, the survival function is 1 and the empirical one is set to 1: no gap.
        gap = self._log[i, None] - self._log
        np.minimum(gap, 0.0, out=gap)
        gap *= self.beta[i, None]
        np.exp(gap, out=gap)
        gap -= _empirical_survival(len(self.x))[i] if len(self.x) <= _DENSE else self._survival(i)
        return np.abs(gap, out=gap).max(axis=1, initial=0.0)

    def _survival(self, i: np.ndarray | slice) -> np.ndarray:
        """Share of the tail from x_i on that is at least x_j, 1 below: a row an i, a column a j."""
        return np.minimum(self._tail / self._tail[i, None], 1.0)

    def _bounds(self, candidates: np.ndarray, points: int) -> np.ndarray:
        """Lower bounds on D: the largest gap over ``points`` places spread evenly over each candidate's tail."""
        tail = self._tail[candidates]
        offset = np.floor(((np.arange(points) + 0.5) / points)[:, None] * tail)
        place = candidates + offset.astype(np.intp)
        survival = np.exp(self.beta[candidates] * (self._log[candidates] - self._log[place]))
        return np.max(np.abs(1.0 - survival - offset / tail), axis=0)


@lru_cache(maxsize=_DENSE)
def _empirical_survival(size: int) -> np.ndarray:
    """What :meth:`Scan._survival` is for every one of ``size`` eigenvalues."""
    return Scan(np.arange(1.0, size + 1.0))._survival(slice(None))
