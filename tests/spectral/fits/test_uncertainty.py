"""α's interval, its bootstrap and the verdict on sufficiency, by simulation on laws that are known."""

import numpy as np
import pytest

from ww_callbacks.spectral.fits.bootstrap import bootstrap_interval, bootstrap_p_value
from ww_callbacks.spectral.fits.clauset import NO_FIT, PowerLawFit, clauset_fit
from ww_callbacks.spectral.fits.interval import alpha_interval
from ww_callbacks.spectral.fits.limits import tail_fit
from ww_callbacks.spectral.fits.sufficiency import evidence


def pareto(alpha: float, size: int, rng: np.random.Generator) -> np.ndarray:
    return rng.pareto(alpha - 1.0, size) + 1.0


@pytest.mark.parametrize("size", [50, 100, 300, 1000])
@pytest.mark.parametrize("alpha", [2.0, 3.5])
def test_the_interval_covers_what_it_says(size, alpha):
    rng = np.random.default_rng(size)
    covered, plain, trials = 0, 0, 500
    for _ in range(trials):
        fit = clauset_fit(pareto(alpha, size, rng))
        low, high = alpha_interval(fit)
        covered += low < alpha < high
        plain += abs(fit.alpha - alpha) < 1.96 * fit.sigma
    # 95 % of 500 trials, with four standard errors of room below; and the plain interval, which misses, is told apart.
    assert 0.91 <= covered / trials <= 0.99
    assert plain < covered


def test_without_selection_the_interval_is_exact():
    rng = np.random.default_rng(0)
    trials, covered = 1000, 0
    for _ in range(trials):
        x = pareto(2.5, 30, rng)
        low, high = alpha_interval(tail_fit(x, float(np.min(x))), 0.9, widening=1.0)
        covered += low < 2.5 < high
    assert abs(covered / trials - 0.9) < 0.038  # four standard errors


def test_interval_refuses_nonsense():
    with pytest.raises(ValueError, match="`level`"):
        alpha_interval(NO_FIT, 1.0)
    with pytest.raises(ValueError, match="`widening`"):
        alpha_interval(NO_FIT, 0.9, 0.5)
    assert np.isnan(alpha_interval(NO_FIT)).all()


def test_the_p_value_accepts_a_power_law_and_rejects_another():
    rng = np.random.default_rng(1)
    accepted = [bootstrap_p_value(pareto(2.5, 150, rng), samples=60) > 0.1 for _ in range(12)]
    assert sum(accepted) >= 9
    # All of a narrow uniform sample, with no freedom to choose a short tail that fits.
    assert bootstrap_p_value(np.linspace(1.0, 2.0, 400) ** 0.5, samples=60) < 0.1


def test_the_bootstrap_interval_is_seeded_and_covers():
    rng = np.random.default_rng(2)
    x = pareto(2.5, 300, rng)
    first = bootstrap_interval(x, samples=60, seed=5)
    assert first == bootstrap_interval(x, samples=60, seed=5) != bootstrap_interval(x, samples=60, seed=6)
    covered = sum(
        low < 2.5 < high for low, high in (bootstrap_interval(pareto(2.5, 200, rng), samples=60) for _ in range(20))
    )
    assert covered >= 15
    assert np.isnan(bootstrap_interval(np.ones(1))).all() and np.isnan(bootstrap_p_value(np.ones(3)))
    with pytest.raises(ValueError, match="`samples`"):
        bootstrap_p_value(x, samples=0)
    with pytest.raises(ValueError, match="`level`"):
        bootstrap_interval(x, level=0.0)


def fit(tail=100, eigenvalues=500, D=0.05, xmax=50.0, alpha=2.5) -> PowerLawFit:
    return PowerLawFit(alpha, 1.0, xmax, D, (alpha - 1.0) / np.sqrt(tail), tail, eigenvalues)


def test_each_reason_is_given():
    assert evidence(fit()) == "sufficient"
    assert evidence(NO_FIT) == "no fit"
    assert evidence(fit(eigenvalues=49, tail=30)) == "few eigenvalues"
    assert evidence(fit(tail=19)) == "short tail"
    assert evidence(fit(xmax=1.05)) == "flat spectrum"
    assert evidence(fit(D=0.09)) == "poor fit"
    assert evidence(fit(tail=2000, D=0.039)) == "sufficient"


@pytest.mark.parametrize("size", [100, 500])
def test_true_power_laws_are_believed(size):
    rng = np.random.default_rng(3)
    believed = [evidence(clauset_fit(pareto(2.5, size, rng))) == "sufficient" for _ in range(200)]
    assert np.mean(believed) > 0.9
