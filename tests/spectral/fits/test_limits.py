import numpy as np
import pytest

from ww_callbacks.spectral.fits.clauset import clauset_fit
from ww_callbacks.spectral.fits.hill import hill_fit
from ww_callbacks.spectral.fits.limits import bounded_fit, tail_fit


def bounded_pareto(alpha: float, xmax: float, size: int, seed: int = 0) -> np.ndarray:
    u = np.random.default_rng(seed).uniform(size=size)
    return (1.0 - u * (1.0 - xmax ** (1.0 - alpha))) ** (1.0 / (1.0 - alpha))


def log_likelihood(x: np.ndarray, beta: float, xmin: float, xmax: float) -> float:
    return float(np.sum(np.log(beta / (xmin**-beta - xmax**-beta)) - (1.0 + beta) * np.log(x)))


def test_fixed_xmin_is_the_closed_form():
    x = np.random.default_rng(0).pareto(1.5, 500) + 1.0
    fit = tail_fit(x, 1.5)
    tail = x[x >= 1.5]
    assert fit.alpha == pytest.approx(1.0 + len(tail) / np.sum(np.log(tail / 1.5)))
    assert (fit.xmin, fit.tail) == (1.5, len(tail))
    assert fit.sigma == pytest.approx((fit.alpha - 1.0) / np.sqrt(len(tail)))


@pytest.mark.parametrize("alpha", [0.5, 1.5, 2.5, 4.0])
def test_an_upper_limit_maximises_the_likelihood_and_recovers_alpha(alpha):
    x = bounded_pareto(alpha, 20.0, 4000)
    fit = tail_fit(x, 1.0, 20.0)
    assert abs(fit.alpha - alpha) < 4.0 * fit.sigma
    best = log_likelihood(x, fit.alpha - 1.0, 1.0, 20.0)
    for step in (-1e-3, 1e-3):
        assert log_likelihood(x, fit.alpha - 1.0 + step, 1.0, 20.0) < best
    # The second derivative of the likelihood is the information behind sigma.
    curvature = sum(log_likelihood(x, fit.alpha - 1.0 + s, 1.0, 20.0) * w for s, w in ((-1e-3, 1), (0, -2), (1e-3, 1)))
    assert fit.sigma == pytest.approx((-curvature / 1e-6) ** -0.5, rel=1e-2)
    assert fit.D < 0.03


def test_flat_in_the_logarithm():
    x = np.exp(np.linspace(0.0, 3.0, 4001))
    fit = tail_fit(x, 1.0, float(np.exp(3.0)))
    assert fit.alpha == pytest.approx(1.0, abs=1e-6)
    assert fit.D < 1e-3


def test_scan_below_an_upper_limit():
    x = np.concatenate([np.random.default_rng(1).uniform(0.05, 1.0, 300), bounded_pareto(2.2, 30.0, 700)])
    fit = bounded_fit(x, 30.0)
    assert abs(fit.alpha - 2.2) < 4.0 * fit.sigma
    assert 0.8 < fit.xmin < 1.5
    distances = [tail_fit(x, start, 30.0).D for start in np.sort(x)[::37]]
    assert min(distances) + 1e-12 >= fit.D
    # Far above the data the limit says nothing.
    assert bounded_fit(x, 1e12).alpha == pytest.approx(clauset_fit(x).alpha, rel=1e-3)


def test_limits_are_checked():
    for xmin, xmax in ((0.0, None), (-1.0, 2.0), (3.0, 2.0), (np.nan, None)):
        with pytest.raises(ValueError, match="Expected 0 < `xmin` < `xmax`"):
            tail_fit(np.ones(4), xmin, xmax)
    with pytest.raises(ValueError, match="Expected `xmax` > 0"):
        bounded_fit(np.ones(4), -1.0)
    assert np.isnan(tail_fit(np.array([1.0, 1.0]), 0.5).alpha)
    assert np.isnan(bounded_fit(np.array([1.0, 1.0]), 5.0).alpha)


def test_hill():
    x = np.random.default_rng(2).pareto(1.5, 400) + 1.0
    fit = hill_fit(x)
    top = np.sort(x)[-200:]
    assert fit.alpha == pytest.approx(1.0 + 200 / np.sum(np.log(top / np.sort(x)[-201])))
    assert abs(hill_fit(x, 300).alpha - 2.5) < 0.4
    assert np.isnan(hill_fit(np.array([1.0])).alpha) and np.isnan(hill_fit(np.ones(6)).alpha)
    with pytest.raises(ValueError, match="`tail` from 1 to 399 but got 400"):
        hill_fit(x, 400)
