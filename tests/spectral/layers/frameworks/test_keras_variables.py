"""Keras on torch and on jax, each in a separate process, against torch modules with the same weights."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from ww_callbacks.spectral.layers import inspect
from ww_callbacks.spectral.linalg.spectrum import singular_values

if importlib.util.find_spec("keras") is None:  # importing it here would bind this process to one backend
    pytest.skip("keras is not installed", allow_module_level=True)
ROOT = Path(__file__).parents[4]
RNG = np.random.default_rng(0)

# Shapes of the weights in each case, in the order of Keras's `layer.weights`.
SHAPES = {
    "dense": [(6, 5), (5,)],
    "conv2d": [(3, 2, 4, 6), (6,)],
    "conv1d": [(3, 4, 6), (6,)],
    "conv3d": [(1, 2, 3, 4, 6), (6,)],
    "grouped": [(3, 3, 2, 6), (6,)],
    "transposed": [(3, 2, 6, 4), (6,)],
    "depthwise": [(3, 3, 4, 2), (8,)],
    "separable": [(3, 3, 4, 2), (1, 1, 8, 5), (5,)],
    "embedding": [(11, 6)],
    "lstm": [(6, 20), (5, 20), (20,)],
    "gru": [(6, 15), (5, 15), (2, 15)],
    "rnn": [(6, 5), (5, 5), (5,)],
    "convlstm": [(2, 2, 4, 12), (2, 2, 3, 12), (12,)],
    "norm": [(6,)] * 4,
    "attention": [(6, 2, 3), (2, 3), (6, 2, 3), (2, 3), (6, 2, 3), (2, 3), (2, 3, 6), (6,), (6, 5), (5,)],
    "image": [(3, 3, 4, 3), (3,), (108, 2), (2,)],
    "half": [(6, 5), (5,)],
}


def run(backend, folder, weights):
    out = folder / f"{backend}.npz"
    environment = {**os.environ, "KERAS_BACKEND": backend, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(Path(__file__).with_name("keras_cases.py")), str(weights), str(out)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr[-3000:]
    arrays = dict(np.load(out))
    return json.loads(str(arrays.pop("info"))), arrays


@pytest.fixture(scope="module")
def weights():
    return {
        f"{name}/{i}": RNG.standard_normal(shape).astype(np.float32)
        for name, shapes in SHAPES.items()
        for i, shape in enumerate(shapes)
    }


@pytest.fixture(scope="module")
def backends(tmp_path_factory, weights):
    folder = tmp_path_factory.mktemp("keras")
    np.savez(folder / "weights.npz", **weights)
    found = {}
    for backend in ("torch", "jax"):
        try:
            __import__(backend)
        except ImportError:
            continue
        found[backend] = run(backend, folder, folder / "weights.npz")
    return found


@pytest.fixture(params=["torch", "jax"])
def keras_side(request, backends):
    if request.param not in backends:
        pytest.skip(f"{request.param} is not installed")
    return backends[request.param]


def test_both_backends_give_the_same_bits(backends):
    if len(backends) < 2:
        pytest.skip("needs torch and jax")
    (here, these), (there, those) = backends["torch"], backends["jax"]
    assert here["cases"] == there["cases"]
    assert these.keys() == those.keys()
    for name in these:
        if "|whole" not in name and "lora" not in name and "int8" not in name:
            np.testing.assert_array_equal(these[name], those[name])


def test_jax_needs_no_torch(backends):
    if "jax" not in backends:
        pytest.skip("jax is not installed")
    assert backends["jax"][0]["torch"] is False


def torch_twin(name, given):
    """The torch layer that computes the same, and the names of its parameters in Keras."""
    w = [torch.from_numpy(a) for a in given]
    if name == "dense":
        layer, values = nn.Linear(6, 5), {"weight": ("kernel", w[0].T)}
    elif name.startswith("conv") and name != "convlstm":
        sizes = tuple(w[0].shape[:-2])
        layer = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}[len(sizes)](4, 6, sizes)
        values = {"weight": ("kernel", w[0].permute(-1 % w[0].ndim, -2 % w[0].ndim, *range(len(sizes))))}
    elif name == "grouped":
        layer, values = nn.Conv2d(4, 6, 3, groups=2), {"weight": ("kernel", w[0].permute(3, 2, 0, 1))}
    elif name == "transposed":
        layer, values = nn.ConvTranspose2d(4, 6, (3, 2)), {"weight": ("kernel", w[0].permute(3, 2, 0, 1))}
    elif name == "depthwise":
        layer = nn.Conv2d(4, 8, 3, groups=4)
        values = {"weight": ("kernel", w[0].permute(2, 3, 0, 1).reshape(8, 1, 3, 3))}
    elif name == "embedding":
        layer, values = nn.Embedding(11, 6), {"weight": ("embeddings", w[0])}
    elif name == "lstm":
        layer = nn.LSTM(6, 5)
        values = {"weight_ih_l0": ("lstm_cell/kernel", w[0].T), "weight_hh_l0": ("lstm_cell/recurrent_kernel", w[1].T)}
    elif name == "gru":  # Keras stores update, reset, new; torch reset, update, new
        layer = nn.GRU(6, 5)
        order = torch.cat([torch.arange(5, 10), torch.arange(0, 5), torch.arange(10, 15)])
        values = {
            "weight_ih_l0": ("gru_cell/kernel", w[0].T[order]),
            "weight_hh_l0": ("gru_cell/recurrent_kernel", w[1].T[order]),
        }
    else:
        layer = nn.RNN(6, 5)
        values = {
            "weight_ih_l0": ("simple_rnn_cell/kernel", w[0].T),
            "weight_hh_l0": ("simple_rnn_cell/recurrent_kernel", w[1].T),
        }
    with torch.no_grad():
        for parameter, (_, value) in values.items():
            getattr(layer, parameter).copy_(value)
    return layer, {parameter: path for parameter, (path, _) in values.items()}


TWINS = ("dense", "conv1d", "conv2d", "conv3d", "grouped", "transposed", "depthwise", "embedding", "lstm", "gru", "rnn")


@pytest.mark.parametrize("name", TWINS)
def test_the_same_weights_give_the_same_bits_as_in_torch(keras_side, weights, name):
    info, arrays = keras_side
    layer, paths = torch_twin(name, [weights[f"{name}/{i}"] for i in range(len(SHAPES[name]))])
    compared = 0
    for convolution in info["cases"][name]:
        for spec in inspect(layer, convolution):
            if spec.skipped:
                continue
            stem, bracket, part = spec.name.partition("[")
            other = f"{name}/{paths[stem]}{bracket}{part}"
            for i, matrix in enumerate(spec.matrices()):
                twin = arrays[f"{name}|{convolution}|{other}|{i}"]
                np.testing.assert_array_equal(matrix, twin)
                assert matrix.flags.c_contiguous == twin.flags.c_contiguous
                np.testing.assert_array_equal(singular_values(matrix), singular_values(twin))
                compared += 1
    assert compared


def test_attention_is_split_by_projection_as_in_torch(keras_side, weights):
    info, arrays = keras_side
    rows = {path: row for path, row in info["cases"]["attention"]["matrix"].items() if not row["skipped"]}
    assert [path.rsplit("/", 2)[-2] for path in rows] == ["query", "key", "value", "attention_output", "inner"]
    assert [row["kind"] for row in rows.values()] == ["attention"] * 4 + ["dense"]
    query = np.concatenate(
        [weights["attention/0"].reshape(6, 6).T, *(weights[f"attention/{i}"].reshape(6, 6).T for i in (2, 4))]
    )
    twin = nn.MultiheadAttention(6, 2)
    with torch.no_grad():
        twin.in_proj_weight.copy_(torch.from_numpy(query))
        twin.out_proj.weight.copy_(torch.from_numpy(weights["attention/6"].reshape(6, 6).T))
    expected = [spec.matrices()[0] for spec in inspect(twin) if not spec.skipped]
    for path, matrix in zip(list(rows)[:4], expected, strict=True):
        np.testing.assert_array_equal(arrays[f"attention|matrix|{path}|0"], matrix)


def test_a_functional_model_is_in_depth_order(keras_side):
    info, _ = keras_side
    kinds = [row["type"] for row in info["cases"]["image"]["matrix"].values() if not row["skipped"]]
    assert kinds == ["Conv2D", "Dense"]


def test_separable_and_recurrent_convolutions(keras_side, weights):
    info, arrays = keras_side
    separable = info["cases"]["separable"]["matrix"]
    assert separable["separable/depthwise_kernel"]["matrices"] == [[8, 9]]
    np.testing.assert_array_equal(
        arrays["separable|matrix|separable/pointwise_kernel|0"], weights["separable/1"][0, 0].T
    )
    kernel = weights["convlstm/0"]
    for i, gate in enumerate(("input", "forget", "cell", "output")):
        matrix = arrays[f"convlstm|matrix|convlstm/conv_lstm_cell/kernel[{gate}]|0"]
        np.testing.assert_array_equal(matrix, kernel[..., 3 * i : 3 * i + 3].transpose(3, 2, 0, 1).reshape(3, 16))
        tap = arrays[f"convlstm|separate|convlstm/conv_lstm_cell/kernel[{gate},1,0]|0"]
        np.testing.assert_array_equal(tap, kernel[1, 0, :, 3 * i : 3 * i + 3].T)


def test_norms_biases_and_half_precision(keras_side, weights):
    info, arrays = keras_side
    assert all(row["kind"] == "norm" and row["skipped"] for row in info["cases"]["norm"]["matrix"].values())
    assert info["cases"]["gru"]["matrix"]["gru/gru_cell/bias"]["skipped"].startswith("a bias")
    half = arrays["half|matrix|half/kernel|0"]
    assert half.dtype == np.float32
    np.testing.assert_array_equal(half, torch.from_numpy(weights["half/0"]).bfloat16().float().numpy().T)


def arranged(whole, matrix):
    """``whole`` as the kernel of one of the adapted layers, arranged as ``matrix`` is."""
    if whole.ndim == 4:
        return whole.transpose(3, 2, 0, 1).reshape(matrix.shape)
    return whole.reshape(-1, matrix.shape[0]).T


@pytest.mark.parametrize("name", ["lora_dense", "lora_einsum", "lora_embedding", "lora_conv"])
def test_lora_gives_the_update_and_the_merged_weight(keras_side, name):
    info, arrays = keras_side
    rows, stem = info["adapted"][name], "embeddings" if "embedding" in name else "kernel"
    merged, update = arrays[f"{name}|{name}/merged_{stem}"], arrays[f"{name}|{name}/lora_update"]
    np.testing.assert_allclose(merged, arranged(arrays[f"{name}|whole"], merged), rtol=1e-5, atol=1e-6)
    if name in ("lora_dense", "lora_embedding"):  # elsewhere the factors meet along another axis than the matrix
        assert np.linalg.matrix_rank(update) == 2
    assert "scaling 3" in rows[f"{name}/lora_update"]["note"]
    assert rows[f"{name}/{stem}"]["skipped"] == f"the frozen base of `{name}/merged_{stem}`"
    assert {p for row in rows.values() for p in row["parameters"]} >= {f"{name}/lora_{stem}_a", f"{name}/lora_{stem}_b"}


@pytest.mark.parametrize("name", ["int8_dense", "int8_einsum", "int8_output", "int8_embedding"])
def test_int8_is_measured_on_the_values_it_stands_for(keras_side, name):
    info, arrays = keras_side
    stem = "embeddings" if "embedding" in name else "kernel"
    got, whole = arrays[f"{name}|{name}/{stem}"], arrays[f"{name}|whole"]
    wanted = arranged(whole, got)
    scale = np.abs(wanted).max(axis=0 if "embedding" in name else 1, keepdims=True)  # one a token, or one an output
    assert np.abs(got - wanted).max() > 0
    assert (np.abs(got - wanted) <= scale / 127 * 0.51).all()
    assert info["adapted"][name][f"{name}/{stem}"]["note"].startswith("int8")


def test_what_cannot_be_measured_says_why(keras_side):
    info, _ = keras_side
    kernel = next(row for path, row in info["int4"].items() if path.endswith("kernel"))
    assert "without their scale" in kernel["skipped"]
    assert list(info["unbuilt"]) == ["later"]
    assert "not built yet" in info["unbuilt"]["later"]["skipped"]


def test_a_keras_model_inside_of_a_torch_module(backends):
    if "torch" not in backends:
        pytest.skip("torch is not installed")
    rows = backends["torch"][0]["mixed"]
    assert [name for name, row in rows.items() if not row["skipped"]] == ["0.weight", "1.keras.inside/inner/kernel"]
    assert rows["1.keras.inside/inner/kernel"]["matrices"] == [[5, 6]]
