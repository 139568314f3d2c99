import numpy as np
import pytest
from scipy.spatial.distance import jensenshannon

from ww_callbacks.spectral.measuring.layer_weights import LayerWeights
from ww_callbacks.spectral.measuring.registry import resolve
from ww_callbacks.spectral.measuring.values import measure_quantities
from ww_callbacks.spectral.random_matrix.distances import jensen_shannon_distance, mp_distance, rand_distance
from ww_callbacks.spectral.random_matrix.marchenko_pastur import expected_eigenvalues
from ww_callbacks.spectral.random_matrix.nulls.random_nulls import (
    gaussian_eigenvalues,
    generator,
    shuffled,
    shuffling_generator,
)


def test_against_scipy():
    rng = generator(0)
    for n in (1, 7, 300):
        p, q = rng.exponential(size=(2, n))
        assert jensen_shannon_distance(p, q) == pytest.approx(jensenshannon(p, q), abs=1e-7)


def test_bounds_and_scale():
    rng = generator(1)
    p, q = rng.exponential(size=(2, 50)) ** 4
    assert 0 <= jensen_shannon_distance(p, q) <= np.sqrt(np.log(2))
    assert rand_distance(p, q) == pytest.approx(rand_distance(3 * p, q / 7))
    assert rand_distance(p, p[::-1]) == 0
    assert np.isnan(rand_distance([0.0, 0.0], [1.0, 2.0]))
    with pytest.raises(ValueError, match="one length"):
        rand_distance([1.0], [1.0, 2.0])


def test_quantity_is_weightwatchers_formula_under_the_same_permutation():
    w = generator(2).standard_normal((80, 60)) @ np.diag(np.linspace(0.1, 3, 60))
    values, _ = measure_quantities(
        LayerWeights([w], seed=5), resolve(["rand_distance", "max_rand_eval", "ww_softrank", "ww_maxdist"])
    )
    own = np.sort(np.linalg.svd(w, compute_uv=False) ** 2)
    null = np.sort(np.linalg.svd(shuffled(w, shuffling_generator(5, 0)), compute_uv=False) ** 2)
    assert values["rand_distance"] == pytest.approx(jensenshannon(own, null), rel=1e-8)
    assert values["max_rand_eval"] == pytest.approx(null[-1], rel=1e-10)
    assert values["ww_softrank"] == pytest.approx(null[-1] / own[-1], rel=1e-10)
    assert values["ww_maxdist"] == pytest.approx(own[-1] - null[-1], rel=1e-10)


@pytest.mark.parametrize("shape", [(200, 200), (900, 150)])
def test_distance_from_the_law_is_near_that_from_a_shuffle(shape):
    rng = generator(3)
    noise = gaussian_eigenvalues(shape, rng)
    structured = noise * np.linspace(1, 6, min(shape))
    null = gaussian_eigenvalues(shape, rng)
    assert mp_distance(noise, shape) < 0.02
    assert mp_distance(structured, shape) == pytest.approx(rand_distance(structured, null), rel=0.1)


def test_pooled_matrices():
    expected = np.tile(expected_eigenvalues((30, 20)), 3)
    assert mp_distance(expected, (30, 20)) == 0
    with pytest.raises(ValueError, match="multiple of 20"):
        mp_distance(expected[:-1], (30, 20))
