"""Power law with an exponential cut-off, p(x) ∝ x^−α e^{−Λx} for x ≥ xmin.

With t = x/xmin and z = Λ·xmin the normaliser is ∫_1^∞ t^{−α} e^{−zt} dt (the generalised exponential integral E_α(z)).
The law is an exponential family in (α, z) with statistics (ln t, t), so minus its log-likelihood is convex; its
gradient is the difference between the statistics' means in the model and in the data.
Source: Clauset, Shalizi, Newman, SIAM Review 51 (2009) 661, table 2.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np

from ww_callbacks.spectral.fits.clauset import RELATIVE_CUT, clauset_fit, usable

_NODES = 400


@dataclass(frozen=True)
class TruncatedFit:
    """A truncated power law.

    Attributes:
        alpha: the exponent α.
        Lambda: the rate Λ of the cut-off, in units of 1/λ; 0 where a pure power law fits best.
        xmin: where the tail begins.
        D: Kolmogorov–Smirnov distance between the tail and the fit.
        tail: number of eigenvalues in the tail.
        log_likelihood: ln of each tail eigenvalue's density, ascending in λ.
    """

    alpha: float
    Lambda: float
    xmin: float
    D: float
    tail: int
    log_likelihood: np.ndarray


def truncated_fit(
    eigenvalues: np.ndarray,
    xmin: float | None = None,
    cut: float | Literal["weightwatcher"] = RELATIVE_CUT,
) -> TruncatedFit:
    """Maximum-likelihood truncated power law with α ≥ 1 and Λ ≥ 0.

    Args:
        eigenvalues: λ, in any order.
        xmin: start of the tail; None for the xmin of the pure power-law fit, as in WeightWatcher.
        cut: see :func:`ww_callbacks.spectral.fits.clauset.usable`.

    Returns:
        The fit; NaN with fewer than two different eigenvalues in the tail.

    Examples:
        >>> fit = truncated_fit(np.random.default_rng(0).exponential(size=200) + 1, xmin=1.0)
        >>> fit.Lambda > 0.5  # an exponential is cut off
        True
    """
    from scipy.optimize import minimize

    x = usable(eigenvalues, cut)
    start = clauset_fit(x, cut=0.0).xmin if xmin is None else float(xmin)
    x = x[x >= start] if np.isfinite(start) else x[:0]
    if len(x) < 2 or x[-1] <= x[0]:
        return TruncatedFit(np.nan, np.nan, np.nan, np.nan, 0, np.zeros(0))
    t = x / start
    mean_log, mean = float(np.mean(np.log(t))), float(np.mean(t))

    def objective(parameters: np.ndarray) -> tuple[float, np.ndarray]:
        alpha, log_z = parameters
        z = float(np.exp(log_z))
        log_norm, model_log, model_mean = _moments(alpha, z)
        return alpha * mean_log + z * mean + log_norm, np.array([mean_log - model_log, (mean - model_mean) * z])

    pure = 1.0 + 1.0 / mean_log
    best = min(
        (
            minimize(objective, [first, np.log(rate)], jac=True, method="L-BFGS-B", bounds=[(1.0, 60.0), (-32.0, 8.0)])
            for first, rate in ((pure, 1e-3 / mean), (max(1.0, 0.5 * pure), 0.5 / mean))
        ),
        key=lambda found: found.fun,
    )
    alpha, z = float(best.x[0]), float(np.exp(best.x[1]))
    # At the lower bound of z the data want no cut-off at all: there the model is the pure power law.
    if best.x[1] <= -31.0:
        alpha, z = pure, 0.0
        log_norm, survival = -np.log(pure - 1.0), t ** (1.0 - pure)
    else:
        log_norm = _moments(alpha, z)[0]
        survival = np.exp([_log_integral(alpha, z, value) - log_norm for value in t])
    return TruncatedFit(
        alpha=alpha,
        Lambda=z / start,
        xmin=start,
        D=float(np.max(np.abs(1.0 - survival - np.arange(len(t)) / len(t)))),
        tail=len(t),
        log_likelihood=-alpha * np.log(t) - z * t - log_norm - np.log(start),
    )


def _moments(alpha: float, z: float) -> tuple[float, float, float]:
    """Ln ∫_1^∞ t^{−α}e^{−zt} dt, and the means of ln t and t under that density."""
    u, weights = _grid(alpha, z, 0.0)
    exponent = (1.0 - alpha) * u - z * np.exp(u)
    top = float(np.max(exponent))
    density = weights * np.exp(exponent - top)
    total = float(np.sum(density))
    return top + float(np.log(total)), float(np.sum(density * u) / total), float(np.sum(density * np.exp(u)) / total)


def _log_integral(alpha: float, z: float, start: float) -> float:
    """Ln ∫_start^∞ t^{−α}e^{−zt} dt."""
    u, weights = _grid(alpha, z, float(np.log(start)))
    exponent = (1.0 - alpha) * u - z * np.exp(u)
    top = float(np.max(exponent))
    return top + float(np.log(np.sum(weights * np.exp(exponent - top))))


def _grid(alpha: float, z: float, low: float) -> tuple[np.ndarray, np.ndarray]:
    """Gauss–Legendre nodes and weights in u = ln t from ``low`` to where the integrand has fallen by e^−50."""
    decay = 50.0 / (alpha - 1.0) if alpha > 1.0 else np.inf
    length = min(decay, float(np.log1p(50.0 / (z * np.exp(low)))))
    nodes, weights = _legendre()
    return low + length * (nodes + 1.0) / 2.0, weights * length / 2.0


@lru_cache(maxsize=1)
def _legendre() -> tuple[np.ndarray, np.ndarray]:
    return np.polynomial.legendre.leggauss(_NODES)
