"""PEFT's real adapters: the update and the merged weight, against PEFT's own."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

from ww_callbacks.spectral.layers import inspect

peft = pytest.importorskip("peft")
transformers = pytest.importorskip("transformers")


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(11, 6)
        self.dense = nn.Linear(6, 4)
        self.conv = nn.Conv2d(3, 5, 3)
        self.gpt2 = transformers.pytorch_utils.Conv1D(8, 4)
        self.other = nn.Linear(4, 4)

    def forward(self, x):
        return self.other(self.dense(self.embed(x)))


def adapted(**options):
    torch.manual_seed(0)
    config = peft.LoraConfig(
        r=2, lora_alpha=6, init_lora_weights=False, target_modules=["embed", "dense", "conv", "gpt2"], **options
    )
    return peft.get_peft_model(Net(), config)


def by_name(model):
    return {spec.name: spec for spec in inspect(model)}


PREFIX = "base_model.model."
LAYERS = ("embed", "dense", "conv", "gpt2")


def arranged_as(spec, weight):
    return spec.arrange([weight.detach().numpy()])


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("options", [{}, {"use_rslora": True}])
def test_update_and_merged_weight_are_peft_s(options):
    model = adapted(**options)
    specs = by_name(model)
    layers = {name: model.get_submodule(PREFIX + name) for name in LAYERS}
    for name, layer in layers.items():
        update = specs[f"{PREFIX}{name}.lora_update[default]"]
        merged = specs[f"{PREFIX}{name}.merged_weight"]
        delta = layer.get_delta_weight("default")
        for got, wanted in (
            (update.matrices(), arranged_as(update, delta)),
            (merged.matrices(), arranged_as(merged, layer.base_layer.weight + delta)),
        ):
            np.testing.assert_allclose(got[0], wanted[0], rtol=1e-5, atol=1e-6)
        assert update.kind == merged.kind == "lora"
        assert np.linalg.matrix_rank(update.matrices()[0]) == 2 or name == "conv"
        assert specs[f"{PREFIX}{name}.base_layer.weight"].skipped == f"the frozen base of `{merged.name}`"
    assert specs[f"{PREFIX}gpt2.merged_weight"].matrix_shapes == ((8, 4),)  # stored (in, out), measured (out, in)
    assert specs[f"{PREFIX}embed.merged_weight"].matrix_shapes == ((6, 11),)
    assert not specs[f"{PREFIX}other.weight"].skipped


@pytest.mark.filterwarnings("ignore")
def test_every_parameter_is_accounted_for():
    model = adapted()
    named = {p for spec in inspect(model) for p in spec.parameters}
    assert named == {name for name, _ in model.named_parameters()}


@pytest.mark.filterwarnings("ignore")
def test_the_merged_weight_is_the_same_after_merging():
    model = adapted()
    before = {name: spec.matrices() for name, spec in by_name(model).items() if name.endswith("merged_weight")}
    model.merge_adapter()
    for name, matrices in before.items():
        np.testing.assert_allclose(by_name(model)[name].matrices()[0], matrices[0], rtol=1e-5, atol=1e-6)
    alone = copy.deepcopy(model).merge_and_unload()
    for name in LAYERS:
        (spec,) = [s for s in inspect(alone) if s.name == f"{name}.weight"]
        np.testing.assert_allclose(spec.matrices()[0], before[f"{PREFIX}{name}.merged_weight"][0], rtol=1e-5, atol=1e-6)


@pytest.mark.filterwarnings("ignore")
def test_only_adapters_in_use_are_merged():
    model = adapted()
    model.add_adapter("second", peft.LoraConfig(r=3, lora_alpha=3, init_lora_weights=False, target_modules=["dense"]))
    name = f"{PREFIX}dense"
    layer = model.get_submodule(name)
    update = by_name(model)[f"{name}.lora_update[second]"].matrices()[0]
    np.testing.assert_allclose(update, layer.get_delta_weight("second").detach().numpy(), rtol=1e-5, atol=1e-6)
    for active in ("default", "second"):
        model.set_adapter(active)
        merged = by_name(model)[f"{name}.merged_weight"]
        wanted = (layer.base_layer.weight + layer.get_delta_weight(active)).detach().numpy()
        np.testing.assert_allclose(merged.matrices()[0], wanted, rtol=1e-5, atol=1e-6)
        assert merged.note.endswith(active)
    with model.disable_adapter():
        np.testing.assert_array_equal(merged.matrices()[0], layer.base_layer.weight.detach().numpy())


@pytest.mark.filterwarnings("ignore")
def test_dora_keeps_the_learned_length():
    torch.manual_seed(0)
    config = peft.LoraConfig(r=2, lora_alpha=6, use_dora=True, init_lora_weights=False, target_modules=["dense"])
    model = peft.get_peft_model(Net(), config)
    with torch.no_grad():
        model.get_submodule(f"{PREFIX}dense").lora_magnitude_vector["default"].weight.mul_(1.5)
    merged = by_name(model)[f"{PREFIX}dense.merged_weight"].matrices()[0]
    alone = copy.deepcopy(model).merge_and_unload()
    np.testing.assert_allclose(merged, alone.dense.weight.detach().numpy(), rtol=1e-5, atol=1e-6)
    assert {p for s in inspect(model) for p in s.parameters} == {n for n, _ in model.named_parameters()}


@pytest.mark.filterwarnings("ignore")
def test_half_precision_factors_are_not_touched():
    model = adapted().to(torch.bfloat16)
    pointers = {name: (p.data_ptr(), p.dtype) for name, p in model.named_parameters()}
    for spec in inspect(model):
        if not spec.skipped:
            assert all(m.dtype == np.float32 for m in spec.matrices())
    assert {name: (p.data_ptr(), p.dtype) for name, p in model.named_parameters()} == pointers


@pytest.mark.filterwarnings("ignore")
def test_a_packed_projection_s_update_is_split_as_the_weight_is():
    config = transformers.GPT2Config(n_layer=1, n_head=2, n_embd=8, vocab_size=20, bos_token_id=0, eos_token_id=0)
    model = peft.get_peft_model(
        transformers.GPT2LMHeadModel(config),
        peft.LoraConfig(r=2, target_modules=["c_attn"], fan_in_fan_out=True, init_lora_weights=False),
    )
    name = f"{PREFIX}transformer.h.0.attn.c_attn"
    layer = model.get_submodule(name)
    specs = by_name(model)
    merged = (layer.base_layer.weight + layer.get_delta_weight("default")).detach().numpy()
    for label, columns in zip("qkv", np.split(merged, 3, axis=1), strict=True):
        np.testing.assert_allclose(
            specs[f"{name}.merged_weight[{label}]"].matrices()[0], columns.T, rtol=1e-5, atol=1e-6
        )
        assert f"{name}.lora_update[default,{label}]" in specs


@pytest.mark.filterwarnings("ignore")
def test_adapters_of_fused_experts_are_named_with_the_reason():
    config = transformers.MixtralConfig(
        num_hidden_layers=1, hidden_size=8, num_attention_heads=2, num_key_value_heads=1, intermediate_size=6,
        vocab_size=20, num_local_experts=2,
    )  # fmt: skip
    model = peft.get_peft_model(
        transformers.MixtralForCausalLM(config),
        peft.LoraConfig(
            r=2, target_modules=[], target_parameters=["mlp.experts.gate_up_proj", "mlp.experts.down_proj"]
        ),
    )
    specs = inspect(model)
    assert {p for s in specs for p in s.parameters} == {n for n, _ in model.named_parameters()}
    assert sum(s.kind == "experts" and not s.skipped for s in specs) == 6
    assert all("no `weight`" in s.skipped for s in specs if s.kind == "lora")
