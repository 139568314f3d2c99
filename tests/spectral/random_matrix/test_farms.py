import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import ks_2samp

from ww_callbacks.spectral.measuring.layer_weights import LayerWeights
from ww_callbacks.spectral.random_matrix.farms import fixed_aspect_submatrices, windows
from ww_callbacks.spectral.random_matrix.nulls.random_nulls import generator

sides = st.integers(1, 200)


@given(sides, sides, st.floats(1, 8), st.floats(0, 0.8))
def test_windows_cover_the_matrix_at_one_size(rows, columns, aspect, overlap):
    seen = np.zeros((rows, columns), dtype=bool)
    sizes = set()
    for r, c in windows((rows, columns), aspect, overlap):
        seen[r, c] = True
        sizes.add((r.stop - r.start, c.stop - c.start))
        assert 0 <= r.start < r.stop <= rows
        assert 0 <= c.start < c.stop <= columns
    assert seen.all()
    assert len(sizes) == 1
    window = max(sizes.pop())
    if min(rows, columns) >= 16:
        assert window <= max(rows, columns)


@pytest.mark.parametrize(
    ("shape", "aspect"), [((64, 512), 1.0), ((300, 100), 2.0), ((100, 300), 1.5), ((128, 128), 2.0)]
)
def test_aspect_ratio(shape, aspect):
    for part in fixed_aspect_submatrices(np.zeros(shape), aspect):
        assert max(part.shape) / min(part.shape) == pytest.approx(aspect, rel=0.02)


def test_more_overlap_makes_more_windows():
    assert len(windows((64, 512), overlap=0.5)) > len(windows((64, 512)))


def test_views_and_not_copies():
    w = np.zeros((20, 80))
    assert all(np.shares_memory(part, w) for part in fixed_aspect_submatrices(w))


def test_aspect_ratio_bias_goes():
    """The spectrum of noise depends on the aspect ratio; that of its square parts does not."""
    rng = generator(0)
    square, wide = rng.standard_normal((100, 100)), rng.standard_normal((100, 1600))

    def spectrum(matrices):
        eigenvalues = LayerWeights(matrices).eigenvalues
        return eigenvalues / np.mean(eigenvalues)

    assert ks_2samp(spectrum([square]), spectrum([wide])).statistic > 0.3
    parts = fixed_aspect_submatrices(wide)
    assert ks_2samp(spectrum(fixed_aspect_submatrices(square)), spectrum(parts)).statistic < 0.05


@pytest.mark.parametrize("settings", [{"aspect": 0.5}, {"overlap": 1.0}, {"overlap": -0.1}])
def test_refusals(settings):
    with pytest.raises(ValueError, match="Expected an"):
        windows((4, 4), **settings)
