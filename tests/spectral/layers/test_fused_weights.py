"""Slices of a fused parameter hold no more memory than they have values, in models and in files."""

import numpy as np
import onnx
import pytest
import safetensors.torch
import torch
from onnx import helper, numpy_helper
from torch import nn

from ww_callbacks.spectral.layers import inspect
from ww_callbacks.spectral.layers.matching import arrays_from
from ww_callbacks.spectral.layers.spec import LayerSpec

EXPERTS = 16


class Experts(nn.Module):
    """Fused as transformers fuses them: (experts, 2·out, in) and (experts, out, in)."""

    def __init__(self, dtype=torch.bfloat16):
        super().__init__()
        self.gate_up_proj = nn.Parameter(torch.randn(EXPERTS, 32, 24, dtype=dtype))
        self.down_proj = nn.Parameter(torch.randn(EXPERTS, 24, 16, dtype=dtype))


class Model(nn.Module):
    """Every kind of parameter that contains several layers."""

    def __init__(self, dtype=torch.bfloat16):
        super().__init__()
        torch.manual_seed(0)
        self.experts = Experts(dtype)
        self.attention = nn.MultiheadAttention(24, 2).to(dtype)
        self.lstm = nn.LSTM(24, 8).to(dtype)
        self.normed = nn.utils.parametrizations.weight_norm(nn.MultiheadAttention(24, 2), "in_proj_weight").to(dtype)


def memory_behind(array):
    """The bytes that an array keeps alive, and what tells them from those of others."""
    owner = array
    while isinstance(owner, np.ndarray) and owner.base is not None:
        owner = owner.base
    if isinstance(owner, torch.Tensor):
        storage = owner.untyped_storage()
        return storage.data_ptr(), storage.nbytes()
    return (owner.ctypes.data, owner.nbytes) if isinstance(owner, np.ndarray) else (id(array), 0)  # 0: a mapped file


def assert_held_once(layers: list[LayerSpec]) -> None:
    """All layers read at once hold one float32 copy of their elements, and not one of the fused whole each."""
    read = [array for spec in layers for array in spec.read()]
    held = dict(map(memory_behind, read))
    assert len(read) > 40 and sum(held.values()) <= 1.1 * sum(array.nbytes for array in read)


def fused(source):
    return [spec for spec in inspect(source) if not spec.skipped and spec.part]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_live_model_s_fused_weights_are_sliced_before_they_are_widened(dtype):
    assert_held_once(fused(Model(dtype)))


def test_a_float32_model_s_fused_weights_are_views_of_its_own_memory():
    model = Model(torch.float32)
    own = {p.untyped_storage().data_ptr() for p in model.parameters()}
    read = [(spec, array) for spec in fused(model) for array in spec.read()]
    assert all(memory_behind(array)[0] in own for spec, array in read if "normed" not in spec.name)
    assert_held_once([spec for spec in fused(model) if "normed" in spec.name] + fused(Model()))


def test_a_file_s_fused_weights_are_sliced_before_they_are_widened(tmp_path):
    model = Model()
    safetensors.torch.save_file(model.state_dict(), tmp_path / "model.safetensors")
    torch.save(model.state_dict(), tmp_path / "model.pt")
    live = {spec.name: spec.matrices() for spec in fused(model) if "normed" not in spec.name}
    for path in (tmp_path / "model.safetensors", tmp_path / "model.pt"):
        layers = fused(path)
        assert_held_once(layers)
        read = {spec.name: spec.matrices() for spec in layers}
        assert live.keys() <= read.keys()
        for name, matrices in live.items():
            np.testing.assert_array_equal(read[name], matrices)


def test_arrays_of_other_libraries_and_onnx_files_are_sliced_before_they_are_widened(tmp_path):
    rng = np.random.default_rng(0)
    half = rng.normal(size=(4 * 12, 24)).astype(np.float16)
    layers = fused({"lstm.weight_ih_l0": half, "lstm.weight_hh_l0": half[:, :12]})
    read = [array for spec in layers for array in spec.read()]
    assert len(read) == 8 and sum(dict(map(memory_behind, read)).values()) == sum(array.nbytes for array in read)
    experts = numpy_helper.from_array(rng.normal(size=(EXPERTS, 24, 16)).astype(np.float16), "experts")
    node = helper.make_node("MatMul", ["x", "experts"], ["y"])
    graph = helper.make_graph([node], "graph", [], [], [experts])
    onnx.save(helper.make_model(graph), tmp_path / "model.onnx")
    read = [array for spec in fused(tmp_path / "model.onnx") for array in spec.read()]
    assert len(read) == EXPERTS
    assert sum(dict(map(memory_behind, read)).values()) == sum(array.nbytes for array in read)


def test_a_baseline_is_read_when_a_layer_is_asked_for(tmp_path):
    model = Model()
    safetensors.torch.save_file(model.state_dict(), tmp_path / "model.safetensors")
    arrays = arrays_from(fused(model), tmp_path / "model.safetensors")
    name = f"experts.down_proj[{EXPERTS - 1}]"
    assert name in arrays and len(arrays) == len(list(arrays))
    (first,), (second,) = arrays[name], arrays[name]
    assert first is not second
    np.testing.assert_array_equal(first, model.experts.down_proj[-1].detach().float().numpy())
    assert memory_behind(first)[1] == first.nbytes
