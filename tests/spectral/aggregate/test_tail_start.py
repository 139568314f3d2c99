import numpy as np
import pytest

from ww_callbacks.spectral.aggregate.tail_start import tail_rank
from ww_callbacks.spectral.measuring.layer_weights import LayerWeights
from ww_callbacks.spectral.random_matrix.nulls.random_nulls import generator


def made(shape=(120, 90), power=-0.4):
    rng = generator(0)
    left = np.linalg.qr(rng.standard_normal((shape[0], shape[1])))[0]
    right = np.linalg.qr(rng.standard_normal((shape[1], shape[1])))[0]
    return (left * np.arange(1.0, shape[1] + 1) ** power) @ right.T


def test_rank_is_the_fits_tail_and_the_curves_run_along_the_ranks():
    w = made()
    found = tail_rank(w)
    fit = LayerWeights([w]).power_law
    assert found.rank == fit.tail
    assert found.alpha == pytest.approx(fit.alpha)
    eigenvalues = np.linalg.svd(w, compute_uv=False) ** 2
    np.testing.assert_allclose(found.explained_variance, np.cumsum(eigenvalues) / eigenvalues.sum(), rtol=1e-9)
    assert found.explained_by_tail == pytest.approx(eigenvalues[: fit.tail].sum() / eigenvalues.sum())
    assert len(found.localization_ratio) == 90
    assert np.all((found.localization_ratio >= 1) & (found.localization_ratio <= 90))


def test_rank_for_a_share():
    found = tail_rank(np.diag([3.0, 2.0, 1.0]))  # λ = 9, 4, 1 of 14
    assert [found.rank_for(share) for share in (0.1, 9 / 14, 0.65, 13 / 14, 1.0)] == [1, 1, 2, 2, 3]
    with pytest.raises(ValueError, match="share"):
        found.rank_for(0.0)


def test_scale_free():
    w = made()
    one, other = tail_rank(w), tail_rank(1e-9 * w)
    assert one.rank == other.rank
    np.testing.assert_allclose(one.explained_variance, other.explained_variance)


def test_zero_matrix_has_no_tail():
    found = tail_rank(np.zeros((5, 4)))
    assert found.rank == 0
    assert np.isnan(found.explained_by_tail)
