"""Krylov spaces, the eigenvalues and the sums that they give: always within the error that they state."""

from __future__ import annotations

import numpy as np
import pytest

from tests.spectral.estimates.spectra import SIDE, matrix, spectra
from ww_callbacks.spectral.estimates import lanczos
from ww_callbacks.spectral.estimates.estimate import Estimate
from ww_callbacks.spectral.estimates.lanczos import BlockLanczos
from ww_callbacks.spectral.estimates.leading import (
    hill_alpha_of_top,
    largest_singular_value,
    leading_eigenvalues,
    missed_probability,
)
from ww_callbacks.spectral.estimates.quadrature import effective_rank, matrix_entropy, participation_ratio
from ww_callbacks.spectral.fits.hill import hill_alpha
from ww_callbacks.spectral.quantities import ranks

SPECTRA = spectra() | {"groups of twenty": 1.4 ** -(np.arange(SIDE) // 20)}


def space_of(w: np.ndarray, steps: int, **options: int) -> BlockLanczos:
    """A space after so many steps."""
    space = BlockLanczos(w, **options)
    space.extend(steps)
    return space


def check_leading(space: BlockLanczos, values: np.ndarray, factor: float = 1.0) -> None:
    """The 33 largest of the eigenvalues ``values``, and Hill's α of the 32 and of the 16 largest."""
    found = leading_eigenvalues(space, 33)
    assert np.all(values[:33] - found.values <= factor * found.errors)
    assert np.all(found.values - values[:33] <= 1e-5 * values[0])
    for tail in (16, 32):
        top = hill_alpha_of_top(found, tail)
        assert not np.isfinite(top.error) or abs(top.value - hill_alpha(values[: tail + 1], tail=tail)) <= top.error


@pytest.mark.parametrize("count", (20, 64, 200))
@pytest.mark.parametrize("width", (1e-4, 1e-3, 0.03, 0.1))
@pytest.mark.parametrize("rest", (0.3, 0.9))
def test_more_close_eigenvalues_than_columns_are_not_mistaken_for_a_few(count: int, width: float, rest: float) -> None:
    """Their residuals are small long before their number is known."""
    sigma = np.r_[1.0 + width * np.linspace(1, 0, count), np.linspace(rest, 0.01, SIDE - count)]
    check_at_every_step(sigma)


@pytest.mark.parametrize("distance", (1e-4, 1e-3, 1e-2))
@pytest.mark.parametrize("count", (19, 100))
@pytest.mark.parametrize("width", (0.0, 1e-3))
def test_one_eigenvalue_just_above_many_equal_ones(distance: float, count: int, width: float) -> None:
    """It is mixed with those of them that were not found."""
    equal = 1.0 - width * np.sort(np.random.default_rng(0).random(count))
    check_at_every_step(np.r_[1.0 + distance, equal, np.linspace(0.6, 0.01, SIDE - 1 - count)])


@pytest.mark.parametrize("distance", (1e-4, 1.6e-3))
def test_sums_count_what_is_missing_of_a_cluster(distance: float) -> None:
    """Of one value above nineteen equal ones sixteen are found at first: they must not stand for all twenty."""
    sigma = np.r_[1.0 + distance, np.ones(19), np.linspace(0.5, 0.01, SIDE - 20)]
    for seed in range(4):
        space = BlockLanczos(matrix(sigma), seed=seed)
        space.extend(3)
        for _ in range(6):
            space.extend(1)
            for estimate, reference in (
                (matrix_entropy, ranks.matrix_entropy),
                (participation_ratio, ranks.participation_ratio),
            ):
                got = estimate(space, float(np.linalg.norm(sigma)))
                assert abs(got.value - reference(sigma)) <= got.error


def check_at_every_step(sigma: np.ndarray) -> None:
    for seed in (1, 2):
        space = BlockLanczos(matrix(sigma), seed=seed)
        space.extend(2)
        for _ in range(16):
            space.extend(1)
            check_leading(space, sigma**2, 1.5)  # what counts is λ_1 and α; others are a little worse in a cluster
            largest = largest_singular_value(leading_eigenvalues(space, 1))
            assert abs(largest.value - sigma[0]) <= largest.error


@pytest.mark.parametrize("name", SPECTRA)
@pytest.mark.parametrize("steps", (5, 10, 18, 20))
def test_every_value_lies_within_its_error(name: str, steps: int) -> None:
    """Leading eigenvalues, Hill's α of the top, and three sums over the spectrum."""
    sigma = SPECTRA[name]
    values = sigma**2
    space = space_of(matrix(sigma), steps, seed=1)
    check_leading(space, values)
    norm = float(np.linalg.norm(sigma))
    for estimate, reference in (
        (effective_rank, ranks.effective_rank),
        (matrix_entropy, ranks.matrix_entropy),
        (participation_ratio, ranks.participation_ratio),
    ):
        got = estimate(space, norm)
        assert not np.isfinite(got.error) or abs(got.value - reference(sigma)) <= got.error


def test_errors_are_small_where_the_spectrum_allows_it() -> None:
    """A layer as training leaves it: the leading ones to 1e-5, Hill's α to 1e-3, the effective rank to 1.5 %."""
    sigma = SPECTRA["power law"]
    space = space_of(matrix(sigma), 18)
    assert largest_singular_value(leading_eigenvalues(space, 1)).within(1e-5)
    assert hill_alpha_of_top(leading_eigenvalues(space, 33), 32).within(1e-3)
    assert effective_rank(space, float(np.linalg.norm(sigma))).within(0.015)


def test_the_standard_error_is_that_of_the_columns() -> None:
    """Over 30 seeds the effective rank scatters by what one run states."""
    sigma = SPECTRA["half of it zero"][::2].copy()
    norm = float(np.linalg.norm(sigma))
    found = [effective_rank(space_of(matrix(sigma), 6, seed=seed), norm) for seed in range(30)]
    scatter = float(np.std([estimate.value for estimate in found]))
    stated = float(np.mean([estimate.error for estimate in found])) / 3.0
    assert 0.5 * scatter < stated < 3.0 * scatter


@pytest.mark.parametrize("dtype", (np.float16, np.float32, np.float64))
@pytest.mark.parametrize("exponent", (0, -12, 9))
def test_neither_dtype_nor_shape_nor_scale_matters(dtype: type, exponent: int) -> None:
    """W, its transpose and 2^k·W have the same estimates, to rounding, in every dtype that holds them."""
    w = np.random.default_rng(3).standard_normal((150, 100)).astype(np.float16).astype(np.float64)
    expected = largest_singular_value(leading_eigenvalues(space_of(w, 3), 1))
    scaled = np.ldexp(w, exponent).astype(dtype)
    if dtype is np.float16 and exponent == -12:  # below its normal numbers
        scaled = w.astype(dtype)
        exponent = 0
    for given in (scaled, scaled.T):
        got = largest_singular_value(leading_eigenvalues(space_of(given, 3), 1))
        assert got.value == pytest.approx(np.ldexp(expected.value, exponent), rel=1e-5)


@pytest.mark.parametrize("scale", (1e-300, 1e-30, 1e30, 1e300))
def test_extreme_scales_neither_overflow_nor_vanish(scale: float) -> None:
    """Squares of the elements would not be float32, nor float64."""
    w = np.random.default_rng(3).standard_normal((150, 100))
    plain, extreme = (space_of(m, 3) for m in (w, scale * w))
    one, other = (largest_singular_value(leading_eigenvalues(s, 1)) for s in (plain, extreme))
    assert other.value == pytest.approx(scale * one.value, rel=1e-5)
    one, other = (effective_rank(s, float(np.linalg.norm(w)) * f) for s, f in ((plain, 1.0), (extreme, scale)))
    assert other.value == pytest.approx(one.value, rel=1e-4)


def test_the_same_seed_gives_the_same_numbers_and_nothing_global_moves() -> None:
    """Probes have a separate generator."""
    w = matrix(SPECTRA["heavy"])
    np.random.seed(5)
    before = np.random.get_state()[1].copy()
    one, two, other = (space_of(w, 4, seed=seed).ritz.values for seed in (1, 1, 2))
    assert np.array_equal(one, two)
    assert not np.array_equal(one, other)
    assert np.array_equal(np.random.get_state()[1], before)


def test_a_matrix_of_low_rank_is_not_estimated_wrongly() -> None:
    """The space is exhausted after one step: its eigenvalues are exact, and sums of what is left unknown."""
    rng = np.random.default_rng(0)
    w = rng.standard_normal((200, 5)) @ rng.standard_normal((5, 120))
    space = space_of(w, 3)
    exact = np.linalg.svd(w, compute_uv=False) ** 2
    assert space.ritz.values[:5] == pytest.approx(exact[:5], rel=1e-5)
    got = effective_rank(space, float(np.linalg.norm(w)))
    assert not np.isfinite(got.error) or abs(got.value - ranks.effective_rank(np.sqrt(exact))) <= got.error


def test_a_missed_eigenvalue_becomes_unlikely() -> None:
    """Kuczyński and Woźniakowski's bound falls with columns and steps."""
    assert missed_probability(4096, 16, 8, 0.01) == 1.0
    assert missed_probability(4096, 16, 40, 0.01) < missed_probability(4096, 16, 30, 0.01) < 1e-6
    assert missed_probability(4096, 32, 30, 0.01) < missed_probability(4096, 16, 30, 0.01)


def test_tolerance_of_a_logarithm_is_that_of_its_argument() -> None:
    """A log10 near 0 has no relative error of its own."""
    assert Estimate(1e-9, 0.004).within(0.01, logarithm=True)
    assert not Estimate(1e-9, 0.005).within(0.01, logarithm=True)
    assert not Estimate(float("nan"), float("inf")).within(0.1)


@pytest.mark.parametrize("shape", [(1000, 1000), (384, 128), (700, 513), (100, 7), (1, 1)])
@pytest.mark.parametrize("order", "CF")
def test_a_product_in_tiles_is_the_product(shape: tuple[int, int], order: str) -> None:
    """Sides that are no multiples of a tile, and matrices of less than one, in either order of memory."""
    rng = np.random.default_rng(0)
    w = np.asarray(rng.standard_normal(shape, dtype=np.float32), order=order)
    x = np.asfortranarray(rng.standard_normal((shape[1], 5), dtype=np.float32))
    expected = w.T.astype(np.float64) @ (w.astype(np.float64) @ x)
    assert np.allclose(lanczos._gram_product(w, x), expected, atol=2e-6 * np.abs(expected).max())


@pytest.mark.parametrize("part", [1.0, 1e-3, 1e-6, 0.0])
def test_columns_that_depend_on_each_other_come_out_orthonormal(part: float) -> None:
    """By Cholesky where that can, else by Householder."""
    block = np.random.default_rng(0).standard_normal((500, 4)).astype(np.float32)
    block[:, 3] = block[:, 0] + part * block[:, 3]
    basis, upper = lanczos._orthonormal(block)
    assert np.allclose(basis.T @ basis, np.eye(4), atol=1e-6)
    assert np.allclose(basis @ upper, block, atol=1e-5)
    assert basis.dtype == np.float32
