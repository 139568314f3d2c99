import numpy as np
import pytest

from ww_callbacks.spectral.random_matrix.marchenko_pastur import expected_eigenvalues
from ww_callbacks.spectral.random_matrix.nulls.random_nulls import gaussian_eigenvalues, generator
from ww_callbacks.spectral.random_matrix.phases import PHASES, phase
from ww_callbacks.spectral.random_matrix.spikes import critical_strength

SHAPES = [(300, 100), (256, 256), (150, 600)]


def eigenvalues_of(w):
    return np.linalg.svd(w, compute_uv=False) ** 2


def with_spikes(shape, strengths, seed=0):
    rng = generator(seed)
    left = np.linalg.qr(rng.standard_normal((shape[0], len(strengths))))[0]
    right = np.linalg.qr(rng.standard_normal((shape[1], len(strengths))))[0]
    return rng.standard_normal(shape) + critical_strength(shape) * (left * np.array(strengths)) @ right.T


def power_law(shape, alpha=2.5, seed=0):
    """Singular vectors at random, eigenvalues at the quantiles of a power law."""
    rng = generator(seed)
    smaller = min(shape)
    left = np.linalg.qr(rng.standard_normal((shape[0], smaller)))[0]
    right = np.linalg.qr(rng.standard_normal((shape[1], smaller)))[0]
    eigenvalues = ((np.arange(smaller) + 0.5) / smaller) ** (-1 / (alpha - 1))
    return (left * np.sqrt(eigenvalues)) @ right.T


MADE = {
    "random-like": lambda shape: generator(0).standard_normal(shape),
    "bleeding-out": lambda shape: with_spikes(shape, [1.45, 1.4]),
    "bulk+spikes": lambda shape: with_spikes(shape, [4.0, 3.0, 2.0]),
    "heavy-tailed": power_law,
    "rank-collapsed": lambda shape: (
        generator(0).standard_normal((shape[0], 40)) @ generator(1).standard_normal((40, shape[1]))
    ),
}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", MADE)
def test_matrices_made_to_be_of_a_phase(name, shape):
    values = eigenvalues_of(MADE[name](shape))
    found = phase(values, shape)
    assert found.name == name, found.reason
    assert phase(1e-8 * values, shape).name == name
    assert phase(values, shape[::-1]).name == name


def test_bulk_decay():
    """Columns of two sizes: the edge dissolves, and no power law with α up to 6 comes of it."""
    sizes = np.repeat([1.0, 3.0], 200)
    found = phase(eigenvalues_of(generator(3).standard_normal((1000, 400)) * sizes), (1000, 400))
    assert found.name == "bulk-decay", found.reason


def test_too_many_spikes_for_a_bulk_are_a_tail():
    """A fifth of the eigenvalues on a power law above a perfect bulk: there is a bulk, and yet it is no bulk+spikes."""
    tail = 1700 * ((np.arange(60) + 0.5) / 60) ** (-1 / 1.5)
    found = phase(np.concatenate([expected_eigenvalues((440, 240)), tail]), (500, 300))
    assert found.name == "heavy-tailed", found.reason


@pytest.mark.parametrize("shape", [(64, 64), (512, 128), (200, 150)])
def test_noise_is_random_like_at_the_level_of_the_test(shape):
    draws = 100
    names = [phase(gaussian_eigenvalues(shape, generator(i)), shape).name for i in range(draws)]
    assert names.count("random-like") >= draws * 0.99 - 3 * np.sqrt(draws * 0.01)


@pytest.mark.parametrize("values", [np.ones(10), np.zeros(100), np.full(100, np.nan), np.ones(100)])
def test_undecided(values):
    found = phase(values, (len(values), len(values)))
    assert found.name == "undecided"
    assert found.reason


def test_names():
    assert len(PHASES) == 7
    assert set(MADE) < set(PHASES)
