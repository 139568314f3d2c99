"""Weights on an accelerator: the parts that run anywhere on CPU tensors, and the whole on CUDA where there is one."""

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs torch")
from torch import nn

import ww_callbacks.engine.accelerator as accelerator
from ww_callbacks.engine.accelerator import HostCopies, placed, tensor_digest
from ww_callbacks.engine.baseline_store import Baseline
from ww_callbacks.engine.engine import Engine
from ww_callbacks.spectral.layers import inspect
from ww_callbacks.spectral.measuring.registry import resolve

cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.int8])
def test_the_digest_tells_any_single_change(dtype):
    tensor = torch.randint(-100, 100, (37, 41), generator=torch.Generator().manual_seed(0)).to(dtype)
    before = tensor_digest(tensor)
    assert before == tensor_digest(tensor.clone()) and len(before) == 16
    seen = {before}
    for place in range(0, tensor.numel(), 7):
        changed = tensor.clone()
        changed.view(-1)[place] += 1
        seen.add(tensor_digest(changed))
    assert len(seen) == 1 + len(range(0, tensor.numel(), 7))
    assert tensor_digest(tensor.T) != before, "order counts"


def test_the_digest_does_not_depend_on_the_chunks(monkeypatch):
    tensor = torch.randn(1000, generator=torch.Generator().manual_seed(0))
    whole = tensor_digest(tensor)
    monkeypatch.setattr(accelerator, "_CHUNK", 64)
    assert tensor_digest(tensor) == whole


def test_swapped_elements_change_the_digest():
    tensor = torch.randn(500, generator=torch.Generator().manual_seed(0))
    swapped = tensor.clone()
    swapped[[3, 400]] = tensor[[400, 3]]
    assert tensor_digest(tensor) != tensor_digest(swapped)


def test_copies_stay_what_they_were_and_use_their_memory_again():
    copies, array = HostCopies(), np.arange(6.0)
    (first,) = copies.take("a", [array])
    array += 1
    copies.wait()
    np.testing.assert_array_equal(first.array, np.arange(6.0))
    (second,) = copies.take("a", [array])
    assert second.array is first.array
    (other,) = copies.take("a", [np.arange(8.0)])
    assert other.array.shape == (8,)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_copies_of_half_precision_take_16_bits(dtype):
    model = nn.Linear(40, 30, bias=False).to(dtype)
    engine = Engine([s for s in inspect(model) if not s.skipped], resolve())
    before = model.weight.detach().float().numpy().copy()
    capture = engine.capture(HostCopies())
    with torch.no_grad():
        model.weight.mul_(2.0)
    (kept,) = capture.arrays["weight"]
    assert kept.array.nbytes == 2 * before.size
    (read,) = capture.read("weight")
    np.testing.assert_array_equal(read, before)
    assert engine.measure(capture)[0].status == "ok"


def measured(model, folder):
    specs = [s for s in inspect(model) if not s.skipped]
    engine = Engine(specs, resolve())
    folder.mkdir()
    arrays = {name: a for name, a in engine.capture().arrays.items() if not isinstance(a, Exception)}
    engine.baseline = Baseline.write(folder, arrays, specs)
    engine.measure()
    with torch.no_grad():
        model[0].weight.mul_(1.5)
    return engine.measure()


@cuda
def test_the_values_on_cuda_are_those_of_the_host(tmp_path):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(700, 500), nn.Linear(500, 40))
    on_device = nn.Sequential(nn.Linear(700, 500), nn.Linear(500, 40))
    on_device.load_state_dict(model.state_dict())
    host = measured(model, tmp_path / "host")
    for a, b in zip(host, measured(on_device.cuda(), tmp_path / "cuda"), strict=True):
        assert (a.layer, a.status, a.changed) == (b.layer, b.status, b.changed)
        for name, value in a.values.items():
            if isinstance(value, str):
                assert b.values[name] == value
            else:
                np.testing.assert_allclose(b.values[name], value, rtol=1e-6, atol=1e-12, err_msg=name)


@cuda
def test_large_layers_stay_on_the_device_and_small_ones_do_not():
    large, small = placed([torch.zeros(512, 512, device="cuda"), torch.zeros(20, 512, device="cuda")])
    assert large.is_cuda and isinstance(small, np.ndarray)


@cuda
def test_a_copy_from_cuda_is_of_its_moment():
    copies, weight = HostCopies(), torch.ones(4096, 4096, device="cuda")
    (copy,) = copies.take("w", [weight])
    weight.zero_()
    copies.wait()
    assert copy.array.min() == 1.0
