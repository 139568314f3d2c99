"""Weights on an accelerator are measured where they lie, with the same numbers.

Without a CUDA device the same code runs on torch's CPU tensors, which are then taken for an accelerator's.
"""

import numpy as np
import pytest

from ww_callbacks.spectral.linalg import arrays, spectrum
from ww_callbacks.spectral.linalg.density import spectral_density
from ww_callbacks.spectral.linalg.spectrum import singular_values
from ww_callbacks.spectral.measuring.layer_weights import LayerWeights
from ww_callbacks.spectral.measuring.registry import all_quantities, resolve
from ww_callbacks.spectral.measuring.values import measure_quantities

torch = pytest.importorskip("torch")


@pytest.fixture(params=["cuda", "cpu taken for an accelerator"])
def on_device(request, monkeypatch):
    """Puts an array on the device."""
    if request.param == "cuda":
        if not torch.cuda.is_available():
            pytest.skip("no CUDA device")
        return lambda w, dtype=None: torch.from_numpy(w).to("cuda", dtype)
    for module in (arrays, spectrum):
        monkeypatch.setattr(module, "on_accelerator", lambda array: isinstance(array, torch.Tensor))
    return lambda w, dtype=None: torch.from_numpy(w).to(dtype=dtype)


def matrix(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((300, 120)).astype(np.float32)


@pytest.mark.parametrize("shape", [(40, 40), (3000, 200), (200, 3000)])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float64"])
def test_spectrum(on_device, shape, dtype):
    w = on_device(np.random.default_rng(0).standard_normal(shape), getattr(torch, dtype))
    assert arrays.on_accelerator(w)
    expected = np.linalg.svd(w.double().cpu().numpy(), compute_uv=False)
    assert singular_values(w) == pytest.approx(expected, rel=1e-7)


@pytest.mark.parametrize("baseline_on_host", [False, True])
def test_every_quantity_equals_the_host(on_device, baseline_on_host):
    now, initial, previous = (matrix(seed) for seed in (1, 2, 3))
    keep = (lambda w: w) if baseline_on_host else on_device
    here = LayerWeights([now], initial=[initial], previous=[previous])
    there = LayerWeights([on_device(now)], initial=[keep(initial)], previous=[keep(previous)])
    quantities = [q for q in all_quantities() if q.family not in ("random matrix", "localisation")]
    expected, status = measure_quantities(here, quantities)
    found, found_status = measure_quantities(there, quantities)
    assert status == found_status == "ok"
    for name, value in expected.items():
        assert found[name] == (value if isinstance(value, str) else pytest.approx(value, rel=1e-6, nan_ok=True)), name
    assert spectral_density(there)["mp_plus"] == pytest.approx(spectral_density(here)["mp_plus"])


def test_small_values_are_resolved(on_device):
    w = np.diag(10.0 ** -np.arange(12.0))
    assert singular_values(on_device(w)) == pytest.approx(np.diag(w), rel=1e-3)


def test_non_finite_and_zero(on_device):
    w = matrix(0)
    assert measure_quantities(LayerWeights([on_device(0.0 * w)]), resolve("default"))[1] == "zero"
    w[3, 4] = np.nan
    assert measure_quantities(LayerWeights([on_device(w)]), resolve("default"))[1] == "non-finite"
