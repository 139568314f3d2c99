import numpy as np
import pytest
from scipy.stats import ks_2samp

from ww_callbacks.spectral.random_matrix.nulls.random_nulls import gaussian, gaussian_eigenvalues, generator, shuffled


def test_shuffle_keeps_the_elements_and_not_their_places():
    w = np.arange(60, dtype=np.float32).reshape(12, 5)
    before = w.copy()
    s = shuffled(w, generator(0))
    assert s.dtype == np.float64
    assert s.shape == w.shape
    np.testing.assert_array_equal(np.sort(s.ravel()), np.arange(60))
    assert not np.array_equal(s, w)
    np.testing.assert_array_equal(w, before)


@pytest.mark.parametrize(
    "arrange", [np.asfortranarray, lambda w: np.ascontiguousarray(w.T).T, lambda w: w.astype(np.float64)]
)
def test_shuffle_does_not_depend_on_memory_layout_or_dtype(arrange):
    w = generator(1).standard_normal((30, 20)).astype(np.float32)
    np.testing.assert_array_equal(shuffled(arrange(w), generator(7)), shuffled(w, generator(7)))


def test_every_place_is_equally_likely():
    places = np.array([np.flatnonzero(shuffled(np.eye(1, 8), generator(0, i)))[0] for i in range(4000)])
    counts = np.bincount(places, minlength=8)
    assert np.sum((counts - 500) ** 2 / 500) < 24.3  # χ² of 7 degrees of freedom at 1e-3


def test_gaussian_keeps_mean_and_variance_only():
    w = generator(2).exponential(2.0, (300, 200)) + 5
    g = gaussian(w, generator(0))
    assert g.shape == w.shape
    assert np.mean(g) == pytest.approx(np.mean(w), abs=0.05)
    assert np.std(g) == pytest.approx(np.std(w), rel=0.02)
    assert abs(np.mean(((g - g.mean()) / g.std()) ** 3)) < 0.05


def test_seeds_and_the_global_generator():
    np.random.seed(3)
    state = np.random.get_state()[1].copy()
    w = np.arange(20.0).reshape(4, 5)
    first = shuffled(w, generator(5))
    gaussian(w, generator(5))
    gaussian_eigenvalues((4, 5), generator(5))
    np.testing.assert_array_equal(first, shuffled(w, generator(5)))
    assert not np.array_equal(first, shuffled(w, generator(6)))
    assert not np.array_equal(first, shuffled(w, generator(5, 1)))
    np.testing.assert_array_equal(state, np.random.get_state()[1])


@pytest.mark.parametrize("shape", [(20, 20), (60, 12), (5, 40), (7, 1)])
def test_bidiagonal_form_has_the_law_of_the_whole_matrix(shape):
    rng = generator(8)
    quick = np.array([gaussian_eigenvalues(shape, rng) for _ in range(1500)])
    whole = np.linalg.svd(rng.standard_normal((1500, *shape)), compute_uv=False) ** 2
    assert quick.shape == (1500, min(shape))
    for values, reference in ((quick[:, -1], whole[:, 0]), (quick[:, 0], whole[:, -1]), (quick.sum(1), whole.sum(1))):
        assert ks_2samp(values, reference).pvalue > 1e-3
