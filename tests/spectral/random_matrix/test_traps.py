import numpy as np
import pytest

from ww_callbacks.spectral.random_matrix import tracy_widom
from ww_callbacks.spectral.random_matrix.nulls.random_nulls import generator, shuffled
from ww_callbacks.spectral.random_matrix.spikes import critical_strength, spike_location
from ww_callbacks.spectral.random_matrix.top_eigenvalues import eigenvalues_beyond, largest_eigenvalues
from ww_callbacks.spectral.random_matrix.traps import correlation_traps, mean_strength

SHAPE = (300, 200)


def noise(seed, shape=SHAPE, law="normal"):
    rng = generator(seed)
    if law == "normal":
        return rng.standard_normal(shape)
    return rng.uniform(-1, 1, shape) if law == "uniform" else rng.laplace(size=shape)


@pytest.mark.parametrize(("law", "factor"), [("normal", 1.0), ("uniform", 1.0), ("laplace", 3.5)])
def test_healthy_matrices_have_traps_at_the_stated_rate(law, factor):
    draws, level = 200, 0.05
    found = [correlation_traps(noise(i, (120, 80), law), generator(i, 1), level=level) for i in range(draws)]
    bound = factor * level * draws + 3 * np.sqrt(factor * level * draws)
    assert sum(t.centred > 0 for t in found) < bound
    assert sum(t.uncentred > 0 for t in found) < bound
    # and not for want of power: about as many as stated, not none
    assert sum(t.centred > 0 for t in found) >= 2


@pytest.mark.parametrize("shape", [SHAPE, (100, 700)])
def test_mean_makes_an_uncentred_trap_and_no_centred_one(shape):
    unit = critical_strength(shape) / np.sqrt(np.prod(shape))
    for strength, expected in ((0.5, 0), (2.0, 1), (50.0, 1), (1e5, 1)):
        w = noise(2, shape) + strength * unit
        traps = correlation_traps(w, generator(0))
        assert (traps.centred, traps.uncentred) == (0, expected), strength
        assert mean_strength(w) == pytest.approx(strength, rel=0.02, abs=0.05)
        if expected:
            theta = strength * critical_strength(shape)
            assert traps.largest == pytest.approx(spike_location(theta, shape), rel=0.05)


def test_large_elements_make_traps_of_both_kinds():
    w = noise(3)
    w.ravel()[[5, 500, 5000, 30000]] = [60.0, -70.0, 80.0, 90.0]
    traps = correlation_traps(w, generator(0))
    assert (traps.centred, traps.uncentred) == (4, 4)
    assert traps.z_centred > 50


def test_a_spike_of_the_weights_is_no_trap():
    rng = generator(4)
    w = noise(4) + 3 * critical_strength(SHAPE) * np.outer(
        *(v / np.linalg.norm(v) for v in (rng.normal(size=300), rng.normal(size=200)))
    )
    assert tracy_widom.z_score(np.linalg.norm(w, 2) ** 2, SHAPE, 1.0) > 50
    traps = correlation_traps(w, generator(0))
    assert (traps.centred, traps.uncentred) == (0, 0)


@pytest.mark.parametrize("shape", [(400, 300), (90, 500), (40, 30)])
@pytest.mark.parametrize("mean", [0.0, 0.3])
def test_z_is_that_of_the_whole_spectrum(shape, mean):
    w = (noise(5, shape) + mean) * 1e-3
    traps = correlation_traps(w, generator(9))
    s = shuffled(w, generator(9))
    variance = np.var(s)
    for z, matrix in ((traps.z_centred, s - s.mean()), (traps.z_uncentred, s)):
        largest = np.linalg.svd(matrix, compute_uv=False)[0] ** 2
        assert z == pytest.approx(tracy_widom.z_score(largest, shape, variance), abs=1e-3, rel=1e-5)
    assert traps.largest == pytest.approx(np.linalg.norm(s, 2) ** 2, rel=1e-5)


def test_scale_free():
    w = noise(6) + 0.4
    one, other = correlation_traps(w, generator(1)), correlation_traps(w * 1e-12, generator(1))
    assert (one.centred, one.uncentred) == (other.centred, other.uncentred)
    assert one.z_uncentred == pytest.approx(other.z_uncentred, rel=1e-5)


def test_weightwatchers_cut_is_laxer():
    w = noise(7) + 1.15 * critical_strength(SHAPE) / np.sqrt(np.prod(SHAPE))
    ours = correlation_traps(w, generator(0))
    theirs = correlation_traps(w, generator(0), rule="weightwatcher")
    assert theirs.cut > ours.cut
    units = tracy_widom.z_score(theirs.cut, SHAPE, float(np.var(w)))
    assert 3.0 < units < 6.4
    assert theirs.uncentred <= ours.uncentred


def test_equal_elements_have_no_bulk():
    traps = correlation_traps(np.full((30, 20), 0.1), generator(0))
    assert (traps.centred, traps.uncentred) == (0, 0)
    assert np.isnan(traps.z_centred)
    assert mean_strength(np.full((30, 20), 0.5)) == np.inf


def test_refusals():
    with pytest.raises(ValueError, match="'weightwatcher'"):
        correlation_traps(noise(0), generator(0), rule="tracy")
    with pytest.raises(ValueError, match="level"):
        correlation_traps(noise(0), generator(0), level=1.0)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_largest_eigenvalues_are_those_of_the_whole_spectrum(dtype):
    w = noise(8, (500, 400)).astype(dtype)
    gram = w.T @ w
    whole = np.linalg.eigvalsh(gram.astype(np.float64))[::-1]
    tolerance = 1e-9 if dtype is np.float64 else 1e-5
    for count in (1, 5, 399):
        np.testing.assert_allclose(
            largest_eigenvalues(gram, count), whole[:count], rtol=1e-2 if count > 50 else tolerance
        )
    np.testing.assert_array_equal(largest_eigenvalues(gram, 2), largest_eigenvalues(gram, 2))
    cut = (whole[6] + whole[7]) / 2
    np.testing.assert_allclose(eigenvalues_beyond(gram, cut), whole[:7], rtol=tolerance)
