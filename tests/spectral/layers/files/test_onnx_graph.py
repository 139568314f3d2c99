"""ONNX graphs: the orientation of each initialiser is that of the node that uses it, checked by running the graph."""

import numpy as np
import pytest

from ww_callbacks.spectral.layers import inspect

onnx = pytest.importorskip("onnx")
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

RNG = np.random.default_rng(0)


def draw(*shape):
    return RNG.standard_normal(shape).astype(np.float32)


def save(nodes, weights, x, path):
    """Save a model with input ``x`` and output ``y`` to ``path``."""
    inputs = [helper.make_tensor_value_info("x", helper.np_dtype_to_tensor_dtype(x.dtype), x.shape)]
    results = [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)]
    tensors = [numpy_helper.from_array(array, name) for name, array in weights.items()]
    model = helper.make_model(helper.make_graph(nodes, "g", inputs, results, tensors))
    onnx.save(model, path)
    return model


def graph(nodes, weights, x, path):
    """Save a model and run it on ``x`` with ONNX's own evaluator."""
    return ReferenceEvaluator(save(nodes, weights, x, path)).run(None, {"x": x})


def by_name(path, convolution="matrix"):
    return {spec.name: spec for spec in inspect(path, convolution)}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "model.onnx"


@pytest.mark.parametrize("transposed", [0, 1])
def test_gemm(path, transposed):
    x, weight = draw(2, 6), draw(4, 6) if transposed else draw(6, 4)
    (y,) = graph(
        [helper.make_node("Gemm", ["x", "w", "b"], ["y"], transB=transposed)],
        {"w": weight, "b": np.zeros(4, np.float32)},
        x,
        path,
    )
    specs = by_name(path)
    (matrix,) = specs["w"].matrices()
    np.testing.assert_allclose(x @ matrix.T, y, rtol=1e-4)
    assert specs["w"].type == "Gemm"
    assert specs["b"].skipped == "a vector: it has no spectrum"


def test_matmul_on_either_side_and_through_a_transpose(path):
    nodes = [
        helper.make_node("MatMul", ["x", "right"], ["a"]),
        helper.make_node("Transpose", ["turned"], ["t"], perm=[1, 0]),
        helper.make_node("MatMul", ["a", "t"], ["c"]),
        helper.make_node("Transpose", ["c"], ["d"], perm=[1, 0]),
        helper.make_node("MatMul", ["left", "d"], ["y"]),
    ]
    weights = {"left": draw(3, 5), "turned": draw(5, 4), "right": draw(6, 4)}
    x = draw(2, 6)
    (y,) = graph(nodes, weights, x, path)
    specs = by_name(path)
    assert list(specs) == ["right", "turned", "left"]  # as the graph uses them
    right, turned, left = (spec.matrices()[0] for spec in specs.values())
    np.testing.assert_allclose((x @ right.T @ turned.T @ left.T).T, y, rtol=1e-4)
    assert (right.shape, turned.shape, left.shape) == ((4, 6), (5, 4), (3, 5))


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("operation", ["Conv", "ConvTranspose"])
def test_convolutions_are_torch_s(path, groups, operation):
    torch = pytest.importorskip("torch")
    layer = {"Conv": torch.nn.Conv2d, "ConvTranspose": torch.nn.ConvTranspose2d}[operation](4, 6, 3, groups=groups)
    weight = layer.weight.detach().numpy()
    save([helper.make_node(operation, ["x", "w"], ["y"], group=groups)], {"w": weight}, draw(1, 4, 5, 5), path)
    for convolution in ("matrix", "slices", "separate"):
        here = [spec.matrices() for spec in inspect(path, convolution)]
        there = [spec.matrices() for spec in inspect(layer, convolution) if not spec.skipped]
        for a, b in zip(here, there, strict=True):
            for m, n in zip(a, b, strict=True):
                np.testing.assert_array_equal(m, n)


def test_an_embedding(path):
    graph([helper.make_node("Gather", ["w", "x"], ["y"])], {"w": draw(9, 4)}, np.array([1, 2]), path)
    assert by_name(path)["w"].matrix_shapes == ((4, 9),)


@pytest.mark.parametrize(("operation", "gates"), [("LSTM", "iofc"), ("GRU", "zrh")])
def test_gates(path, operation, gates):
    names = {"i": "input", "o": "output", "f": "forget", "c": "cell", "z": "update", "r": "reset", "h": "new"}
    count = len(gates)
    w, r = draw(2, 5 * count, 3), draw(2, 5 * count, 5)
    node = helper.make_node(operation, ["x", "w", "r"], ["y"], hidden_size=5, direction="bidirectional")
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, (4, 1, 3))]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)]
    tensors = [numpy_helper.from_array(w, "w"), numpy_helper.from_array(r, "r")]
    onnx.save(helper.make_model(helper.make_graph([node], "g", inputs, outputs, tensors)), path)
    specs = by_name(path)
    for i, gate in enumerate(gates):
        (matrix,) = specs[f"w[backward,{names[gate]}]"].matrices()
        np.testing.assert_array_equal(matrix, w[1, 5 * i : 5 * i + 5])
        assert f"r[forward,{names[gate]}]" in specs


def test_one_initialiser_used_twice_is_measured_once(path):
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["a"]),
        helper.make_node("MatMul", ["a", "w"], ["y"], name="second"),
    ]
    graph(nodes, {"w": draw(4, 4)}, draw(2, 4), path)
    (spec,) = inspect(path)
    assert spec.note.startswith("used by MatMul, also by second")


def test_integers_and_unused_matrices_say_why(path):
    weights = {"shape": np.array([2, 4]), "w": draw(4, 4), "unused": draw(3, 3), "scale": np.float32(2.0)}
    nodes = [helper.make_node("MatMul", ["x", "w"], ["a"]), helper.make_node("Reshape", ["a", "shape"], ["y"])]
    graph(nodes, weights, draw(2, 4), path)
    specs = by_name(path)
    assert specs["shape"].skipped.startswith("int64")
    assert specs["unused"].skipped == "no node uses it as a weight"
    assert specs["scale"].skipped == "a scalar"


def test_half_precision_and_external_data(path):
    weight = draw(6, 4)
    tensors = [numpy_helper.from_array(weight.astype(np.float16), "w")]
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT16, (2, 6))]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT16, None)]
    model = helper.make_model(
        helper.make_graph([helper.make_node("MatMul", ["x", "w"], ["y"])], "g", inputs, outputs, tensors)
    )
    onnx.save(model, path, save_as_external_data=True, size_threshold=0)
    assert len(list(path.parent.iterdir())) == 2
    (matrix,) = by_name(path)["w"].matrices()
    assert matrix.dtype == np.float32
    np.testing.assert_array_equal(matrix, weight.astype(np.float16).T.astype(np.float32))
    (data,) = (file for file in path.parent.iterdir() if file != path)
    data.unlink()
    with pytest.raises(ValueError, match=rf"model\.onnx keeps weights in files .* not there: {data.name}"):
        inspect(path)


@pytest.mark.filterwarnings("ignore")
def test_what_torch_exports_gives_what_the_module_gives(path):
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    model = torch.nn.Sequential(
        torch.nn.Conv2d(3, 4, 3),
        torch.nn.ReLU(),
        torch.nn.Flatten(),
        torch.nn.Linear(36, 5),
        torch.nn.Linear(5, 2, bias=False),
    )
    try:
        torch.onnx.export(model.eval(), (torch.zeros(1, 3, 5, 5),), str(path), dynamo=False)
    except Exception as error:
        pytest.skip(f"this torch cannot export without onnxscript: {error}")
    here = [spec.matrices()[0] for spec in inspect(path) if not spec.skipped]
    there = [spec.matrices()[0] for spec in inspect(model) if not spec.skipped]
    for a, b in zip(here, there, strict=True):
        np.testing.assert_array_equal(a, b)
