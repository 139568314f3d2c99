import numpy as np
import pytest

from ww_callbacks.spectral.linalg.arrays import BLOCK, difference, dot, frobenius, largest_magnitude, row_blocks


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "int8", "bfloat16"])
def test_largest_magnitude_of_any_dtype(dtype):
    if dtype == "bfloat16":
        dtype = pytest.importorskip("ml_dtypes").bfloat16
    assert largest_magnitude(np.array([[1, -128], [127, 0]]).astype(dtype)) == 128.0
    assert largest_magnitude(np.zeros((3, 0), dtype)) == 0.0


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", ["float16", "float32", "bfloat16"])
def test_largest_magnitude_shows_what_is_not_finite(bad, dtype):
    if dtype == "bfloat16":
        dtype = pytest.importorskip("ml_dtypes").bfloat16
    w = np.ones((5, 4)).astype(dtype)
    for place in ((0, 0), (4, 3), (2, 1)):
        w[place] = bad
        assert not np.isfinite(largest_magnitude(w))
        w[place] = 1.0


def test_blocks_cover_the_array_in_float64():
    w = np.random.default_rng(0).standard_normal((2 * BLOCK // 600 + 7, 600)).astype(np.float32)
    blocks = list(row_blocks(w, None, w))
    assert len(blocks) == 3
    assert all(a.dtype == np.float64 and a.size <= BLOCK and b is None for a, b, _ in blocks)
    assert np.array_equal(np.concatenate([a for a, _, _ in blocks]), w)


def test_blocks_of_an_array_that_lies_column_by_column_are_of_its_transpose():
    w = np.random.default_rng(0).standard_normal((600, 2 * BLOCK // 600 + 7)).astype(np.float32)
    both = list(row_blocks(w.T, w.T.copy()))
    assert np.array_equal(np.concatenate([a for a, _ in both]), w)
    assert all(a.flags.c_contiguous and np.array_equal(a, b) for a, b in both)
    assert next(iter(row_blocks(w.T, rows=5)))[0].shape == (5, 600), "rows are rows where they are asked for"


def test_products_whatever_the_memory_layout():
    rng = np.random.default_rng(1)
    a, b = rng.standard_normal((30, 20)), rng.standard_normal((30, 20))
    for x in (a, np.asfortranarray(a)):
        for y in (b, np.asfortranarray(b), np.repeat(b, 2, axis=1)[:, ::2]):
            assert float(dot(x, y)) == pytest.approx(np.sum(a * b))
            assert frobenius(difference(x, y)) == pytest.approx(np.linalg.norm(a - b))


def test_nothing_is_changed():
    w = np.asfortranarray(np.random.default_rng(2).standard_normal((8, 6)))
    before = w.copy()
    largest_magnitude(w), frobenius(difference(w, w)), list(row_blocks(w, w))
    w.flags.writeable = False
    assert frobenius(w) == pytest.approx(np.linalg.norm(before))
    assert np.array_equal(w, before)
