import numpy as np
import pytest

from ww_callbacks.spectral.measuring.layer_weights import LayerWeights
from ww_callbacks.spectral.random_matrix.nulls import zscore as null_zscore
from ww_callbacks.spectral.random_matrix.nulls.random_nulls import gaussian_eigenvalues, generator
from ww_callbacks.spectral.random_matrix.nulls.simulation import measures, sample_of, simulate
from ww_callbacks.spectral.random_matrix.nulls.zscore import null_moments, null_z_score

NAMES = ("alpha", "effective_rank", "stable_rank", "participation_ratio")
SHAPES = [(64, 64), (784, 200), (100, 90), (50, 300), (400, 350), (700, 23)]  # mostly between the table's entries


def values_of(sample):
    return {n: sample.power_law.alpha if n == "alpha" else measures()[n](sample) for n in NAMES}


@pytest.mark.parametrize("shape", SHAPES)
def test_noise_has_z_of_mean_zero_and_unit_spread(shape):
    rng = generator(77)
    draws = [values_of(sample_of(gaussian_eigenvalues(shape, rng))) for _ in range(80)]
    for name in NAMES:
        z = np.array([null_z_score(name, drawn[name], [shape]) for drawn in draws])
        assert np.mean(z) == pytest.approx(0, abs=0.2 + 3.5 / np.sqrt(80)), name
        assert np.std(z) == pytest.approx(1, abs=0.4), name


def test_real_matrices_of_noise_are_noise():
    for seed, shape in enumerate([(300, 200), (80, 500)]):
        sample = LayerWeights([0.02 * generator(seed).standard_normal(shape)])
        for name, value in values_of(sample).items():
            assert abs(null_z_score(name, value, [shape])) < 4.5, name


def test_structure_is_far_from_noise():
    shape = (300, 200)
    sample = LayerWeights([generator(1).standard_normal(shape) * np.linspace(0.1, 2, 200)])
    values = values_of(sample)
    assert null_z_score("effective_rank", values["effective_rank"], [shape]) < -20
    assert null_z_score("stable_rank", values["stable_rank"], [shape]) < -10


def test_orientation_does_not_matter():
    assert null_z_score("effective_rank", 180.0, [(300, 200)]) == null_z_score("effective_rank", 180.0, [(200, 300)])


def test_pooled_matrices_and_shapes_outside_the_table_are_simulated():
    rng = generator(5)
    for shapes in ([(32, 16)] * 9, [(400, 5)]):
        sample = sample_of(np.concatenate([gaussian_eigenvalues(s, rng) for s in shapes]))
        for name, value in values_of(sample).items():
            assert abs(null_z_score(name, value, shapes)) < 5, (name, shapes)
    assert np.isnan(null_moments("stable_rank", ((4096, 4096),) * 3)[0])


def test_table_agrees_with_a_simulation_of_its_own():
    simulated = simulate([(96, 48)], 400, seed=123)
    for name, (shift, std) in simulated.items():
        table_shift, table_std = null_zscore._interpolated(name, 48, 2.0)
        assert table_shift == pytest.approx(shift, abs=0.25 * std), name
        assert table_std == pytest.approx(std, rel=0.2), name


def test_missing_values_and_refusals():
    assert np.isnan(null_z_score("alpha", float("nan"), [(50, 50)]))
    assert np.isnan(null_z_score("alpha", 1.0, [(50, 50)]))
    with pytest.raises(ValueError, match="quantity with a null"):
        null_z_score("alfa", 2.0, [(50, 50)])
