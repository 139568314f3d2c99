"""WeightWatcher's Marchenko–Pastur fit: least squares between the law's density and a kernel density of the spectrum.

The estimator is WeightWatcher's, so that its columns ``sigma_mp``, ``bulk_min``, ``bulk_max``, ``num_spikes``,
``mp_softrank`` and ``W_scale`` can be compared; the computation is direct: the kernel density comes from prefix sums,
the scan over σ is one array expression, and at N = M the least-squares problem is linear and solved in closed form.

Read it with care. The kernel smears the edge by 0.1 of the mean eigenvalue, so that σ comes out 0.6–2 % off on purely
random matrices; at N = M the quarter circle's radius does not follow σ, so that σ is an amplitude there; a heavy tail
stretches the grid until the bulk is a few points. ``marchenko_pastur.bulk_variance`` has none of these faults.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
from numpy.typing import ArrayLike

from ww_callbacks.spectral.random_matrix.marchenko_pastur import Shape, sides

Number = TypeVar("Number", float, np.ndarray)

_BANDWIDTH = 0.1
_GRID = 1000
_DENSITY_FLOOR = 0.01
_OUTSIDE = 1e6  # squared residual of a point where the law's support does not suit the data
_NAN = float("nan")


@dataclass(frozen=True)
class DensityFit:
    """WeightWatcher's fit of one spectrum.

    Attributes:
        sigma_mp: fitted σ, with the eigenvalues scaled to mean 1 (so 1 for a random matrix).
        bulk_min: lower edge of the bulk in units of λ.
        bulk_max: upper edge of the bulk in units of λ.
        num_spikes: eigenvalues above WeightWatcher's cut (see :func:`weightwatcher_cut`).
        mp_softrank: bulk_max / λ_1.
        W_scale: what W was multiplied by before the fit.
    """

    sigma_mp: float
    bulk_min: float
    bulk_max: float
    num_spikes: float
    mp_softrank: float
    W_scale: float

    def rescaled(self, factor: float) -> DensityFit:
        """The fit to ``factor`` times the eigenvalues: only the edges and the scale change."""
        return replace(
            self,
            bulk_min=self.bulk_min * factor,
            bulk_max=self.bulk_max * factor,
            W_scale=self.W_scale / float(np.sqrt(factor)) if factor > 0 else _NAN,
        )


def weightwatcher_cut(bulk_max: float, shape: Shape) -> float:
    """WeightWatcher's cut for spikes and traps, λ₊ + √(Q^{−1/2} λ₊^{2/3} M^{−2/3}), on eigenvalues scaled to mean 1.

    A heuristic: 3.0 to 6.4 Tracy–Widom units beyond the edge, by shape, and not of the dimension of λ.

    >>> round(weightwatcher_cut(4.0, (100, 100)), 3)
    4.342
    """
    larger, smaller = sides(shape)
    return float(bulk_max + np.sqrt(np.sqrt(smaller / larger) * bulk_max ** (2 / 3) * smaller ** (-2 / 3)))


def _linear_kernel_density(points: np.ndarray, data: np.ndarray, width: float) -> np.ndarray:
    """Σ_i max(0, 1 − |x − d_i|/h) / (n·h) at every x, for ascending data, through prefix sums."""
    sums = np.concatenate([[0.0], np.cumsum(data)])
    left, middle, right = (np.searchsorted(data, points + shift) for shift in (-width, 0.0, width))
    below = (middle - left) * (1 - points / width) + (sums[middle] - sums[left]) / width
    above = (right - middle) * (1 + points / width) - (sums[right] - sums[middle]) / width
    return (below + above) / (len(data) * width)


def _fit_quarter_circle(singular_values: np.ndarray) -> float:
    """σ for which √(4 − x²)/(πσ²) is closest to the density of x: a linear problem in 1/σ²."""
    x = np.linspace(0, singular_values[-1] + 0.5, _GRID)
    y = _linear_kernel_density(x, singular_values, _BANDWIDTH)
    law = np.sqrt(np.maximum(4 - x**2, 0)) / np.pi
    seen = y > _DENSITY_FLOOR
    return float(np.sqrt((law[seen] @ law[seen]) / (law[seen] @ y[seen])))


def _edges(sigma: Number, share: float) -> tuple[Number, Number]:
    """λ± of eigenvalues scaled to mean 1, for √(M/N) = ``share``."""
    return (sigma * (1 - share)) ** 2, (sigma * (1 + share)) ** 2


def _fit_marchenko_pastur(eigenvalues: np.ndarray, aspect: float) -> float:
    """σ for which the law's density is closest to that of the eigenvalues: a scan, then a downhill simplex."""
    from scipy.optimize import fmin

    x = np.linspace(0, eigenvalues[-1] + 0.5, _GRID)
    y = _linear_kernel_density(x, eigenvalues, _BANDWIDTH)
    x, y = x[y > _DENSITY_FLOOR], y[y > _DENSITY_FLOOR]
    mode = x[np.argmax(y)]
    divisor = 2 * np.pi * np.maximum(x, np.finfo(np.float64).tiny) / aspect  # the law is 0 at x = 0
    share = 1 / np.sqrt(aspect)

    def suits(sigma: Number) -> Number | bool:
        low, high = _edges(sigma, share)
        return (low <= mode) & (mode <= high) & (high <= x[-1])

    def misfit(sigma: Number) -> Number:
        low, high = _edges(sigma, share)
        law = np.sqrt(np.maximum((high - x) * (x - low), 0)) / (divisor * sigma**2)
        return np.sum((law - y) ** 2, axis=-1)

    def misfit_of_one(sigma: np.ndarray) -> float:
        one = float(sigma[0])
        return float(misfit(one)) if suits(one) else _OUTSIDE * len(x)

    unit = np.sqrt(eigenvalues[-1]) / (1 + share)
    scan = np.arange(0.05 * unit, 2 * unit, 0.01 * unit)
    within = scan[suits(scan)]
    start = within[np.argmin(misfit(within[:, None]))] if len(within) else scan[0]
    return float(fmin(misfit_of_one, start, disp=False)[0])


def density_fit(eigenvalues: ArrayLike, shape: Shape) -> DensityFit:
    """Fit the Marchenko–Pastur law as WeightWatcher's ``mp_fit`` does.

    Args:
        eigenvalues: λ of one matrix, or of several of one shape pooled, in any order.
        shape: the shape of one such matrix.

    Returns:
        The fit; all NaN where there is no positive eigenvalue.

    Source:
        WeightWatcher 0.7.7, ``mp_fit``; C. H. Martin and M. W. Mahoney, JMLR 22 (2021) 165 for the soft rank.

    >>> from ww_callbacks.spectral.random_matrix.marchenko_pastur import expected_eigenvalues
    >>> fit = density_fit(expected_eigenvalues((300, 100)), (300, 100))
    >>> round(fit.sigma_mp, 2), fit.num_spikes
    (1.0, 0.0)
    """
    values = np.sort(np.asarray(eigenvalues, dtype=np.float64).ravel())
    if not (len(values) and np.isfinite(values).all() and values[-1] > 0):
        return DensityFit(_NAN, _NAN, _NAN, _NAN, _NAN, _NAN)
    larger, smaller = sides(shape)
    squared_scale = len(values) / float(np.sum(values))
    scaled = np.maximum(values, 0) * squared_scale
    if larger == smaller:
        sigma = _fit_quarter_circle(np.sqrt(scaled))
    else:
        sigma = _fit_marchenko_pastur(scaled, larger / smaller)
    share = np.sqrt(smaller / larger)
    low, high = _edges(sigma, share)
    return DensityFit(
        sigma_mp=sigma,
        bulk_min=low / squared_scale,
        bulk_max=high / squared_scale,
        num_spikes=float(np.count_nonzero(scaled > weightwatcher_cut(high, shape))),
        mp_softrank=high / scaled[-1],
        W_scale=float(np.sqrt(squared_scale)),
    )
