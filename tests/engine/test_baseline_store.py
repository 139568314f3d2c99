"""W_0 on disk: layer after layer, in as many bits as the weights have, readable by others."""

import json
import weakref
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file
from safetensors.torch import load_file as load_torch
from torch import nn

from ww_callbacks.engine.baseline_store import Baseline
from ww_callbacks.engine.engine import Engine
from ww_callbacks.spectral.layers import inspect
from ww_callbacks.spectral.measuring.registry import resolve


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
def test_w0_takes_the_bits_of_the_weights_and_gives_back_their_values(tmp_path, dtype):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 48), nn.MultiheadAttention(32, 2), nn.Embedding(50, 16)).to(dtype)
    specs = [spec for spec in inspect(model) if not spec.skipped]
    engine = Engine(specs, resolve())
    baseline = Baseline.write(tmp_path, engine.initial(), specs)
    stored = sum(p.nbytes for p in model.parameters() if p.ndim > 1)
    assert stored < (tmp_path / "w0.safetensors").stat().st_size < stored + 10_000
    assert load_torch(tmp_path / "w0.safetensors")["0.weight"].dtype == dtype
    for spec in specs:
        for kept, again, now in zip(
            baseline.get(spec.name), Baseline.open(tmp_path).get(spec.name), spec.read(), strict=True
        ):
            assert kept.dtype == again.dtype == now.dtype
            np.testing.assert_array_equal(kept, now)
            np.testing.assert_array_equal(again, now)
    rows = engine.measure()
    assert all(row.values["update_norm"] != row.values["update_norm"] for row in rows)
    engine.baseline = baseline
    assert all(row.status == "ok" for row in engine.measure())
    kept = sum(a.array.nbytes for state in engine.states.values() for a in state.previous)
    assert kept == stored, "the weights of the last snapshot take the bits of the weights too"


def test_w0_is_written_one_layer_after_another(tmp_path):
    model = nn.Sequential(*(nn.Linear(40, 40) for _ in range(12))).bfloat16()
    specs = [spec for spec in inspect(model) if not spec.skipped]
    read, alive = [], []

    def watched(spec):
        def reading():
            alive.append(sum(array() is not None for array in read))
            arrays = spec.read()
            read.extend(map(weakref.ref, arrays))
            return arrays

        return replace(spec, read=reading)

    Baseline.write(tmp_path, Engine([watched(spec) for spec in specs], resolve()).initial(), specs)
    assert alive == [0] * 12, "the last layer's float32 copy is gone before the next one is made"


def test_a_w0_written_by_an_earlier_version_is_read(tmp_path):
    weights = np.arange(12, dtype=np.float32).reshape(3, 4)
    save_file({"a": weights}, tmp_path / "w0.safetensors", metadata={"layers": json.dumps({"a": ["a"]})})
    np.testing.assert_array_equal(Baseline.open(tmp_path).get("a")[0], weights)


def test_what_was_read_before_is_read_by_earlier_versions(tmp_path):
    """They know no bfloat16; float32 weights stay float32, and what is all zero may be float16."""
    model = nn.Linear(8, 8)
    with torch.no_grad():
        model.bias.zero_()
    lora = nn.Linear(8, 2, bias=False)
    nn.init.zeros_(lora.weight)
    specs = [spec for spec in inspect(nn.Sequential(model, lora)) if not spec.skipped]
    Baseline.write(tmp_path, Engine(specs, resolve()).initial(), specs)
    types = {name: array.dtype for name, array in load_file(tmp_path / "w0.safetensors").items()}
    assert types == {"0.weight": np.float32, "1.weight": np.float16}
