import numpy as np
import pytest

from ww_callbacks.spectral.representation import (
    gaussian_product_lyapunov,
    gaussian_product_ratio,
    simulate_gaussian_product,
)


def test_the_law_against_simulation():
    rates = gaussian_product_lyapunov(8)
    found = np.mean([simulate_gaussian_product(8, 1000, np.random.default_rng(seed)) for seed in range(4)], axis=0)
    assert found == pytest.approx(rates, abs=0.04)


def test_the_published_rates_for_eight():
    expected = [0.975, 0.898, 0.808, 0.698, 0.558, 0.365, 0.058, -0.635]
    assert gaussian_product_lyapunov(8) == pytest.approx(expected, abs=6e-4)


def test_the_qr_rates_are_those_of_the_singular_values():
    """At a depth where the plain product can still be formed."""
    g = np.random.default_rng(1)
    product = np.eye(3)
    for _ in range(40):
        product = g.standard_normal((3, 3)) @ product
    sigma = np.linalg.svd(product, compute_uv=False)
    assert np.log(sigma[0]) / 40 == pytest.approx(
        simulate_gaussian_product(3, 40, np.random.default_rng(1))[0], abs=0.1
    )


def test_ratios_begin_at_one_and_fall():
    ratio = gaussian_product_ratio(50)
    assert ratio[0] == 1 and np.all(np.diff(ratio) < 0) and ratio[-1] > 0


def test_bad_sizes():
    with pytest.raises(ValueError, match="d ≥ 1"):
        gaussian_product_ratio(0)
    with pytest.raises(ValueError, match="depth"):
        simulate_gaussian_product(3, 0, np.random.default_rng(0))
