import numpy as np
import pytest

from tests.spectral.measuring.test_layer_weights import heavy
from ww_callbacks.spectral.linalg.density import CANDIDATES, spectral_density
from ww_callbacks.spectral.measuring.layer_weights import LayerWeights


def test_what_the_views_draw():
    w = heavy(400, 300)
    layer = LayerWeights([w])
    density = spectral_density(layer)
    assert len(density["log10_lambda_edges"]) == 65 and len(density["count"]) == 64
    assert sum(density["count"]) == 300
    assert density["log10_lambda_edges"][-1] == pytest.approx(np.log10(layer.eigenvalues[-1]))
    candidates = density["candidates"]
    assert len(candidates["xmin"]) == len(candidates["D"]) == len(candidates["alpha"]) <= CANDIDATES
    chosen = int(np.argmin(candidates["D"]))
    assert candidates["D"][chosen] == pytest.approx(density["D"])
    assert candidates["xmin"][chosen] == pytest.approx(density["xmin"])
    assert candidates["alpha"][chosen] == pytest.approx(density["alpha"])
    assert density["mp_variance"] == pytest.approx(np.var(w))
    assert density["mp_plus"] == pytest.approx(np.var(w) * (np.sqrt(400) + np.sqrt(300)) ** 2)
    assert density["shuffled_max"] is None
    assert all(np.isfinite(density[name]).all() for name in ("log10_lambda_edges", "count"))


def test_a_measured_null_is_passed_on():
    layer = LayerWeights([heavy()])
    layer.scratch["shuffled_max"] = 7.5
    assert spectral_density(layer)["shuffled_max"] == 7.5


@pytest.mark.parametrize("w", [np.zeros((4, 3)), np.ones((4, 3)), np.eye(5), 1e200 * np.eye(5), np.ones((1, 5))])
def test_degenerate_layers(w):
    density = spectral_density(LayerWeights([w]))
    assert len(density["count"]) in (0, 64)
    assert len(density["candidates"]["xmin"]) == 0
