import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ww_callbacks.spectral.random_matrix import marchenko_pastur as mp
from ww_callbacks.spectral.random_matrix.nulls.random_nulls import gaussian_eigenvalues, generator

SHAPES = [(100, 100), (300, 100), (100, 300), (1000, 7), (512, 511)]
sides = st.integers(1, 3000)


@pytest.mark.parametrize("shape", SHAPES)
def test_density_is_the_derivative_of_the_cdf(shape):
    low, high = mp.edges(shape, 0.3)
    x = low + (high - low) * np.linspace(0.02, 0.98, 101)
    step = 1e-5 * (high - low)
    slope = (mp.cdf(x + step, shape, 0.3) - mp.cdf(x - step, shape, 0.3)) / (2 * step)
    np.testing.assert_allclose(mp.density(x, shape, 0.3), slope, rtol=1e-6)


@pytest.mark.parametrize("shape", SHAPES)
def test_density_has_mass_one_and_the_right_mean(shape):
    low, high = mp.edges(shape)
    # the substitution x = low + (high − low)·t⁴ takes the square-root singularity at 0 of square matrices away
    t = np.linspace(0, 1, 20001)[1:]
    x = low + (high - low) * t**4
    weight = mp.density(x, shape) * 4 * t**3 * (high - low)
    assert np.trapezoid(weight, t) == pytest.approx(1, abs=1e-3)
    assert np.trapezoid(weight * x, t) == pytest.approx(max(shape), rel=1e-3)


@given(sides, sides, st.floats(0, 1), st.floats(1e-6, 1e6))
def test_quantile_inverts_the_cdf(rows, columns, share, variance):
    x = mp.quantile(share, (rows, columns), variance)
    low, high = mp.edges((rows, columns), variance)
    assert low * (1 - 1e-9) <= x <= high * (1 + 1e-9)
    assert mp.cdf(x, (rows, columns), variance) == pytest.approx(share, abs=1e-9)
    assert mp.quantile(share, (columns, rows), variance) == x


@pytest.mark.parametrize("shape", [(200, 200), (600, 200), (3000, 200)])
def test_quantiles_against_simulation(shape):
    rng = generator(11)
    mean = np.mean([gaussian_eigenvalues(shape, rng) for _ in range(60)], axis=0)
    expected = mp.expected_eigenvalues(shape)
    # inside the bulk the ordered eigenvalues follow the quantiles to a small part of their spacing 1/M
    inner = slice(10, 190)
    assert np.max(np.abs(mp.cdf(mean[inner], shape) - mp.cdf(expected[inner], shape))) < 0.5 / 200


def test_no_eigenvalue_outside_the_edges_but_for_fluctuations():
    values = gaussian_eigenvalues((2000, 1000), generator(3))
    low, high = mp.edges((2000, 1000))
    assert values[0] == pytest.approx(low, rel=0.05)
    assert values[-1] == pytest.approx(high, rel=0.02)


def test_element_variance_is_the_bulk_variance_of_noise():
    w = generator(5).normal(0.0, 0.02, (400, 300))
    eigenvalues = np.linalg.svd(w, compute_uv=False) ** 2
    assert mp.element_variance(w) == pytest.approx(4e-4, rel=0.01)
    assert mp.bulk_variance(eigenvalues, w.shape) == pytest.approx(4e-4, rel=0.03)


def test_centring():
    w = generator(5).normal(3.0, 1.0, (200, 100))
    assert mp.element_variance(w) == pytest.approx(1.0, rel=0.02)
    assert mp.element_variance(w, centred=False) == pytest.approx(10.0, rel=0.02)


@pytest.mark.parametrize("shape", SHAPES)
def test_bulk_variance_of_the_law_itself(shape):
    assert mp.bulk_variance(mp.expected_eigenvalues(shape, 0.3), shape) == pytest.approx(0.3, rel=0.01)


def test_bulk_variance_withstands_spikes():
    rng = generator(6)
    noise = rng.standard_normal((600, 300))
    low_rank = rng.standard_normal((600, 40)) @ rng.standard_normal((40, 300))
    eigenvalues = np.linalg.svd(noise + low_rank, compute_uv=False) ** 2
    assert mp.bulk_variance(eigenvalues, (600, 300)) == pytest.approx(1.0, rel=0.2)
    assert mp.element_variance(noise + low_rank) > 20


def test_bulk_variance_of_a_matrix_without_bulk():
    assert np.isnan(mp.bulk_variance([0.0, 0.0, 0.0, 5.0], (8, 4)))


@pytest.mark.parametrize("shape", [(3,), (0, 4), (2, 3, 4)])
def test_refuses_what_is_no_shape(shape):
    with pytest.raises(ValueError, match="Expected the shape"):
        mp.edges(shape)


@pytest.mark.parametrize("share", [-0.1, 1.1, float("nan")])
def test_refuses_what_is_no_probability(share):
    with pytest.raises(ValueError, match="probabilities"):
        mp.quantile(share, (3, 4))
