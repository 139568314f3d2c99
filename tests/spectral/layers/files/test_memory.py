"""Reading one part of a large packed tensor takes the memory of that part, in every format that can be cut."""

from __future__ import annotations

import os
import tracemalloc
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("KERAS_BACKEND", "torch")

import numpy as np
import pytest

from ww_callbacks.spectral.layers import inspect

EXPERTS, ROWS, COLUMNS = 16, 128, 256
WEIGHTS = np.random.default_rng(0).standard_normal((EXPERTS, ROWS, COLUMNS)).astype(np.float16)
CODES = np.random.default_rng(1).integers(-100, 100, WEIGHTS.shape).astype(np.int8)
SCALES = np.linspace(0.01, 0.02, EXPERTS * COLUMNS, dtype=np.float32).reshape(EXPERTS, 1, COLUMNS)


def onnx_file(folder: Path, external: bool = False, scaled: str = "") -> tuple[Path, np.ndarray]:
    onnx = pytest.importorskip("onnx", reason="needs the extra onnx")
    from onnx import TensorProto, helper, numpy_helper

    kind = TensorProto.FLOAT if scaled else TensorProto.FLOAT16
    given = [numpy_helper.from_array(CODES, "q"), numpy_helper.from_array(SCALES, "s")]
    before = {
        "": [],
        "Mul": [helper.make_node("Cast", ["q"], ["c"], to=kind), helper.make_node("Mul", ["c", "s"], ["w"])],
        "DequantizeLinear": [helper.make_node("DequantizeLinear", ["q", "s"], ["w"], axis=1, block_size=ROWS)],
    }[scaled]
    graph = helper.make_graph(
        [*before, helper.make_node("MatMul", ["x", "w"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", kind, (EXPERTS, 2, ROWS))],
        [helper.make_tensor_value_info("y", kind, None)],
        given if scaled else [numpy_helper.from_array(WEIGHTS, "w")],
    )
    options = {"save_as_external_data": True, "size_threshold": 0, "location": "model.data"} if external else {}
    onnx.save(helper.make_model(graph), folder / "model.onnx", **options)
    right = CODES.astype(np.float32) * SCALES if scaled else WEIGHTS.astype(np.float32)
    return folder / "model.onnx", right.transpose(0, 2, 1)


def gguf_file(folder: Path, kind: str = "Q8_0") -> tuple[Path, np.ndarray]:
    gguf = pytest.importorskip("gguf", reason="needs the extra gguf")
    type_ = gguf.GGMLQuantizationType[kind]
    data = gguf.quantize(WEIGHTS.astype(np.float32), type_)
    writer = gguf.GGUFWriter(str(folder / "model.gguf"), "llama")
    writer.add_tensor("blk.0.ffn_gate_exps.weight", data, raw_dtype=type_)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return folder / "model.gguf", gguf.dequantize(data, type_)


def keras_file(folder: Path, name: str = "model.keras") -> tuple[Path, np.ndarray]:
    keras = pytest.importorskip("keras", reason="needs the extra keras")
    layer = keras.layers.LSTM(512, use_bias=False)
    model = keras.Sequential([keras.Input((2, 512)), layer])
    for variable in layer.weights:  # the same for both kernels
        variable.assign(np.random.default_rng(0).standard_normal(variable.shape).astype(np.float32))
    (model.save if name.endswith(".keras") else model.save_weights)(folder / name)
    return folder / name, np.array(layer.weights[0]).T.reshape(4, 512, 512)


def experts_in_fp8(folder: Path, scale: tuple[int, ...]) -> tuple[Path, np.ndarray]:
    torch = pytest.importorskip("torch", reason="needs torch")
    from safetensors.torch import save_file

    codes = torch.from_numpy(WEIGHTS.astype(np.float32)).to(torch.float8_e4m3fn)
    scales = torch.from_numpy(np.random.default_rng(2).uniform(0.01, 0.02, scale).astype(np.float32))
    tensors = {"experts.up_proj": codes, "experts.up_proj_scale_inv": scales}
    save_file(tensors, folder / "model.safetensors")
    blocks = [-(-size // count) for size, count in zip(WEIGHTS.shape, (*scale, *(1,) * (3 - len(scale))), strict=True)]
    wide = scales.numpy().reshape(*scale, *(1,) * (3 - len(scale)))
    for axis, block in enumerate(blocks):
        wide = np.repeat(wide, block, axis=axis)
    return folder / "model.safetensors", codes.float().numpy() * wide


def experts_in_mxfp4(folder: Path) -> tuple[Path, np.ndarray]:
    from safetensors.numpy import save_file

    rng = np.random.default_rng(0)
    blocks = rng.integers(0, 256, (EXPERTS, ROWS, COLUMNS // 32, 16), dtype=np.uint8)
    scales = rng.integers(120, 130, blocks.shape[:-1], dtype=np.uint8)
    save_file(
        {"mlp.experts.down_proj_blocks": blocks, "mlp.experts.down_proj_scales": scales}, folder / "m.safetensors"
    )
    codes = np.stack([blocks & 15, blocks >> 4], axis=-1).reshape(*scales.shape, 32)
    values = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6, -0.0, -0.5, -1, -1.5, -2, -3, -4, -6], np.float32)[codes]
    return folder / "m.safetensors", (values * 2.0 ** (scales[..., None].astype(np.float32) - 127)).reshape(
        WEIGHTS.shape
    ).transpose(0, 2, 1)


SLICED: dict[str, Callable[[Path], tuple[Path, np.ndarray]]] = {
    "ONNX, other file": lambda folder: onnx_file(folder, external=True),
    "GGUF, Q8_0": gguf_file,
    "GGUF, F16": lambda folder: gguf_file(folder, "F16"),
    "GGUF, BF16": lambda folder: gguf_file(folder, "BF16"),
    "FP8, a scale per expert": lambda folder: experts_in_fp8(folder, (EXPERTS,)),
    "FP8, a scale per row": lambda folder: experts_in_fp8(folder, (EXPERTS, ROWS, 1)),
    "FP8, blocks of 128": lambda folder: experts_in_fp8(folder, (EXPERTS, ROWS // 128, COLUMNS // 128)),
    "MXFP4": experts_in_mxfp4,
    "Keras": keras_file,
    "Keras, HDF5": lambda folder: keras_file(folder, "model.weights.h5"),
}
WHOLE: dict[str, Callable[[Path], tuple[Path, np.ndarray]]] = {
    "ONNX": onnx_file,
    "ONNX, Cast and Mul": lambda folder: onnx_file(folder, scaled="Mul"),
    "ONNX, DequantizeLinear": lambda folder: onnx_file(folder, scaled="DequantizeLinear"),
}


@pytest.mark.parametrize("name", [*SLICED, *WHOLE])
def test_a_part_of_a_packed_tensor(name, tmp_path):
    """In float32: a part alone where the file can be cut, and otherwise the tensor once, beside the stored bytes.

    A part is converted and transposed; all 16 together would be four times the bound.
    """
    path, right = {**SLICED, **WHOLE}[name](tmp_path)
    specs = [spec for spec in inspect(path) if not spec.skipped][: len(right)]
    assert len(specs) == len(right)
    np.testing.assert_array_equal(specs[0].matrices()[0], right[0])  # what is loaded on first use is not counted
    tracemalloc.start()
    try:
        for spec, part in zip(specs, right, strict=True):
            (matrix,) = spec.matrices()
            np.testing.assert_array_equal(matrix, part)
            del matrix
        kept, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    part, tensor = right[0].size * 4, right.size * 4
    comparison = 2 * part  # NumPy's, above
    assert peak < (3 * part if name in SLICED else 1.3 * tensor + part) + comparison
    assert kept < part, "nothing of it is kept"
