import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ww_callbacks.spectral.linalg.spectrum import (
    gram_singular_values,
    leading_vectors,
    resolved,
    singular_values,
    svd_singular_values,
)


def matrix(rows: int, columns: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((rows, columns))


def with_spectrum(sigma: np.ndarray, rows: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    left = np.linalg.qr(rng.standard_normal((rows, len(sigma))))[0]
    right = np.linalg.qr(rng.standard_normal((len(sigma), len(sigma))))[0]
    return (left * sigma) @ right.T


@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (7, 1), (40, 40), (300, 50), (50, 300), (5000, 300)])
@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16])
def test_equals_lapack(shape, dtype):
    w = matrix(*shape).astype(dtype)
    expected = np.linalg.svd(w.astype(np.float64), compute_uv=False)
    assert singular_values(w) == pytest.approx(expected, rel=1e-8)
    assert gram_singular_values(np.asfortranarray(w)) == pytest.approx(expected, rel=1e-8)


def test_several_blocks_of_rows():
    w = matrix(9000, 130)
    assert gram_singular_values(w) == pytest.approx(np.linalg.svd(w, compute_uv=False), rel=1e-12)
    assert gram_singular_values(w[:, ::2]) == pytest.approx(np.linalg.svd(w[:, ::2], compute_uv=False), rel=1e-12)


def test_small_values_are_resolved_by_svd():
    # σ down to 1e-12·σ_1: the Gram product sees nothing below 1e-8, the SVD's absolute error is about 1e-16.
    sigma = 10.0 ** -np.linspace(0.0, 12.0, 25)
    w = with_spectrum(sigma, 60)
    assert singular_values(w) == pytest.approx(sigma, rel=1e-3)
    gram = gram_singular_values(w)
    assert not resolved(gram)
    assert gram[:11] == pytest.approx(sigma[:11], rel=1e-6)  # down to 1e-5·σ_1
    assert np.all(gram[-8:] == 0.0)


def test_the_rule_keeps_its_promise_at_the_threshold():
    sigma = np.geomspace(1.0, 2.1e-5, 200)
    w = with_spectrum(sigma, 300)
    gram = gram_singular_values(w)
    assert resolved(gram)
    assert gram == pytest.approx(sigma, rel=1e-6)


@pytest.mark.parametrize("exponent", [-1050, -900, -300, 300, 900, 1015])
def test_powers_of_two_scale_exactly(exponent):
    w = matrix(30, 20)
    expected = np.ldexp(gram_singular_values(w), exponent)
    found = gram_singular_values(np.ldexp(w, exponent))
    assert found == pytest.approx(expected, rel=1e-12 if exponent > -1000 else 1e-5)
    assert svd_singular_values(np.ldexp(w, exponent)) == pytest.approx(expected, rel=1e-9 if exponent > -1000 else 1e-5)


def test_zero_and_rank_one():
    assert singular_values(np.zeros((4, 3))).tolist() == [0.0, 0.0, 0.0]
    assert gram_singular_values(np.ones((40, 30)))[1:].tolist() == [0.0] * 29
    assert singular_values(np.zeros((0, 3))).shape == (0,)


def test_refuses_what_is_no_finite_matrix():
    with pytest.raises(ValueError, match="two dimensions but got the shape"):
        singular_values(np.zeros(3))
    for bad in (np.nan, np.inf, -np.inf):
        with pytest.raises(ValueError, match="finite matrix"):
            singular_values(np.array([[1.0, bad]]))


def test_leading_vectors_span_the_leading_space():
    w = with_spectrum(np.array([9.0, 7.0, 1.0, 0.5]), 12)
    for oriented in (w, w.T):
        vectors = leading_vectors(oriented, 2)
        tall = oriented if oriented.shape[0] >= oriented.shape[1] else oriented.T
        assert vectors.shape == (4, 2)
        assert np.linalg.norm(tall @ vectors) ** 2 == pytest.approx(81.0 + 49.0)
    assert leading_vectors(w, 10).shape == (4, 4)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float64"])
def test_torch_tensors_on_the_cpu(dtype):
    torch = pytest.importorskip("torch")
    tensor = torch.nn.Parameter(torch.from_numpy(matrix(50, 30)).to(getattr(torch, dtype)))
    expected = np.linalg.svd(tensor.detach().double().numpy(), compute_uv=False)
    assert singular_values(tensor) == pytest.approx(expected, rel=1e-8)
    assert tensor.requires_grad


shapes = st.tuples(st.integers(1, 12), st.integers(1, 12))


@settings(max_examples=60)
@given(shape=shapes, seed=st.integers(0, 10**6))
def test_invariances(shape, seed):
    rng = np.random.default_rng(seed)
    w = matrix(*shape, seed=seed)
    expected = singular_values(w)
    largest = expected[0]
    rotation = np.linalg.qr(rng.standard_normal((shape[0], shape[0])))[0]
    assert singular_values(w.T) == pytest.approx(expected, abs=1e-12 * largest)
    assert singular_values(rotation @ w) == pytest.approx(expected, abs=1e-12 * largest)
    assert singular_values(rng.permutation(w, axis=0)) == pytest.approx(expected, abs=1e-12 * largest)
    assert singular_values(rng.permutation(w, axis=1)) == pytest.approx(expected, abs=1e-12 * largest)
    assert np.all(np.diff(expected) <= 0.0)
