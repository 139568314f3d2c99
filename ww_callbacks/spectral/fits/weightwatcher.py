"""The power-law fit of WeightWatcher 0.7.7, for comparison with its numbers.

It differs from ``fits.clauset`` in two ways: eigenvalues up to 1e-5 are ignored in absolute terms, so α depends on the
scale of W; and below 20 eigenvalues another estimate is used, which its table does not show: with the factor n − 1 in
place of n, over tails of 8 or more, at the smallest D − 0.868/√n in place of the smallest D.
"""

from __future__ import annotations

import numpy as np

from ww_callbacks.spectral.fits.clauset import NO_FIT, PowerLawFit, clauset_fit, usable

SMALL = 20
"""Below this many eigenvalues WeightWatcher uses :func:`small_sample_fit`."""

_MIN_TAIL = 8
_EXPECTED_D = 0.868


def weightwatcher_fit(eigenvalues: np.ndarray) -> PowerLawFit:
    """WeightWatcher 0.7.7's fit: the absolute cut, and its small-sample formula below 20 eigenvalues.

    Args:
        eigenvalues: λ, in any order.

    Returns:
        The fit; ``NO_FIT`` where nothing is left to fit.
    """
    x = usable(eigenvalues, "weightwatcher")
    return small_sample_fit(x) if len(x) < SMALL else clauset_fit(x, cut="weightwatcher")


def small_sample_fit(eigenvalues: np.ndarray) -> PowerLawFit:
    """α_i = 1 + (n−1)/Σ ln(λ_j/λ_i) over tails of n ≥ 8, at the smallest D_i − 0.868/√n.

    With fewer than 8 eigenvalues all of them are the tail. The standard error is (α−1)/√n.

    Args:
        eigenvalues: λ, in any order, zero and negative ones left out.

    Returns:
        The fit; ``NO_FIT`` with fewer than two different eigenvalues.
    """
    x = usable(eigenvalues, 0.0)
    size = len(x)
    best, smallest = NO_FIT, np.inf
    for start in range(max(1, size - _MIN_TAIL + 1)):
        tail = size - start
        logs = np.log(x[start:] / x[start]) if tail > 1 else np.zeros(1)
        if not np.sum(logs) > 1e-12:
            continue
        beta = (tail - 1.0) / float(np.sum(logs))
        distance = float(np.max(np.abs(-np.expm1(-beta * logs) - np.arange(tail) / tail)))
        if distance - _EXPECTED_D / np.sqrt(tail) < smallest:
            smallest = distance - _EXPECTED_D / np.sqrt(tail)
            best = PowerLawFit(1.0 + beta, float(x[start]), float(x[-1]), distance, beta / tail**0.5, tail, size)
    return best
