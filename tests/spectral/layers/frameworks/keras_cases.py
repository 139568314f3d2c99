"""Builds Keras layers with given weights on the backend of this process and writes what is inspected.

Run as ``python keras_cases.py WEIGHTS.npz OUT.npz`` with ``KERAS_BACKEND`` set; the weights are ``case/index`` arrays.
"""

import json
import sys

import numpy as np

from ww_callbacks.spectral.layers import inspect


def cases():
    """Name → a model or layer that is built."""
    import keras

    L = keras.layers
    image, sequence = keras.Input((8, 8, 4)), keras.Input((5, 6))
    attention = L.MultiHeadAttention(2, 3, name="mha")
    built = {
        "dense": (L.Dense(5), (None, 6)),
        "conv2d": (L.Conv2D(6, (3, 2)), (None, 8, 8, 4)),
        "conv1d": (L.Conv1D(6, 3), (None, 8, 4)),
        "conv3d": (L.Conv3D(6, (1, 2, 3)), (None, 4, 4, 4, 4)),
        "grouped": (L.Conv2D(6, 3, groups=2), (None, 8, 8, 4)),
        "transposed": (L.Conv2DTranspose(6, (3, 2)), (None, 8, 8, 4)),
        "depthwise": (L.DepthwiseConv2D(3, depth_multiplier=2), (None, 8, 8, 4)),
        "separable": (L.SeparableConv2D(5, 3, depth_multiplier=2), (None, 8, 8, 4)),
        "embedding": (L.Embedding(11, 6), None),
        "lstm": (L.LSTM(5), (None, 7, 6)),
        "gru": (L.GRU(5), (None, 7, 6)),
        "rnn": (L.SimpleRNN(5), (None, 7, 6)),
        "convlstm": (L.ConvLSTM2D(3, 2), (None, 4, 8, 8, 4)),
        "norm": (L.BatchNormalization(), (None, 6)),
    }
    for name, (layer, shape) in built.items():
        layer.name = name
        layer.build(shape)
        yield name, layer
    nested = keras.Sequential([keras.Input((5, 6)), L.Dense(5, name="inner")], name="nested")
    x = attention(sequence, sequence)
    yield "attention", keras.Model(sequence, nested(x), name="attention")
    yield "image", keras.Model(image, L.Dense(2)(L.Flatten()(L.Conv2D(3, 3)(image))), name="image")
    half = L.Dense(5, dtype="bfloat16", name="half")
    half.build((None, 6))
    yield "half", half


def adapted():
    """Layers with LoRA and int8 weights, with the arrays that they must amount to."""
    import keras

    L = keras.layers
    for name, layer, shape in (
        ("dense", L.Dense(5), (None, 6)),
        ("einsum", L.EinsumDense("abc,cde->abde", (None, 2, 3)), (None, 4, 6)),
        ("embedding", L.Embedding(11, 6), None),
        ("conv", L.Conv2D(5, 3), (None, 8, 8, 4)),
    ):
        layer.name = f"lora_{name}"
        layer.build(shape)
        layer.enable_lora(2, lora_alpha=6)
        stem = "embeddings" if name == "embedding" else "kernel"
        b = getattr(layer, f"lora_{stem}_b")
        b.assign(np.random.default_rng(1).standard_normal(b.shape))
        yield f"lora_{name}", layer, np.asarray(keras.ops.convert_to_numpy(getattr(layer, stem)))
    for name, layer, shape in (
        ("dense", L.Dense(5), (None, 6)),
        ("einsum", L.EinsumDense("abc,cde->abde", (None, 2, 3)), (None, 4, 6)),
        ("output", L.EinsumDense("abcd,cde->abe", (None, 6)), (None, 4, 2, 3)),
        ("embedding", L.Embedding(11, 6), None),
    ):
        layer.name = f"int8_{name}"
        layer.build(shape)
        stem = "embeddings" if name == "embedding" else "kernel"
        before = np.array(keras.ops.convert_to_numpy(getattr(layer, stem)))
        layer.quantize("int8")
        yield f"int8_{name}", layer, before


def row(spec):
    """What the tests look at."""
    return {
        "kind": spec.kind, "type": spec.type, "shape": spec.shape, "matrices": spec.matrix_shapes, "note": spec.note,
        "skipped": spec.skipped, "parameters": spec.parameters,
    }  # fmt: skip


def main(weights_file, out_file):
    """Write every matrix as ``case|convolution|layer|index`` and all else as JSON under ``info``."""
    import keras

    L = keras.layers
    given = np.load(weights_file)
    arrays, info = {}, {"backend": keras.backend.backend(), "cases": {}, "adapted": {}}
    for name, model in cases():
        model.set_weights([given[f"{name}/{i}"] for i in range(len(model.weights))])
        for convolution in (
            ("matrix", "slices", "separate", "weightwatcher")
            if "conv" in name or name in ("grouped", "transposed")
            else ("matrix",)
        ):
            specs = inspect(model, convolution)
            info["cases"].setdefault(name, {})[convolution] = {s.name: row(s) for s in specs}
            for spec in specs:
                for i, matrix in enumerate(() if spec.skipped else spec.matrices()):
                    assert isinstance(matrix, np.ndarray)
                    arrays[f"{name}|{convolution}|{spec.name}|{i}"] = matrix
    for name, layer, whole in adapted():
        info["adapted"][name] = {s.name: row(s) for s in inspect(layer)}
        arrays[f"{name}|whole"] = whole
        for spec in inspect(layer):
            if not spec.skipped:
                arrays[f"{name}|{spec.name}"] = np.concatenate(spec.matrices())
    quantised = L.Dense(5, name="int4")
    quantised.build((None, 6))
    quantised.quantize("int4")
    info["int4"] = {s.name: row(s) for s in inspect(quantised)}
    info["unbuilt"] = {s.name: row(s) for s in inspect(keras.Sequential([L.Dense(3, name="later"), L.Dropout(0.5)]))}
    if info["backend"] == "torch":
        import torch

        inner = keras.Sequential([keras.Input((6,)), L.Dense(5, name="inner")], name="inside")
        outer = torch.nn.Sequential(torch.nn.Linear(6, 6), torch.nn.ModuleDict({"keras": inner}))
        info["mixed"] = {s.name: row(s) for s in inspect(outer)}
    for dtype in ("bfloat16",) if info["backend"] == "torch" else ("bfloat16", "float32"):
        packed = L.LSTM(5, recurrent_initializer="glorot_uniform", dtype=dtype)
        packed.build((None, 7, 6))
        gates = [array for s in inspect(packed) if not s.skipped for array in s.read()]
        owners = [array if array.base is None else array.base for array in gates]
        owned = sum(owner.untyped_storage().nbytes() if hasattr(owner, "numpy") else owner.nbytes for owner in owners)
        assert len(gates) == 8 and owned == sum(array.nbytes for array in gates), "a gate keeps the others alive"
    info["torch"] = "torch" in sys.modules
    np.savez(out_file, info=json.dumps(info), **arrays)


if __name__ == "__main__":
    main(*sys.argv[1:])
