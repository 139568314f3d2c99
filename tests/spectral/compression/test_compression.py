import numpy as np
import pytest

from ww_callbacks.spectral.compression import (
    certified_error,
    compression_table,
    expected_error,
    expected_truncation_error,
    randomised_svd,
    range_finder,
    range_to_tolerance,
    suggest_ranks,
    truncated_svd,
)

RNG = np.random.default_rng


def with_spectrum(rows, columns, sigma, seed=0):
    g = RNG(seed)
    u = np.linalg.qr(g.standard_normal((rows, len(sigma))))[0]
    v = np.linalg.qr(g.standard_normal((columns, len(sigma))))[0]
    return (u * sigma) @ v.T


def spectral_norm(a):
    return np.linalg.norm(a, ord=2)


SIGMA = 1.0 / np.arange(1, 61)


@pytest.mark.parametrize("rank", [1, 10, 60])
@pytest.mark.parametrize("shape", [(90, 60), (60, 90)])
def test_the_truncated_svd_reaches_the_best_error(shape, rank):
    matrix = with_spectrum(*shape, SIGMA)
    factors = truncated_svd(matrix, rank)
    assert factors.u.shape == (shape[0], rank) and factors.size == rank * sum(shape)
    assert spectral_norm(matrix - factors.matrix()) == pytest.approx(SIGMA[rank] if rank < 60 else 0, abs=1e-12)
    assert np.linalg.norm(factors.u, 2) == pytest.approx(np.linalg.norm(factors.v, 2))


@pytest.mark.parametrize("power", [0, 1, 2])
def test_the_expected_error_bounds_the_mean_error(power):
    matrix = with_spectrum(90, 70, SIGMA)
    errors = []
    for seed in range(20):
        q = range_finder(matrix, 15, RNG(seed), power)
        assert q.T @ q == pytest.approx(np.eye(15), abs=1e-12)
        errors.append(spectral_norm(matrix - q @ (q.T @ matrix)))
    assert SIGMA[15] <= min(errors)
    assert np.mean(errors) <= expected_error(SIGMA, 10, 5, power)


@pytest.mark.parametrize("rank", [5, 30, 65])
def test_the_bound_of_the_truncated_randomised_svd(rank):
    sigma = np.arange(1, 71) ** -0.4
    matrix = with_spectrum(90, 70, sigma)
    errors = [spectral_norm(matrix - randomised_svd(matrix, rank, RNG(seed)).matrix()) for seed in range(10)]
    assert sigma[rank] <= min(errors) + 1e-12
    assert np.mean(errors) <= expected_truncation_error(sigma, rank) + 1e-12
    assert expected_truncation_error(sigma, 70) == 0


def test_power_iterations_tighten_the_error_and_its_bound():
    matrix = with_spectrum(200, 200, np.arange(1, 201) ** -0.3)
    sigma = np.linalg.svd(matrix, compute_uv=False)
    errors = [spectral_norm(matrix - randomised_svd(matrix, 20, RNG(0), 10, q).matrix()) for q in (0, 2)]
    assert errors[1] < 0.8 * errors[0]
    assert expected_error(sigma, 20, 10, 2) < 0.5 * expected_error(sigma, 20, 10, 0)
    assert errors[1] < 1.1 * sigma[20]


def test_the_certified_error_is_above_the_error():
    matrix = with_spectrum(80, 80, SIGMA)
    for seed in range(30):
        q = range_finder(matrix, 12, RNG(seed))
        error = spectral_norm(matrix - q @ (q.T @ matrix))
        assert error <= certified_error(matrix, q, RNG(1000 + seed)) <= 100 * error


def test_the_range_grows_until_the_tolerance_holds():
    matrix = with_spectrum(150, 120, 2.0 ** -np.arange(60))
    q = range_to_tolerance(matrix, 1e-4, RNG(0), block=8)
    assert spectral_norm(matrix - q @ (q.T @ matrix)) <= 1e-4
    assert 13 <= q.shape[1] <= 40
    assert q.T @ q == pytest.approx(np.eye(q.shape[1]), abs=1e-12)
    full = range_to_tolerance(RNG(1).standard_normal((30, 20)), 1e-14, RNG(0))
    assert full.shape == (30, 20)


@pytest.mark.parametrize("tolerance", [0.31, 0.104, 0.053])
def test_the_range_holds_hardly_more_than_the_tolerance_needs(tolerance):
    """At most the σ above tolerance/√2: what the cut of the certified range leaves."""
    for seed in range(10):
        matrix = with_spectrum(80, 50, SIGMA[:50], seed)
        q = range_to_tolerance(matrix, tolerance, RNG(seed))
        assert spectral_norm(matrix - q @ (q.T @ matrix)) <= tolerance
        needed, cut = (np.count_nonzero(SIGMA[:50] > limit) for limit in (tolerance, tolerance / np.sqrt(2)))
        assert needed <= q.shape[1] <= cut
        assert q.T @ q == pytest.approx(np.eye(q.shape[1]), abs=1e-12)


def test_a_tolerance_above_the_norm_needs_no_column():
    assert range_to_tolerance(np.eye(6, 4), 100.0, RNG(0)).shape == (6, 0)
    assert range_to_tolerance(np.zeros((6, 4)), 1e-9, RNG(0)).shape == (6, 0)


def test_an_exactly_low_rank_matrix_comes_back_exactly():
    matrix = with_spectrum(50, 40, [3.0, 2.0, 1.0])
    assert randomised_svd(matrix, 3, RNG(0)).matrix() == pytest.approx(matrix, abs=1e-12)
    assert expected_error(np.array([3.0, 2.0, 1.0]), 3, 5) == 0


def test_suggested_ranks():
    sigma = np.sqrt(np.array([50.0, 30, 10, 5, 5] + [0] * 95))
    ranks = suggest_ranks(sigma, (100, 300), xmin=10.0)
    assert (ranks.energy, ranks.tail, ranks.break_even) == (3, 3, 74)
    p = sigma[:5] / sigma.sum()
    assert ranks.effective == np.ceil(np.exp(-np.sum(p * np.log(p))))
    assert suggest_ranks(np.ones(10), (10, 10)).effective == 10
    assert suggest_ranks(np.ones(10), (10, 10)).tail == 0


def test_the_table_agrees_with_the_factors():
    matrix = with_spectrum(30, 40, SIGMA[:30])
    for row in compression_table(np.linalg.svd(matrix, compute_uv=False), (30, 40), [1, 5, 30]):
        factors = truncated_svd(matrix, int(row["rank"]))
        left = matrix - factors.matrix()
        assert row["size"] == factors.size
        assert row["relative_error"] == pytest.approx(np.linalg.norm(left) / np.linalg.norm(matrix), abs=1e-7)
        assert row["spectral_error"] == pytest.approx(spectral_norm(left) / SIGMA[0], abs=1e-12)


@pytest.mark.parametrize(
    "call",
    [
        lambda: truncated_svd(np.eye(3), 4),
        lambda: truncated_svd(np.zeros(3), 1),
        lambda: truncated_svd(np.full((3, 3), np.nan), 1),
        lambda: range_finder(np.eye(3), 0, RNG(0)),
        lambda: range_finder(np.eye(3), 1, RNG(0), -1),
        lambda: expected_error(np.ones(3), 1, 1),
        lambda: certified_error(np.eye(3), np.eye(3), RNG(0), 0),
        lambda: range_to_tolerance(np.eye(3), 0.0, RNG(0)),
        lambda: suggest_ranks(np.zeros(3), (3, 3)),
        lambda: compression_table(np.ones(3), (3, 3), [4]),
        lambda: compression_table(np.ones(50), (8, 5), [4]),
        lambda: suggest_ranks(np.ones(50), (8, 5)),
        lambda: suggest_ranks(np.array([1.0, -1.0]), (8, 5)),
        lambda: suggest_ranks(np.array([1.0, np.nan]), (8, 5)),
        lambda: suggest_ranks(np.ones((2, 2)), (8, 5)),
        lambda: suggest_ranks(np.ones(3), (8,)),
    ],
)
def test_what_cannot_be_is_refused(call):
    with pytest.raises(ValueError, match="Expected"):
        call()


@pytest.mark.parametrize(
    "call, remedy",
    [
        (lambda: truncated_svd(np.eye(4), 2.5), "math.ceil"),
        (lambda: randomised_svd(np.eye(4), 2.5, RNG(0)), "math.ceil"),
        (lambda: compression_table(np.ones(3), (3, 3), [1.5]), "math.ceil"),
        (lambda: randomised_svd(np.eye(4), 3, 0), "default_rng"),
        (lambda: range_finder(np.eye(4), 3, np.random), "default_rng"),
        (lambda: range_to_tolerance(np.eye(4), 0.1, 0), "default_rng"),
        (lambda: certified_error(np.eye(4), np.eye(4), 0), "default_rng"),
    ],
)
def test_what_is_of_the_wrong_kind_is_refused_with_the_remedy(call, remedy):
    with pytest.raises(TypeError, match=remedy):
        call()


def test_ranks_may_be_numpys_integers():
    assert truncated_svd(np.eye(4), np.int64(2)).rank == 2
