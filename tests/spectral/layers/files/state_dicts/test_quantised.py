"""Quantised weights: what the library that wrote them makes of them is what is measured."""

import json

import numpy as np
import pytest
import safetensors.torch
import torch

from ww_callbacks import spectral
from ww_callbacks.spectral.layers import inspect
from ww_callbacks.spectral.layers.files.stored_arrays import float8_values

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture
def folder(tmp_path):
    def save(tensors, **settings):
        safetensors.torch.save_file({k: v.contiguous() for k, v in tensors.items()}, tmp_path / "model.safetensors")
        (tmp_path / "config.json").write_text(json.dumps({"quantization_config": settings}))
        return tmp_path

    return save


def only(path):
    """The one row of ``path`` that is measured."""
    specs = inspect(path)
    (spec,) = [spec for spec in specs if not spec.skipped]
    assert all("ingredient" in s.skipped for s in specs if s is not spec)
    return spec


def assert_reads(path, stored_as, expected, shape=None):
    spec = only(path)
    assert spec.name.endswith("weight")
    assert spec.stored_as == stored_as
    np.testing.assert_allclose(spec.matrices()[0], expected.detach().float().numpy(), rtol=2e-6, atol=1e-7)


@pytest.mark.parametrize(
    "dtype", ["float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz", "float8_e5m2fnuz", "float8_e8m0fnu"]
)
def test_eight_bit_floats_have_torch_s_values(dtype):
    codes = torch.arange(256, dtype=torch.uint8).view(getattr(torch, dtype))
    np.testing.assert_array_equal(float8_values(dtype), codes.float().numpy())


@pytest.mark.parametrize("suffix", ["safetensors", "pt"])
@pytest.mark.parametrize(
    ("name", "scale", "stored_as"),
    [
        ("weight_scale_inv", torch.rand(3, 2), "FP8 (e4m3fn), blocks of 128×128"),
        ("weight_scale", torch.rand(300, 1), "FP8 (e4m3fn), a scale per row"),
        ("weight_scale", torch.rand(300).bfloat16(), "FP8 (e4m3fn), a scale per row"),
        ("weight_scale", torch.tensor(0.3), "FP8 (e4m3fn), one scale"),
        ("scale_weight", torch.rand(1), "FP8 (e4m3fn), one scale"),
    ],
)
def test_fp8_beside_its_scale(tmp_path, suffix, name, scale, stored_as):
    torch.manual_seed(0)
    codes = torch.randn(300, 200).to(torch.float8_e4m3fn)
    tensors = {"fc.weight": codes, f"fc.{name}": scale}
    path = tmp_path / f"model.{suffix}"
    (safetensors.torch.save_file if suffix == "safetensors" else torch.save)(tensors, path)
    wide = scale.float()
    if scale.shape == (3, 2):  # DeepSeek's last blocks are cut short
        wide = wide.repeat_interleave(128, 0).repeat_interleave(128, 1)[:300, :200]
    elif scale.numel() > 1:
        wide = wide.reshape(-1, 1)
    assert_reads(path, stored_as, codes.float() * wide)


def test_the_size_of_blocks_is_taken_from_the_configuration(folder):
    codes, scale = torch.randn(100, 100).to(torch.float8_e4m3fn), torch.rand(4, 4)
    path = folder({"fc.weight": codes, "fc.weight_scale_inv": scale}, weight_block_size=[32, 32])
    wide = scale.repeat_interleave(32, 0).repeat_interleave(32, 1)[:100, :100]
    assert_reads(path, "FP8 (e4m3fn), blocks of 32×32", codes.float() * wide)


@pytest.mark.parametrize("kind", ["nf4", "fp4"])
@pytest.mark.parametrize("nested", [True, False])
@pytest.mark.parametrize("storage", [torch.uint8, torch.bfloat16])
def test_four_bits_of_bitsandbytes(folder, kind, nested, storage):
    bnb = pytest.importorskip("bitsandbytes")
    layer = bnb.nn.Linear4bit(128, 70, bias=False)
    layer.weight = bnb.nn.Params4bit(
        torch.randn(70, 128), requires_grad=False, quant_type=kind, compress_statistics=nested, quant_storage=storage
    )
    layer = layer.to("cpu")
    expected = bnb.functional.dequantize_4bit(layer.weight.data, layer.weight.quant_state)
    assert_reads(
        folder({f"fc.{k}": v for k, v in layer.state_dict().items()}), f"{kind.upper()}, bitsandbytes", expected
    )


def test_eight_bits_of_bitsandbytes(folder):
    bnb = pytest.importorskip("bitsandbytes")
    layer = bnb.nn.Linear8bitLt(64, 32, bias=False, has_fp16_weights=False)
    weight = torch.randn(32, 64)
    layer.weight = bnb.nn.Int8Params(weight, requires_grad=False, has_fp16_weights=False)
    layer = layer.to("cpu")
    layer(torch.randn(2, 64))
    state = layer.state_dict()
    expected = state["weight"].float() * state["SCB"][:, None] / 127
    path = folder({f"fc.{k}": v for k, v in state.items() if k != "weight_format"})
    assert_reads(path, "INT8, a scale per row", expected)
    np.testing.assert_allclose(only(path).matrices()[0], weight, atol=0.05)


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("strategy", ["channel", "group"])
def test_packed_weights_of_compressed_tensors(folder, bits, symmetric, strategy):
    pytest.importorskip("compressed_tensors")
    from compressed_tensors.compressors.pack_quantized.helpers import pack_to_int32
    from compressed_tensors.quantization import QuantizationArgs
    from compressed_tensors.quantization.lifecycle.forward import dequantize, quantize

    torch.manual_seed(0)
    weight, size = torch.randn(24, 64), 16 if strategy == "group" else 64
    args = QuantizationArgs(
        num_bits=bits, symmetric=symmetric, strategy=strategy, group_size=16 if strategy == "group" else None
    )
    span = weight.reshape(24, -1, size).abs().amax(-1)
    scale = span / (1 << (bits - 1))
    zero = torch.zeros_like(scale) if symmetric else torch.randint(-3, 4, scale.shape).float()
    codes = quantize(weight, scale, zero, args, dtype=torch.int8)
    tensors = {
        "fc.weight_packed": pack_to_int32(codes, bits),
        "fc.weight_scale": scale,
        "fc.weight_shape": torch.tensor([24, 64]),
    }
    if not symmetric:
        tensors["fc.weight_zero_point"] = pack_to_int32(zero.to(torch.int8), bits, packed_dim=0)
    expected = dequantize(codes, scale, zero, args)
    assert_reads(folder(tensors), f"{bits} bits, compressed-tensors", expected)


def packed(codes, bits, axis, order=None):
    """Codes in 32-bit integers along ``axis``: the layout that GPTQ and AWQ document."""
    codes = np.moveaxis(codes, axis, -1)
    codes = codes.reshape(*codes.shape[:-1], -1, 32 // bits)[..., list(order or range(32 // bits))].astype(np.uint64)
    words = (codes << (np.arange(32 // bits, dtype=np.uint64) * np.uint64(bits))).sum(-1).astype(np.uint32)
    return torch.from_numpy(np.moveaxis(words, -1, axis).copy().view(np.int32))


@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("ordered", [True, False])
@pytest.mark.parametrize("version", ["gptq", "gptq_v2"])
def test_gptq(folder, bits, ordered, version):
    rng = np.random.default_rng(0)
    inputs, outputs, groups = 64, 32, 4
    codes = rng.integers(0, 1 << bits, (inputs, outputs))
    zeros = rng.integers(1, 1 << bits, (groups, outputs))
    scales = torch.rand(groups, outputs).half()
    group = np.arange(inputs) // (inputs // groups)
    group = group if ordered else rng.permutation(group)
    tensors = {
        "fc.qweight": packed(codes, bits, 0),
        "fc.qzeros": packed(zeros - (version == "gptq"), bits, 1),
        "fc.scales": scales,
        "fc.g_idx": torch.from_numpy(group.astype(np.int32)),
    }
    expected = torch.from_numpy(codes - zeros[group]).float() * scales.float()[group]
    assert_reads(folder(tensors, bits=bits, checkpoint_format=version), f"{bits} bits, GPTQ", expected.T)


def test_awq(folder):
    rng = np.random.default_rng(0)
    inputs, outputs, groups = 64, 32, 4
    codes, zeros = rng.integers(0, 16, (inputs, outputs)), rng.integers(0, 16, (groups, outputs))
    scales = torch.rand(groups, outputs).half()
    order = [0, 2, 4, 6, 1, 3, 5, 7]  # AutoAWQ's `order_map`: which output goes to which place
    tensors = {"fc.qweight": packed(codes, 4, 1, order), "fc.qzeros": packed(zeros, 4, 1, order), "fc.scales": scales}
    group = np.arange(inputs) // (inputs // groups)
    expected = torch.from_numpy(codes - zeros[group]).float() * scales.float()[group]
    assert_reads(folder(tensors, quant_method="awq", bits=4), "4 bits, AWQ", expected.T)


def test_nvfp4_of_compressed_tensors(folder):
    pytest.importorskip("compressed_tensors")
    from compressed_tensors.compressors.nvfp4.helpers import pack_fp4_to_uint8, unpack_fp4_from_uint8

    values = torch.tensor([0.0, 0.5, 1, 1.5, 2, 3, 4, 6, -0.5, -1, -1.5, -2, -3, -4, -6])
    weight = values[torch.randint(0, 15, (8, 32))].bfloat16()
    codes, scale, outer = pack_fp4_to_uint8(weight), torch.rand(8, 2).to(torch.float8_e4m3fn), torch.tensor([7.0])
    tensors = {"fc.weight_packed": codes, "fc.weight_scale": scale, "fc.weight_global_scale": outer}
    plain = unpack_fp4_from_uint8(codes, 8, 32).float()
    assert_reads(folder(tensors), "NVFP4", plain * (scale.float() / 7).repeat_interleave(16, 1))


def test_mxfp4_as_transformers_reads_it(folder):
    from transformers.integrations.mxfp4 import convert_moe_packed_tensors

    torch.manual_seed(0)
    tensors, expected = {}, {}
    for name, rows, groups in (("gate_up_proj", 64, 3), ("down_proj", 96, 1)):
        blocks = torch.randint(0, 256, (2, rows, groups, 16), dtype=torch.uint8)
        scales = torch.randint(120, 130, (2, rows, groups), dtype=torch.uint8)
        tensors |= {f"mlp.experts.{name}_blocks": blocks, f"mlp.experts.{name}_scales": scales}
        tensors[f"mlp.experts.{name}_bias"] = torch.rand(2, rows)
        expected[name] = convert_moe_packed_tensors(blocks, scales, dtype=torch.float32).numpy()
    found = {spec.name.removeprefix("mlp.experts."): spec for spec in inspect(folder(tensors)) if not spec.skipped}
    assert {spec.stored_as for spec in found.values()} == {"MXFP4"}
    for i in range(2):
        for half, cut in (("gate", slice(0, None, 2)), ("up", slice(1, None, 2))):  # they alternate in gpt-oss
            matrix = found[f"gate_up_proj[{i},{half}]"].matrices()[0]
            np.testing.assert_array_equal(matrix, expected["gate_up_proj"][i].T[cut])
        np.testing.assert_array_equal(found[f"down_proj[{i}]"].matrices()[0], expected["down_proj"][i].T)
    assert len(found) == 6


@pytest.mark.parametrize("kind", ["F32", "F16", "BF16", "Q8_0", "Q4_0", "Q4_1", "Q5_0"])
def test_gguf(tmp_path, kind):
    gguf = pytest.importorskip("gguf")
    rng = np.random.default_rng(0)
    number = gguf.GGMLQuantizationType[kind]
    weights = {
        "token_embd.weight": rng.standard_normal((40, 64)).astype(np.float32),
        "blk.0.attn_q.weight": rng.standard_normal((32, 64)).astype(np.float32),
        "blk.0.ffn_up_exps.weight": rng.standard_normal((2, 16, 64)).astype(np.float32),
    }
    writer = gguf.GGUFWriter(tmp_path / "model.gguf", "llama")
    writer.add_tensor("blk.0.attn_norm.weight", np.ones(64, np.float32))
    writer.add_tensor("rope_freqs.weight", np.ones(32, np.float32))
    stored = {name: gguf.quantize(weight, number) for name, weight in weights.items()}
    for name, data in stored.items():
        writer.add_tensor(name, data, raw_dtype=number)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    specs = {spec.name: spec for spec in inspect(tmp_path / "model.gguf") if not spec.skipped}
    plain = {name: gguf.dequantize(data, number) for name, data in stored.items()}
    assert specs.keys() == {*list(weights)[:2], "blk.0.ffn_up_exps.weight[0]", "blk.0.ffn_up_exps.weight[1]"}
    assert {spec.stored_as for spec in specs.values()} == {f"{kind}, GGUF" if kind.startswith("Q") else ""}
    np.testing.assert_array_equal(specs["blk.0.attn_q.weight"].matrices()[0], plain["blk.0.attn_q.weight"])
    np.testing.assert_array_equal(specs["token_embd.weight"].matrices()[0], plain["token_embd.weight"].T)
    second = specs["blk.0.ffn_up_exps.weight[1]"].matrices()[0]
    np.testing.assert_array_equal(second, plain["blk.0.ffn_up_exps.weight"][1])
    whole = (tmp_path / "model.gguf").read_bytes()
    for share in (0.01, 0.3, 0.9):
        (tmp_path / "cut.gguf").write_bytes(whole[: max(6, int(share * len(whole)))])
        with pytest.raises(ValueError, match=r"cut\.gguf is not a readable GGUF file"):
            inspect(tmp_path / "cut.gguf")


def test_integers_and_their_scales_that_go_together_with_nothing_are_left_out(folder):
    tensors = {
        "a.weight": torch.ones(6, 6, dtype=torch.int8),
        "b.qweight": torch.ones(6, 32, dtype=torch.int32),  # three bits a weight
        "b.scales": torch.rand(2, 32),
        "b.qzeros": torch.ones(2, 3, dtype=torch.int32),
        "c.weight": torch.rand(8, 8),
    }
    result = spectral.analyze(folder(tensors), "stable_rank")
    assert list(result.layers["layer"]) == ["c.weight"]
    assert "3.9 % of the weights are measured, 2 quantised arrays cannot be read" in result.heading()


def test_tables_say_what_was_dequantised(folder):
    tensors = {
        "a.weight": torch.randn(8, 8).to(torch.float8_e4m3fn),
        "a.weight_scale": torch.rand(8, 1),
        "b.weight": torch.rand(8, 8),
    }
    result = spectral.analyze(folder(tensors), "stable_rank")
    assert list(result.layers["stored_as"]) == ["FP8 (e4m3fn), a scale per row", ""]
    assert "1 dequantised" in result.heading()
    assert "stored_as" in result.shown()
    assert "stored_as" not in spectral.analyze({"b": np.eye(3)}, "stable_rank").layers
