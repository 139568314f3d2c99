import numpy as np
import pytest

from ww_callbacks.spectral.representation import (
    feature_effective_rank,
    feature_rank,
    jacobian_rank,
    numerical_rank,
    perturbed_pca_dimension,
)

RNG = np.random.default_rng


def low_rank(rows, columns, rank, seed=0):
    g = RNG(seed)
    return g.standard_normal((rows, rank)) @ g.standard_normal((rank, columns))


def test_the_threshold_is_that_of_the_paper():
    sigma = np.array([1.0, 1.2e-7 * 4, 1.18e-7 * 4, 0.0])
    assert numerical_rank(sigma) == 2
    assert numerical_rank(sigma, eps=1e-8) == 3
    assert numerical_rank(np.zeros(3)) == 0


@pytest.mark.parametrize("rank", [1, 7, 20])
def test_feature_rank_counts_the_directions_in_which_inputs_differ(rank):
    features = low_rank(64, 40, rank) + 3.0
    assert feature_rank(features) == rank
    assert feature_rank(features.astype(np.float32)) == rank


@pytest.mark.parametrize("constant", [np.zeros((8, 5)), np.full((8, 5), 1e6, np.float32), np.ones((1, 5))])
def test_features_that_do_not_vary_have_no_dimension(constant):
    assert feature_rank(constant) == 0
    assert feature_effective_rank(constant) == 0


def test_effective_rank_against_its_own_formula_and_its_invariances():
    features = RNG(1).standard_normal((50, 20))
    sigma = np.linalg.svd(features - features.mean(0), compute_uv=False)
    p = sigma / sigma.sum()
    assert feature_effective_rank(features) == pytest.approx(np.exp(-np.sum(p * np.log(p))), rel=1e-10)
    assert feature_effective_rank(1e-3 * features + 1.0) == pytest.approx(feature_effective_rank(features), rel=1e-6)


def test_what_is_not_finite_has_no_rank():
    features = np.ones((4, 3))
    features[1, 1] = np.nan
    assert np.isnan(feature_rank(features)) and np.isnan(feature_effective_rank(features))
    assert np.isnan(perturbed_pca_dimension(features))


@pytest.mark.parametrize("rank", [1, 12, 60])
def test_jacobian_rank_from_either_gram_matrix(rank):
    jacobian = low_rank(60, 90, rank)
    assert jacobian_rank(jacobian.T @ jacobian) == jacobian_rank(jacobian @ jacobian.T) == rank


def test_jacobian_rank_of_a_model_that_diverged_is_nan_and_no_error():
    assert np.isnan(jacobian_rank(np.full((32, 32), np.nan)))


def test_jacobian_rank_refuses_float32_where_the_squared_threshold_would_drown():
    with pytest.raises(ValueError, match="float64"):
        jacobian_rank(np.eye(3, dtype=np.float32))


def test_perturbed_pca_dimension_of_a_linear_map_is_its_rank():
    noise = 1e-3 * RNG(2).standard_normal((2000, 30))
    assert perturbed_pca_dimension(5.0 + noise @ np.linalg.qr(low_rank(30, 30, 30))[0][:, :9] @ np.eye(9, 25)) == 9
    assert perturbed_pca_dimension(np.full((100, 4), 0.1)) == 0


@pytest.mark.parametrize("function", [feature_rank, feature_effective_rank, perturbed_pca_dimension])
def test_features_must_be_a_matrix(function):
    with pytest.raises(ValueError, match=r"\(2, 2, 2\)"):
        function(np.zeros((2, 2, 2)))
