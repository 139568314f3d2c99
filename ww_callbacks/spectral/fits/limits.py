"""Power laws within given limits: xmin fixed, xmax as an upper bound of the support, or both.

On [xmin, xmax] the density is p(x) = β x^{−1−β} / (xmin^{−β} − xmax^{−β}) with β = α − 1, so that y = ln(x/xmin) is an
exponential of rate β cut off at L = ln(xmax/xmin). Its likelihood is largest where the mean of y is

    g(β) = 1/β − L/(e^{βL} − 1),

which falls from L to 0 as β rises; β may be negative. The information of one observation is −g′(β).
Source: Aban, Meerschaert, Panorska, Journal of the American Statistical Association 101 (2006) 270.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from ww_callbacks.spectral.fits.clauset import NO_FIT, RELATIVE_CUT, PowerLawFit, usable

_BISECTIONS = 100


def tail_fit(
    eigenvalues: np.ndarray,
    xmin: float,
    xmax: float | None = None,
    cut: float | Literal["weightwatcher"] = RELATIVE_CUT,
) -> PowerLawFit:
    """Maximum-likelihood power law on xmin ≤ λ (≤ xmax), the limits given.

    Args:
        eigenvalues: λ, in any order.
        xmin: where the tail begins.
        xmax: where the support ends; None for no end (then α = 1 + n/Σ ln(λ/xmin), the Hill estimate).
        cut: see :func:`ww_callbacks.spectral.fits.clauset.usable`.

    Returns:
        The fit; ``NO_FIT`` with fewer than two different eigenvalues between the limits.

    Raises:
        ValueError: unless 0 < xmin < xmax.

    >>> round(tail_fit(np.array([1.0, 2.0, 4.0, 8.0]), xmin=1.0).alpha, 4)
    1.9618
    """
    if not 0.0 < xmin < (np.inf if xmax is None else xmax):
        raise ValueError(f"Expected 0 < `xmin` < `xmax` but got {xmin} and {xmax}.")
    x = usable(eigenvalues, cut)
    within = x[(x >= xmin) & (x <= (np.inf if xmax is None else xmax))]
    logs = np.log(within / xmin)
    size = len(within)
    if size < 2 or within[-1] <= within[0]:
        return NO_FIT
    if xmax is None:
        beta, information, upper = 1.0 / float(np.mean(logs)), float(np.mean(logs)) ** 2, np.inf
    else:
        upper = float(np.log(xmax / xmin))
        beta = float(bounded_rate(np.array([np.mean(logs)]), np.array([upper]))[0])
        information = float(_information(beta, upper))
    gap = np.abs(_distribution(logs, beta, upper) - np.arange(size) / size)
    return PowerLawFit(
        alpha=1.0 + beta,
        xmin=float(xmin),
        xmax=float(within[-1] if xmax is None else xmax),
        D=float(np.max(gap)),
        sigma=float(1.0 / np.sqrt(size * information)),
        tail=size,
        eigenvalues=len(x),
    )


def bounded_fit(
    eigenvalues: np.ndarray,
    xmax: float,
    *,
    min_tail: int = 2,
    cut: float | Literal["weightwatcher"] = RELATIVE_CUT,
) -> PowerLawFit:
    """The fit of smallest D over all candidates for xmin, on a support that ends at ``xmax``.

    Eigenvalues above ``xmax`` are left out. (WeightWatcher leaves them out too, but fits a law without an end.)

    Args:
        eigenvalues: λ, in any order.
        xmax: where the support ends.
        min_tail: smallest tail that is considered.
        cut: see :func:`ww_callbacks.spectral.fits.clauset.usable`.

    Raises:
        ValueError: unless ``xmax`` is positive and ``min_tail`` at least 2.
    """
    if not xmax > 0.0 or min_tail < 2:
        raise ValueError(f"Expected `xmax` > 0 and `min_tail` ≥ 2 but got {xmax} and {min_tail}.")
    x = usable(eigenvalues, cut)
    x = x[x <= xmax]
    size = len(x)
    candidates = np.arange(max(0, size - min_tail + 1))
    candidates = candidates[x[candidates] < x[-1]] if size else candidates
    if len(candidates) == 0:
        return NO_FIT
    logs, tail = np.log(x / xmax), np.arange(size, 0, -1.0)
    mean = np.cumsum(logs[::-1])[::-1] / tail - logs
    rates = bounded_rate(mean[candidates], -logs[candidates])
    distances = [
        np.max(np.abs(_distribution(logs[i:] - logs[i], beta, -logs[i]) - np.arange(size - i) / (size - i)))
        for i, beta in zip(candidates, rates, strict=True)
    ]
    return tail_fit(x, float(x[candidates[int(np.argmin(distances))]]), xmax, cut=0.0)


def bounded_rate(mean: np.ndarray, length: np.ndarray) -> np.ndarray:
    """The rate β of an exponential cut off at ``length`` whose mean is ``mean``, by bisection; both of one shape."""
    low, high = -1.0 / np.maximum(length - mean, 1e-300), 1.0 / np.maximum(mean, 1e-300)
    for _ in range(_BISECTIONS):
        middle = 0.5 * (low + high)
        above = _mean(middle, length) > mean
        low, high = np.where(above, middle, low), np.where(above, high, middle)
    return 0.5 * (low + high)


def _mean(beta: np.ndarray, length: np.ndarray) -> np.ndarray:
    """g(β); its series ½L − βL²/12 near β = 0, where the formula cancels."""
    z = beta * length
    small = np.abs(z) < 1e-4
    safe = np.where(small, 1.0, z)
    with np.errstate(over="ignore"):
        return length * np.where(small, 0.5 - z / 12.0, 1.0 / safe - 1.0 / np.expm1(safe))


def _information(beta: float, length: float) -> float:
    """−g′(β) = 1/β² − L²/(4 sinh²(βL/2))."""
    z = beta * length
    if abs(z) < 1e-3:
        return length**2 / 12.0
    return 1.0 / beta**2 - (length / (2.0 * np.sinh(np.clip(z / 2.0, -350.0, 350.0)))) ** 2


def _distribution(logs: np.ndarray, beta: float, length: float) -> np.ndarray:
    """P(Y ≤ y) = (1 − e^{−βy})/(1 − e^{−βL})."""
    if abs(beta) * min(length, 1e3) < 1e-12:
        return logs / length
    with np.errstate(over="ignore"):
        return np.expm1(-beta * logs) / np.expm1(-beta * length)
