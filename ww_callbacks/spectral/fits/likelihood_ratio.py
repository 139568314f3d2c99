"""Vuong's likelihood-ratio test: whether another law describes the tail as well.

For the tail's log-likelihood ratios ℓ_i = ln p_power(x_i) − ln p_other(x_i) the statistic is R = Σ ℓ_i, positive if the
power law is better, and for non-nested laws R/(√n·sd(ℓ)) is standard normal if both are equally close to the true law.
(Vuong, Econometrica 57 (1989) 307; Clauset, Shalizi, Newman 2009, appendix C.) Against the truncated power law, which
includes the power law, −2R is χ² with one degree of freedom.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from ww_callbacks.spectral.fits.clauset import PowerLawFit, usable
from ww_callbacks.spectral.fits.truncated import truncated_fit

Alternative = Literal["lognormal", "exponential", "truncated"]


@dataclass(frozen=True)
class Comparison:
    """Power law against one other law on the same tail.

    Attributes:
        alternative: the other law.
        ratio: R/(√n·sd), positive for the power law; against ``truncated`` the plain R, at most 0.
        p_value: probability of so large a |ratio| by chance if both are equally good; large means undecided.
    """

    alternative: Alternative
    ratio: float
    p_value: float


def compare(eigenvalues: np.ndarray, fit: PowerLawFit, alternative: Alternative) -> Comparison:
    """Compare a fitted power law with another law, fitted to the same tail by maximum likelihood.

    Args:
        eigenvalues: λ, in any order.
        fit: a power law without an upper limit, fitted to them.
        alternative: ``lognormal`` or ``exponential`` (both cut off at xmin), or ``truncated``.

    Returns:
        The comparison; NaN without a fit or with a tail of fewer than three.

    Raises:
        ValueError: for another ``alternative``.
    """
    if alternative not in ("lognormal", "exponential", "truncated"):
        raise ValueError(
            f"Expected `alternative` to be 'lognormal', 'exponential' or 'truncated' but got {alternative!r}."
        )
    x = usable(eigenvalues, 0.0)
    x = x[x >= fit.xmin] if np.isfinite(fit.xmin) else x[:0]
    if len(x) < 3 or x[-1] <= x[0]:
        return Comparison(alternative, np.nan, np.nan)
    power = np.log((fit.alpha - 1.0) / fit.xmin) - fit.alpha * np.log(x / fit.xmin)
    if alternative == "truncated":
        from scipy.special import chdtrc

        ratio = min(0.0, float(np.sum(power - truncated_fit(x, fit.xmin, cut=0.0).log_likelihood)))
        return Comparison(alternative, ratio, float(chdtrc(1, -2.0 * ratio)))
    from scipy.special import erfc

    other = lognormal_log_density(x, fit.xmin) if alternative == "lognormal" else _exponential(x, fit.xmin)
    ratios = power - other
    spread = float(np.std(ratios))
    if not spread > 1e-12:
        return Comparison(alternative, 0.0, 1.0)
    ratio = float(np.sum(ratios)) / (np.sqrt(len(x)) * spread)
    return Comparison(alternative, ratio, float(erfc(abs(ratio) / np.sqrt(2.0))))


def _exponential(x: np.ndarray, xmin: float) -> np.ndarray:
    """Ln density of the exponential on x ≥ xmin that fits best."""
    rate = 1.0 / (float(np.mean(x)) - xmin)
    return np.log(rate) - rate * (x - xmin)


def lognormal_log_density(x: np.ndarray, xmin: float) -> np.ndarray:
    """Ln density, at the eigenvalues ``x`` ≥ ``xmin``, of the lognormal on x ≥ xmin that fits them best.

    In y = ln(x/xmin) it is a normal cut off at 0, p(y) ∝ e^{−ay − by²}, b ≥ 0: an exponential family, whose likelihood
    has one maximum, and which for b → 0 is the power law itself.
    """
    from scipy.optimize import minimize

    scale = float(np.mean(np.log(x / xmin)))
    y = np.log(x / xmin) / scale
    second = float(np.mean(y**2))

    def objective(parameters: np.ndarray) -> float:
        a, b = parameters
        return a + b * second + _log_normaliser(a, b)  # The mean of y is 1.

    starts = ((1.0, 1e-3), (0.0, 0.5), (-1.0, 1.0))
    bounds = [(-200.0, 200.0), (1e-8, 200.0)]  # At 1e-8 it is indistinguishable from the power law.
    best = min(
        (minimize(objective, start, method="L-BFGS-B", bounds=bounds, tol=1e-13) for start in starts),
        key=lambda found: found.fun,
    )
    a, b = best.x
    return -a * y - b * y**2 - _log_normaliser(a, b) - np.log(scale) - np.log(x)


def _log_normaliser(a: float, b: float) -> float:
    """Ln ∫_0^∞ e^{−ay − by²} dy = ln(√(π/4b)·erfcx(a/2√b)), b > 0."""
    from scipy.special import erfcx, log_ndtr

    q = a / (2.0 * np.sqrt(b))
    if q > -5.0:
        return 0.5 * float(np.log(np.pi / (4.0 * b))) + float(np.log(erfcx(q)))
    return 0.5 * float(np.log(np.pi / b)) + q**2 + float(log_ndtr(-q * np.sqrt(2.0)))
