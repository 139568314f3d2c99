import numpy as np
import pytest

from ww_callbacks.spectral.random_matrix.marchenko_pastur import edges, expected_eigenvalues
from ww_callbacks.spectral.random_matrix.nulls.random_nulls import gaussian_eigenvalues, generator
from ww_callbacks.spectral.random_matrix.spikes import (
    bulk_distance,
    critical_strength,
    find_spikes,
    spike_location,
    spike_overlaps,
    spike_strength,
)

SHAPES = [(300, 300), (600, 200), (200, 900)]


def planted(shape, strengths, seed=0, std=1.0):
    """Noise with orthogonal rank-one parts of these strengths (in units of s and of the critical strength)."""
    rng = generator(seed)
    w = rng.normal(0.0, std, shape)
    left = np.linalg.qr(rng.standard_normal((shape[0], len(strengths))))[0]
    right = np.linalg.qr(rng.standard_normal((shape[1], len(strengths))))[0]
    return w + (left * np.array(strengths) * critical_strength(shape) * std) @ right.T, left, right


def eigenvalues_of(w):
    return np.linalg.svd(w, compute_uv=False) ** 2


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("strength", [1.5, 2.0, 4.0])
def test_planted_spike_is_found_where_theory_puts_it(shape, strength):
    w, _, _ = planted(shape, [strength], std=0.02)
    found = find_spikes(eigenvalues_of(w), shape)
    assert len(found.eigenvalues) == 1
    theta = strength * critical_strength(shape)
    assert found.eigenvalues[0] == pytest.approx(spike_location(theta, shape, 4e-4), rel=0.1)
    assert found.strengths[0] == pytest.approx(theta, rel=0.1)
    assert found.variance == pytest.approx(4e-4, rel=0.02)


@pytest.mark.parametrize("shape", SHAPES)
def test_mean_location_over_draws(shape):
    theta = 2 * critical_strength(shape)
    largest = [eigenvalues_of(planted(shape, [2.0], seed)[0])[0] for seed in range(12)]
    error = np.std(largest) / np.sqrt(len(largest))
    assert np.mean(largest) == pytest.approx(spike_location(theta, shape), abs=4 * error + 0.01 * np.mean(largest))


def test_detection_sets_in_at_the_critical_strength():
    shape = (200, 150)

    def detected(strength):
        draws = [find_spikes(eigenvalues_of(planted(shape, [strength], seed)[0]), shape) for seed in range(20)]
        return np.mean([len(found.strengths) > 0 for found in draws])

    share = {strength: detected(strength) for strength in (0.5, 1.0, 2.0)}
    assert share[0.5] <= 0.1
    assert share[0.5] <= share[1.0] <= share[2.0]
    assert share[2.0] == 1.0


def test_noise_rarely_has_a_spike():
    rng = generator(9)
    shapes = [(64, 64), (128, 100), (400, 80), (200, 200), (800, 100)]
    draws = 120
    found = sum(len(find_spikes(gaussian_eigenvalues(s, rng), s).strengths) > 0 for s in shapes for _ in range(draws))
    # level 1 %; it is conservative at these sizes, since s² is taken from the same eigenvalues
    assert found / (draws * len(shapes)) < 0.01 + 3 * np.sqrt(0.01 / (draws * len(shapes)))


def test_many_spikes_do_not_mask_one_another():
    """Eighty equal spikes nearly double the variance of the whole, and none of them stands out of that."""
    shape = (500, 300)
    values = np.concatenate([expected_eigenvalues((420, 220)), np.full(80, 2200.0)])
    assert edges(shape, np.sum(values) / np.prod(shape))[1] > 2200
    found = find_spikes(values, shape)
    assert len(found.eigenvalues) == 80
    assert found.variance == pytest.approx(1.0, rel=0.01)


def test_overlap_of_singular_vectors():
    shape, strength = (600, 200), 2.0
    squares = []
    for seed in range(8):
        w, left, right = planted(shape, [strength], seed)
        u, _, vt = np.linalg.svd(w, full_matrices=False)
        squares.append([(u[:, 0] @ left[:, 0]) ** 2, (vt[0] @ right[:, 0]) ** 2])
    expected = spike_overlaps(strength * critical_strength(shape), shape)
    np.testing.assert_allclose(np.mean(squares, axis=0), expected, atol=0.03)
    assert [float(c) for c in spike_overlaps(0.9 * critical_strength(shape), shape)] == [0.0, 0.0]


def test_strength_inverts_location():
    theta = np.array([1.01, 2.0, 30.0]) * critical_strength((70, 900))
    np.testing.assert_allclose(spike_strength(spike_location(theta, (70, 900), 0.3), (70, 900), 0.3), theta)
    assert np.isnan(spike_strength(1.0, (70, 900)))


def test_scale_free():
    w, _, _ = planted((200, 100), [3.0, 2.0])
    values = eigenvalues_of(w)
    one, other = find_spikes(values, (200, 100)), find_spikes(values * 1e-9, (100, 200))
    np.testing.assert_allclose(one.strengths, other.strengths)
    assert one.z == pytest.approx(other.z)
    assert other.cut == pytest.approx(one.cut * 1e-9)


def test_pooled_matrices_of_one_shape():
    rng = generator(4)
    pooled = np.concatenate([gaussian_eigenvalues((64, 32), rng) for _ in range(9)])
    found = find_spikes(pooled, (64, 32))
    assert len(found.eigenvalues) == 0
    assert found.variance == pytest.approx(1.0, rel=0.03)
    assert bulk_distance(pooled, (64, 32), found) < 0.05


def test_distance_of_the_bulk_tells_noise_from_structure():
    shape = (300, 200)
    noise = gaussian_eigenvalues(shape, generator(1))
    assert bulk_distance(noise, shape, find_spikes(noise, shape)) < 1.5 * np.sqrt(np.log(200)) / 200
    columns = eigenvalues_of(generator(2).standard_normal(shape) * np.linspace(0.2, 2, 200))
    assert bulk_distance(columns, shape, find_spikes(columns, shape)) > 0.05


@pytest.mark.parametrize("values", [[], [0.0, 0.0], [np.nan, 1.0]])
def test_nothing_to_find(values):
    found = find_spikes(values, (4, 2))
    assert np.isnan(found.variance)
    assert len(found.eigenvalues) == 0
    assert np.isnan(bulk_distance(values, (4, 2), found))


def test_refuses_a_level_that_is_none():
    with pytest.raises(ValueError, match="level"):
        find_spikes([1.0], (1, 1), level=0.0)
