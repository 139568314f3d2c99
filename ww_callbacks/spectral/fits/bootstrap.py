"""Bootstrap of the power-law fit: a p-value for the power law and a confidence interval of α.

Every simulated sample is fitted like the data, including xmin, so that the choice of xmin is taken into account. The
random numbers come from a separate, seeded generator.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from ww_callbacks.spectral.fits.clauset import RELATIVE_CUT, clauset_fit, usable

SAMPLES = 200
"""Number of simulated samples; the p-value then has an error of about ±0.03."""


def bootstrap_p_value(
    eigenvalues: np.ndarray,
    samples: int = SAMPLES,
    seed: int = 0,
    cut: float | Literal["weightwatcher"] = RELATIVE_CUT,
) -> float:
    """Probability that data from the fitted model fit at least as badly; small values (below 0.1) reject the power law.

    The semi-parametric bootstrap of Clauset, Shalizi, Newman (2009, section 4.1): with probability tail/N an
    eigenvalue is drawn from the fitted law, otherwise from the data below xmin. It treats the eigenvalues as
    independent, but those of a matrix repel each other, which makes the test lenient.

    Args:
        eigenvalues: λ, in any order.
        samples: number of simulated samples.
        seed: seed of the generator.
        cut: see :func:`ww_callbacks.spectral.fits.clauset.usable`.

    Returns:
        Share of samples whose D is at least the data's; NaN without a fit.

    Raises:
        ValueError: if ``samples`` is below 1.

    Examples:
        >>> bootstrap_p_value(np.arange(1, 60) ** 2.0, samples=20)  # evenly spaced roots are not a power law
        0.0
    """
    _check(samples)
    x = usable(eigenvalues, cut)
    fit = clauset_fit(x, cut=0.0)
    if not np.isfinite(fit.alpha):
        return np.nan
    rng = np.random.default_rng(seed)
    below = x[x < fit.xmin]
    worse = 0
    for _ in range(samples):
        tail = rng.binomial(len(x), fit.tail / len(x)) if len(below) else len(x)
        drawn = fit.xmin * rng.uniform(size=tail) ** (-1.0 / (fit.alpha - 1.0))
        sample = np.concatenate([rng.choice(below, len(x) - tail), drawn]) if len(below) else drawn
        worse += clauset_fit(sample, cut=0.0).D >= fit.D
    return worse / samples


def bootstrap_interval(
    eigenvalues: np.ndarray,
    samples: int = SAMPLES,
    level: float = 0.95,
    seed: int = 0,
    cut: float | Literal["weightwatcher"] = RELATIVE_CUT,
) -> tuple[float, float]:
    """Percentile interval of α over resamples (with replacement) of the eigenvalues, each with its own xmin.

    Args:
        eigenvalues: λ, in any order.
        samples: number of resamples.
        level: confidence, between 0 and 1.
        seed: seed of the generator.
        cut: see :func:`ww_callbacks.spectral.fits.clauset.usable`.

    Returns:
        Lower and upper end; NaN without a fit.

    Raises:
        ValueError: if ``samples`` is below 1 or ``level`` not between 0 and 1.

    Examples:
        >>> low, high = bootstrap_interval(np.random.default_rng(0).pareto(1.5, 100) + 1, samples=20)
        >>> low < 2.5 < high
        True
    """
    _check(samples)
    if not 0.0 < level < 1.0:
        raise ValueError(f"Expected 0 < `level` < 1 but got {level}.")
    x = usable(eigenvalues, cut)
    rng = np.random.default_rng(seed)
    alphas = np.array([clauset_fit(rng.choice(x, len(x)), cut=0.0).alpha for _ in range(samples)]) if len(x) > 1 else x
    alphas = alphas[np.isfinite(alphas)]
    if len(x) < 2 or len(alphas) == 0:
        return np.nan, np.nan
    low, high = np.quantile(alphas, [(1.0 - level) / 2.0, (1.0 + level) / 2.0])
    return float(low), float(high)


def _check(samples: int) -> None:
    if samples < 1:
        raise ValueError(f"Expected `samples` ≥ 1 but got {samples}.")
