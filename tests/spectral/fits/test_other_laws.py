"""Truncated power law and likelihood-ratio tests, against closed forms, brute force and simulation."""

import numpy as np
import pytest
from scipy import integrate, stats

from ww_callbacks.spectral.fits.clauset import clauset_fit
from ww_callbacks.spectral.fits.likelihood_ratio import compare, lognormal_log_density
from ww_callbacks.spectral.fits.limits import tail_fit
from ww_callbacks.spectral.fits.truncated import truncated_fit


def truncated_sample(alpha: float, rate: float, size: int, seed: int) -> np.ndarray:
    """Power law with cut-off on x ≥ 1, by rejection."""
    rng = np.random.default_rng(seed)
    found = np.zeros(0)
    while len(found) < size:
        x = rng.uniform(size=4 * size) ** (-1.0 / (alpha - 1.0))
        found = np.append(found, x[rng.uniform(size=len(x)) < np.exp(-rate * (x - 1.0))])
    return found[:size]


@pytest.mark.parametrize(("alpha", "rate"), [(1.5, 0.1), (2.0, 0.03), (2.5, 0.5)])
def test_truncated_recovers_its_parameters(alpha, rate):
    x = truncated_sample(alpha, rate, 20000, 0)
    fit = truncated_fit(x, 1.0)
    assert fit.alpha == pytest.approx(alpha, abs=0.15)
    assert fit.Lambda == pytest.approx(rate, rel=0.2)
    assert fit.D < 0.012
    norm = integrate.quad(lambda t: t**-fit.alpha * np.exp(-fit.Lambda * t), 1.0, np.inf)[0]
    expected = -fit.alpha * np.log(np.sort(x)) - fit.Lambda * np.sort(x) - np.log(norm)
    assert fit.log_likelihood == pytest.approx(expected, rel=1e-6)


def test_truncated_is_scale_equivariant_and_maximal():
    x = truncated_sample(1.8, 0.05, 500, 1)
    fit, scaled = truncated_fit(x, 1.0), truncated_fit(1e-4 * x, 1e-4)
    assert scaled.alpha == pytest.approx(fit.alpha, rel=1e-4)
    assert scaled.Lambda == pytest.approx(1e4 * fit.Lambda, rel=1e-4)
    best = float(np.sum(fit.log_likelihood))
    for alpha, rate in ((fit.alpha + 0.05, fit.Lambda), (fit.alpha, 1.1 * fit.Lambda), (fit.alpha - 0.05, fit.Lambda)):
        norm = integrate.quad(lambda t, a=alpha, r=rate: t**-a * np.exp(-r * t), 1.0, np.inf)[0]
        assert np.sum(-alpha * np.log(x) - rate * x - np.log(norm)) < best


def test_a_pure_power_law_needs_no_cut_off():
    x = np.random.default_rng(0).pareto(1.5, 400) + 1.0
    fit, pure = truncated_fit(x), clauset_fit(x)
    assert fit.xmin == pure.xmin
    assert fit.alpha <= pure.alpha
    assert fit.Lambda * np.max(x) < 10.0
    assert compare(x, pure, "truncated").p_value > 0.1


def test_lognormal_maximises_the_likelihood():
    x = np.exp(np.random.default_rng(4).normal(0.5, 0.8, 600))
    xmin = 1.0
    x = np.sort(x[x >= xmin])
    found = lognormal_log_density(x, xmin)
    assert np.sum(found) >= max(
        np.sum(stats.lognorm.logpdf(x, s, scale=np.exp(m)) - stats.lognorm.logsf(xmin, s, scale=np.exp(m)))
        for m in np.linspace(-0.5, 1.5, 41)
        for s in np.linspace(0.4, 1.5, 45)
    )


def test_the_right_law_wins():
    rng = np.random.default_rng(5)
    exponential = 1.0 + rng.exponential(1.0, 2000)
    lognormal = np.exp(rng.normal(0.0, 0.5, 4000))
    pareto = rng.pareto(1.5, 2000) + 1.0
    cut = truncated_sample(1.5, 0.1, 2000, 6)
    assert compare(exponential, tail_fit(exponential, 1.0), "exponential").ratio < -3.0
    assert compare(lognormal, tail_fit(lognormal, 1.0), "lognormal").ratio < -3.0
    assert compare(pareto, tail_fit(pareto, 1.0), "exponential").ratio > 3.0
    assert compare(cut, tail_fit(cut, 1.0), "truncated").p_value < 1e-6
    undecided = compare(pareto, tail_fit(pareto, 1.0), "lognormal")
    assert abs(undecided.ratio) < 2.0 and undecided.p_value > 0.05


def test_the_ratio_is_calibrated_between_equally_good_laws():
    # Under the power law, −2R against the truncated one is a half-and-half mixture of 0 and χ²(1): p < 0.1 in ≤ 10 %.
    low = 0
    for seed in range(100):
        x = np.random.default_rng(seed).pareto(1.5, 200) + 1.0
        low += compare(x, tail_fit(x, 1.0), "truncated").p_value < 0.1
    assert low <= 15


def test_nothing_to_compare_and_unknown_names():
    fit = clauset_fit(np.ones(5))
    assert np.isnan(compare(np.ones(5), fit, "lognormal").ratio)
    assert np.isnan(truncated_fit(np.ones(5)).alpha)
    with pytest.raises(ValueError, match="got 'weibull'"):
        compare(np.ones(5), fit, "weibull")
