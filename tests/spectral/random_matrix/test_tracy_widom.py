import numpy as np
import pytest
from scipy.integrate import quad, simpson, solve_ivp
from scipy.linalg import eigvalsh_tridiagonal
from scipy.special import airy

from ww_callbacks.spectral.random_matrix import tracy_widom as tw
from ww_callbacks.spectral.random_matrix.nulls.random_nulls import generator

SHAPES = [
    (50, 50),
    (100, 60),
    (400, 50),
    (128, 128),
    (784, 200),
    (200, 150),
    (1000, 100),
    (300, 300),
    (2048, 128),
    (64, 64),
]
DRAWS = 800


@pytest.mark.parametrize(
    ("probability", "z"),
    [(0.01, -3.8954), (0.05, -3.1804), (0.5, -1.2686), (0.9, 0.4501), (0.95, 0.9793), (0.99, 2.0234)],
)
def test_published_quantiles(probability, z):
    assert tw.quantile(probability) == pytest.approx(z, abs=1.5e-4)
    assert tw.cdf(tw.quantile(probability)) == pytest.approx(probability, abs=1e-9)


def test_against_the_painleve_equation():
    """Tracy and Widom's own form: F₁(z) = exp(−½∫_z^∞ [q + (x − z)q²] dx), q″ = xq + 2q³, q ~ Ai."""
    start, stop = 8.0, -5.0
    ai, slope = airy(start)[:2]

    def system(x, y):
        q, dq, _, second, _ = y  # then ∫q, ∫q² and ∫(x − z)q² from z on
        return [dq, x * q + 2 * q**3, -q, -(q**2), -second]

    tail = quad(lambda x: airy(x)[0], start, np.inf)[0]
    points = np.linspace(start, stop, 27)
    solved = solve_ivp(system, (start, stop), [ai, slope, tail, 0, 0], rtol=1e-12, atol=1e-15, t_eval=points)
    assert solved.success
    painleve = np.exp(-0.5 * (solved.y[2] + solved.y[4]))
    np.testing.assert_allclose(tw.cdf(points), painleve, atol=2e-7)


def test_moments():
    z = np.linspace(-9, 9, 181)
    tail = tw.sf(z)
    mean = z[0] + simpson(tail, x=z)
    second = z[0] ** 2 + simpson(2 * z * tail, x=z)
    assert mean == pytest.approx(tw.MEAN, abs=1e-4)
    assert second - mean**2 == pytest.approx(tw.VARIANCE, abs=1e-3)


@pytest.mark.parametrize("z", [6.0, 9.0, 12.0])
def test_far_tail_keeps_its_relative_precision(z):
    """There the Fredholm determinant is 1 less its trace, ½∫_z^∞ Ai."""
    trace = 0.5 * quad(lambda x: airy(x)[0], z, z + 20)[0]
    assert tw.sf(z) == pytest.approx(trace, rel=1e-4)


def test_limits():
    assert tw.sf([-50.0, 50.0]).tolist() == [1.0, 0.0]
    assert np.isnan(tw.sf(float("nan")))
    assert np.isnan(tw.z_score(1.0, (3, 4), 0.0))
    with pytest.raises(ValueError, match="probability"):
        tw.quantile(1.0)


def test_centre_and_scale_of_a_square_matrix():
    """At N = M = n + ½ they are 4n s² and 2^{4/3} n^{1/3} s²."""
    centre, scale = tw.centre_and_scale((1000, 1000), 0.5)
    assert centre == pytest.approx(0.5 * 4 * 999.5)
    assert scale == pytest.approx(0.5 * 2 ** (4 / 3) * 999.5 ** (1 / 3))


def largest_eigenvalue(shape, rng):
    """Of WᵀW, W Gaussian: of the bidiagonal form alone, whose law is the same."""
    larger, smaller = max(shape), min(shape)
    diagonal = rng.chisquare(larger - np.arange(smaller))
    off_diagonal = rng.chisquare(np.arange(smaller - 1, 0, -1))
    on = diagonal + np.concatenate([[0.0], off_diagonal])
    last = (smaller - 1, smaller - 1)
    return float(eigvalsh_tridiagonal(on, np.sqrt(diagonal[:-1] * off_diagonal), select="i", select_range=last)[0])


def test_false_positives_over_ten_shapes():
    rng = generator(2024)
    z = np.array([[tw.z_score(largest_eigenvalue(s, rng), s, 1.0) for _ in range(DRAWS)] for s in SHAPES])
    for level in (0.05, 0.01):
        rates = np.mean(z > tw.quantile(1 - level), axis=1)
        error = np.sqrt(level * (1 - level) / DRAWS)
        assert np.all(np.abs(rates - level) < 3.5 * error), (level, rates)
        # over all shapes: sampling error, and the law's own error of order M^(−2/3) that these sides still show
        assert np.mean(rates) == pytest.approx(level, abs=3 * error / np.sqrt(len(SHAPES)) + 0.05 * level)
