import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ww_callbacks.spectral.fits.clauset import NO_FIT, Scan, clauset_fit, usable


def brute_force(x: np.ndarray, min_tail: int = 2, max_tail: int | None = None) -> tuple[int, float, float]:
    """First argmin of D, D and α, straight from the definition."""
    best = (-1, np.inf, np.nan)
    for i in range(len(x) - 1):
        tail = x[i:]
        n = len(tail)
        total = np.sum(np.log(tail / x[i]))
        if n < min_tail or (max_tail and n > max_tail) or total <= 0.0 or (i and x[i] == x[i - 1]):
            continue
        alpha = 1.0 + n / total
        distance = np.max(np.abs(1.0 - (tail / x[i]) ** (1.0 - alpha) - np.arange(n) / n))
        if distance < best[1]:
            best = (i, distance, alpha)
    return best


def samples(kind: str, size: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    if kind == "pareto":
        return np.sort(rng.pareto(1.7, size) + 1.0)
    if kind == "lognormal":
        return np.sort(np.exp(rng.standard_normal(size)))
    if kind == "noise":
        return np.sort(np.linalg.svd(rng.standard_normal((2 * size, size)), compute_uv=False) ** 2)
    return np.sort(np.concatenate([rng.uniform(0.1, 1.0, size - size // 5), rng.pareto(1.2, size // 5) + 1.0]))


@pytest.mark.parametrize("kind", ["pareto", "lognormal", "noise", "mixed"])
@pytest.mark.parametrize("size", [3, 30, 96, 97, 150, 700])
@pytest.mark.parametrize("seed", [0, 1])
def test_the_scan_is_exact(kind, size, seed):
    x = samples(kind, size, seed)
    i, distance, alpha = brute_force(x)
    fit = clauset_fit(np.random.default_rng(seed).permutation(x))
    assert pytest.approx(distance, abs=1e-12) == fit.D
    assert fit.xmin == x[i]
    assert fit.alpha == pytest.approx(alpha, rel=1e-9)
    assert fit.tail == size - i
    assert fit.xmax == x[-1]
    assert fit.sigma == pytest.approx((alpha - 1.0) / np.sqrt(size - i), rel=1e-9)


@settings(max_examples=40)
@given(seed=st.integers(0, 10**6), size=st.integers(2, 300), power=st.floats(0.3, 6.0))
def test_the_scan_is_exact_on_anything(seed, size, power):
    x = np.sort(np.random.default_rng(seed).pareto(power, size) + 0.3)
    x = x[x >= 1e-10 * x[-1]]
    _, distance, _ = brute_force(x)
    assert pytest.approx(distance, abs=1e-11) == clauset_fit(x).D


def test_limits_on_the_tail():
    x = samples("mixed", 300, 3)
    for low, high in ((2, None), (50, None), (2, 40), (20, 60), (60, 60)):
        i, distance, _ = brute_force(x, low, high)
        fit = clauset_fit(x, min_tail=low, max_tail=high)
        assert (fit.xmin, fit.D) == (x[i], pytest.approx(distance, abs=1e-12))
        assert low <= fit.tail <= (high or 300)
    with pytest.raises(ValueError, match="Expected 2 ≤ `min_tail` ≤ `max_tail` but got 1 and None"):
        clauset_fit(x, min_tail=1)
    with pytest.raises(ValueError, match="but got 9 and 5"):
        clauset_fit(x, min_tail=9, max_tail=5)


@pytest.mark.parametrize(("size", "min_tail"), [(3, 5), (1, 2), (120, 121), (120, 220), (96, 97)])
def test_no_fit_where_the_shortest_tail_is_longer_than_all(size, min_tail):
    assert clauset_fit(samples("pareto", size, 0), min_tail=min_tail).tail == 0


@pytest.mark.parametrize("size", [40, 130])
def test_equal_largest_values_are_in_the_tail_and_begin_none(size):
    x = np.sort(samples("pareto", size, 0))
    x[-5:] = x[-5]
    fit, scan = clauset_fit(x), Scan(x)
    assert fit.tail > 5 and fit.alpha < 100
    assert scan.candidates.tolist() == list(range(size - 5))
    assert (fit.D, fit.alpha - 1.0) == pytest.approx(scan.best()[:0:-1], rel=1e-12)


@pytest.mark.parametrize("size", [14, 60, 97, 300])
@pytest.mark.parametrize("values", [9, 30])
def test_equal_eigenvalues_are_all_in_the_tail_or_none_is(size, values):
    x = np.sort(np.random.default_rng(size).integers(1, values, size).astype(float))
    i, distance, alpha = brute_force(x)
    fit = clauset_fit(x)
    assert (fit.xmin, fit.tail) == (x[i], np.count_nonzero(x >= x[i]))
    assert (fit.alpha, fit.D) == pytest.approx((alpha, distance), rel=1e-9)
    assert fit.sigma == pytest.approx((alpha - 1.0) / np.sqrt(fit.tail), rel=1e-9)


def test_seldom_computes_a_whole_distance():
    scan = Scan(samples("noise", 1000, 0))
    calls = []
    original = scan.distance
    scan.distance = lambda i: calls.append(i) or original(i)
    best, beta, distance = scan.best()
    fit = clauset_fit(scan.x)
    assert best == int(np.argmin([original(i) for i in range(999)]))
    assert (1.0 + beta, distance) == (fit.alpha, fit.D)
    assert len(calls) < 100


def test_cuts():
    x = np.array([1e-14, 1e-7, 1.0, 2.0, 3.0, np.nan, -1.0, 0.0, np.inf])
    assert usable(x).tolist() == [1e-7, 1.0, 2.0, 3.0]
    assert usable(x, "weightwatcher").tolist() == [1.0, 2.0, 3.0]
    assert usable(x, 0.0).tolist() == [1e-14, 1e-7, 1.0, 2.0, 3.0]
    for wrong in ("other", -1.0, 1.0, None):
        with pytest.raises(ValueError, match="Expected `cut`"):
            usable(x, wrong)


@pytest.mark.parametrize("x", [[], [1.0], [2.0, 2.0, 2.0], [0.0, 0.0], [np.nan, 1.0], [1.0, 1.0 + 1e-15]])
def test_nothing_to_fit(x):
    fit = clauset_fit(np.array(x))
    assert np.isnan(fit.alpha) and fit.tail == 0


def test_no_fit_has_no_number():
    assert np.isnan(NO_FIT.alpha) and np.isnan(NO_FIT.D) and NO_FIT.eigenvalues == 0
