"""ONNX graphs: the orientation of each initialiser is that of the node that uses it, checked by running the graph."""

import re

import numpy as np
import pytest

from ww_callbacks.commands import EXIT_ERROR, main
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
    with pytest.raises(ValueError, match=rf"model\.onnx stores weights in files that do not exist: {data.name}"):
        inspect(path)


def parsed(text, path, **weights):
    """Save the model that ``text`` describes, with arrays in place of the constants of these names; what runs it."""
    model = onnx.parser.parse_model(text)
    for graph in _graphs(model):
        for tensor in graph.initializer:
            if tensor.name in weights:
                tensor.CopyFrom(numpy_helper.from_array(weights[tensor.name], tensor.name))
        for node in graph.node:
            if node.op_type == "Constant" and node.output[0] in weights:
                del node.attribute[:]
                node.attribute.append(helper.make_attribute("value", numpy_helper.from_array(weights[node.output[0]])))
    onnx.save(model, path)
    return lambda **inputs: ReferenceEvaluator(model).run(None, inputs)


def _graphs(model):
    waiting = [model.graph, *model.functions]
    while waiting:
        graph = waiting.pop()
        if hasattr(graph, "initializer"):
            yield graph
        else:
            yield type("Function", (), {"initializer": [], "node": graph.node})
        waiting += [a.g for node in graph.node for a in node.attribute if a.type == onnx.AttributeProto.GRAPH]


def measured(path):
    return {spec.name: spec for spec in inspect(path) if not spec.skipped}


HEAD = '<ir_version: 10, opset_import: ["" : 21, "local" : 1, "com.microsoft" : 1]>'


@pytest.mark.parametrize(
    ("way", "shape"),
    [
        ("t = Identity (w)", (6, 4)),
        ("t = Transpose <perm = [1, 0]> (w)", (4, 6)),
        ("s = Constant <value_ints = [6, -1]> () t = Reshape (w, s)", (2, 12)),
        ("a = Constant <value_ints = [0]> () t = Squeeze (w, a)", (1, 6, 4)),
        ("a = Constant <value_ints = [0]> () u = Unsqueeze (w, a) t = Squeeze (u, a)", (6, 4)),
        ("t = Cast <to = 1> (w)", (6, 4)),
        ("t = Flatten (w)", (6, 2, 2)),
        ("a, b = Split <axis = 1, num_outputs = 2> (w) t = Concat <axis = 1> (a, b)", (6, 4)),
        ("a = Constant <value_ints = [0]> () b = Constant <value_ints = [6]> () t = Slice (w, a, b, a)", (6, 4)),
    ],
)
def test_a_weight_is_followed_through_what_passes_it_on(path, way, shape):
    """In a `Constant` node, and read as the node at its end applies it."""
    body = f"w = Constant <value = float[1] {{0}}> () {way} y = MatMul (x, t)"
    x, weight = draw(2, 6), draw(*shape)
    (y,) = parsed(f"{HEAD} g (float[2,6] x) => (float[2,4] y) {{ {body} }}", path, w=weight)(x=x)
    ((name, spec),) = measured(path).items()
    np.testing.assert_allclose(x @ spec.matrices()[0].T, y, rtol=1e-5)
    assert (name, spec.kind, spec.type) == ("w", "dense", "MatMul")


def test_parts_of_a_split_weight_are_weights_of_their_own(path):
    body = "q, k = Split <axis = 1, num_outputs = 2> (w) a = MatMul (x, q) b = MatMul (x, k) y = Add (a, b)"
    text = f"{HEAD} g (float[2,6] x) => (float[2,4] y) <float[6,8] w = {{0}}> {{ {body} }}"
    x, weight = draw(2, 6), draw(6, 8)
    (y,) = parsed(text, path, w=weight)(x=x)
    found = measured(path)
    assert list(found) == ["w[0]", "w[1]"]
    np.testing.assert_allclose(sum(x @ spec.matrices()[0].T for spec in found.values()), y, rtol=1e-4)


def test_weights_of_branches_and_loops_are_found(path):
    """In a branch, from outside of it, in a loop's body, and as a state that the loop hands on as it came."""
    text = f"""{HEAD} g (float[2,4] x, bool c) => (float[2,4] y) <float[4,4] outer = {{0}}, float[4,4] state = {{0}}> {{
        a = If (c) <
            then_branch = one () => (float[2,4] p) <float[4,4] inner = {{0}}> {{
                h = MatMul (x, inner) p = MatMul (h, outer) }},
            else_branch = two () => (float[2,4] p) {{ k = Constant <value = float[1] {{0}}> () p = MatMul (x, k) }}
        >
        n = Constant <value_int = 3> ()
        t = Constant <value = bool {{1}}> ()
        y, unused = Loop (n, t, a, state) <
            body = b (int64 i, bool go, float[2,4] h, float[4,4] s) => (bool again, float[2,4] out, float[4,4] kept) {{
                again = Identity (go) m = MatMul (h, s) out = Tanh (m) kept = Identity (s) }}
        >
    }}"""
    weights = {name: draw(4, 4) for name in ("outer", "state", "inner", "k")}
    run, x = parsed(text, path, **weights), draw(2, 4)
    found = {name: spec.matrices()[0] for name, spec in measured(path).items()}
    assert list(found) == ["inner", "outer", "k", "state"]
    for branch, names in ((True, ("inner", "outer")), (False, ("k",))):
        h = x
        for name in names:
            h = h @ found[name].T
        for _ in range(3):
            h = np.tanh(h @ found["state"].T)
        np.testing.assert_allclose(run(x=x, c=np.array(branch))[0], h, rtol=1e-4)


def test_weights_that_a_scan_goes_through_are_one_each(path):
    text = f"""{HEAD} g (float[2,4] x) => (float[2,4] y) <float[3,4,4] w = {{0}}> {{
        y = Scan <num_scan_inputs = 1, body = b (float[2,4] h, float[4,4] one) => (float[2,4] out) {{
            m = MatMul (h, one) out = Tanh (m) }}> (x, w) }}"""
    x = draw(2, 4)
    (y,) = parsed(text, path, w=draw(3, 4, 4))(x=x)
    found = measured(path)
    assert list(found) == ["w[0]", "w[1]", "w[2]"]
    for spec in found.values():
        x = np.tanh(x @ spec.matrices()[0].T)
    np.testing.assert_allclose(x, y, rtol=1e-4)


def test_weights_inside_and_outside_of_local_functions(path):
    """What a function is called with, its attributes, and what it holds itself, whoever calls it."""
    text = f"""{HEAD} g (float[2,4] x) => (float[2,4] y) <float[4,4] first = {{0}}, float[4,4] second = {{0}}> {{
        a = local.linear <how = [1, 0]> (x, first) y = local.linear <how = [0, 1]> (a, second) }}
    <domain: "local", opset_import: ["" : 21]> linear <how> (h, w) => (z) {{
        own = Constant <value = float[1] {{0}}> ()
        t = Transpose <perm: ints = @how> (w) m = MatMul (h, t) z = MatMul (m, own) }}"""
    x, weights = draw(2, 4), {name: draw(4, 4) for name in ("first", "second", "own")}
    (y,) = parsed(text, path, **weights)(x=x)
    found = {name: spec.matrices()[0] for name, spec in measured(path).items()}
    assert set(found) == {"first", "second", "own"}
    np.testing.assert_allclose(x @ found["first"].T @ found["own"].T @ found["second"].T @ found["own"].T, y, rtol=1e-3)


def test_a_function_that_calls_itself_is_refused(path):
    text = f"""{HEAD} g (float[2,4] x) => (float[2,4] y) {{ y = local.again (x) }}
    <domain: "local", opset_import: ["" : 21, "local" : 1]> again (x) => (y) {{ y = local.again (x) }}"""
    onnx.save(onnx.parser.parse_model(text), path)
    with pytest.raises(ValueError, match=r"model\.onnx is not a readable ONNX file.*local\.again calls itself"):
        inspect(path)


@pytest.mark.parametrize(
    ("equation", "shape"), [("bi,io->bo", (6, 4)), ("bi,hoi->bho", (2, 2, 6)), ("oi,bi->bo", (4, 6))]
)
def test_einsum(path, equation, shape):
    operands = "w, x" if equation.startswith("oi") else "x, w"
    node = f'y = Einsum <equation = "{equation}"> ({operands})'
    text = f"{HEAD} g (float[2,6] x) => (float y) <float[1] w = {{0}}> {{ {node} }}"
    x, weight = draw(2, 6), draw(*shape)
    (y,) = parsed(text, path, w=weight)(x=x)
    (matrix,) = measured(path)["w"].matrices()
    np.testing.assert_allclose(x @ matrix.T, y.reshape(2, -1), rtol=1e-4)


def test_contributed_operators_of_onnx_runtime(path):
    text = f"""{HEAD} g (float[1,2,6] x, int64[1,2] i) => (float[1,2,6] y)
        <float[6,18] qkv = {{0}}, float[1,18] row = {{0}}, float[6,6] turned = {{0}}, float[9,6] words = {{0}}> {{
        e = com.microsoft.EmbedLayerNormalization (i, i, words)
        a = com.microsoft.Attention <num_heads = 2> (x, qkv, row)
        y = com.microsoft.FusedMatMul <transB = 1> (a, turned) }}"""
    weights = {"qkv": draw(6, 18), "row": draw(1, 18), "turned": draw(6, 6), "words": draw(9, 6)}
    parsed(text, path, **weights)
    found = measured(path)
    assert list(found) == ["words", "qkv[q]", "qkv[k]", "qkv[v]", "turned"]
    np.testing.assert_array_equal(found["qkv[k]"].matrices()[0], weights["qkv"][:, 6:12].T)
    np.testing.assert_array_equal(found["turned"].matrices()[0], weights["turned"])
    assert (found["words"].kind, found["qkv[q]"].kind) == ("embedding", "attention")


def test_what_is_added_or_multiplied_element_by_element_is_no_weight(path):
    """Whatever its shape: biases stored as rows, masks, an LSTM's bias, factors."""
    text = f"""{HEAD} g (float[3,1,6] x) => (float y)
        <float[6,4] w = {{0}}, float[1,4] bias = {{0}}, float[4,4] mask = {{0}}, float[1,4,4] scale = {{0}},
         float[1,20,4] W = {{0}}, float[1,20,5] R = {{0}}, float[1,40] B = {{0}},
         float[5,5] C = {{0}}, float[5,5] M = {{0}}> {{
        a = MatMul (x, w) b = Add (bias, a) s = Mul (b, scale) m = Add (s, mask)
        h, r = LSTM <hidden_size = 5> (b, W, R, B) d = Squeeze (r) y = Gemm (d, M, C) }}"""
    arrays = {"w": draw(6, 4), "bias": draw(1, 4), "mask": draw(4, 4), "scale": draw(1, 4, 4), "W": draw(1, 20, 4),
              "R": draw(1, 20, 5), "B": draw(1, 40), "C": draw(5, 5), "M": draw(5, 5)}  # fmt: skip
    parsed(text, path, **arrays)
    specs = by_name(path)
    assert {spec.parameters[0] for spec in specs.values() if not spec.skipped} == {"w", "W", "R", "M"}
    assert specs["bias"].skipped == "a bias: `Add` adds it"
    assert specs["B"].skipped == "a bias of `LSTM`"
    assert specs["scale"].skipped.startswith("a factor: `Mul`")
    assert specs["C"].skipped == "a bias: `Gemm` adds it"
    assert specs["bias"].kind == specs["B"].kind == "bias"


def test_a_weight_tied_to_an_embedding_is_measured_once(path):
    text = f"""{HEAD} g (int64[2] i) => (float y) <float[9,4] table = {{0}}> {{
        e = Gather (table, i) t = Transpose (table) y = MatMul (e, t) }}"""
    parsed(text, path, table=draw(9, 4))
    ((name, spec),) = measured(path).items()
    assert (name, spec.kind) == ("table", "embedding")
    assert "also by MatMul" in spec.note


@pytest.mark.parametrize("scales", ["tensor", "channel", "block"])
def test_dequantised_weights_are_measured_as_what_they_stand_for(path, scales):
    attributes = {"tensor": "", "channel": "<axis = 1>", "block": "<axis = 0, block_size = 3>"}[scales]
    shape = {"tensor": (), "channel": (4,), "block": (2, 4)}[scales]
    text = f"""{HEAD} g (float[2,6] x) => (float[2,4] y)
        <int8[6,4] q = {{0}}, float[1] s = {{0}}, int8[1] z = {{0}}> {{
        w = DequantizeLinear {attributes} (q, s, z) y = MatMul (x, w) }}"""
    arrays = {
        "q": RNG.integers(-128, 128, (6, 4), dtype=np.int8),
        "s": np.abs(draw(*shape)).astype(np.float32).reshape(shape) + np.float32(0.1),
        "z": RNG.integers(-5, 6, shape, dtype=np.int8).reshape(shape),
    }
    x = draw(2, 6)
    (y,) = parsed(text, path, **arrays)(x=x)
    ((name, spec),) = measured(path).items()
    assert (name, spec.parameters) == ("q", ("q", "s", "z"))
    assert "dequantised from int8" in spec.note
    np.testing.assert_allclose(x @ spec.matrices()[0].T, y, rtol=1e-4, atol=1e-3)
    assert {spec.name for spec in inspect(path)} == {"q"}  # its scale is part of it


def test_integers_scaled_by_plain_nodes_and_fake_quantisation(path):
    """As exporters write them that know no `DequantizeLinear`, and as training with quantisation does."""
    text = f"""{HEAD} g (float[2,6] x) => (float[2,4] y)
        <int8[6,6] q = {{0}}, float s = {{0}}, float z = {{0}}, float[6,4] w = {{0}}, int8 zero = {{3}}> {{
        c = Cast <to = 1> (q) d = Sub (c, z) e = Mul (d, s) a = MatMul (x, e)
        f = QuantizeLinear (w, s, zero) g = DequantizeLinear (f, s, zero) y = MatMul (a, g) }}"""
    arrays = {
        "q": RNG.integers(-9, 9, (6, 6), dtype=np.int8),
        "s": np.float32(0.05),
        "z": np.float32(2),
        "w": draw(6, 4),
    }
    x = draw(2, 6)
    (y,) = parsed(text, path, **{name: np.asarray(array) for name, array in arrays.items()})(x=x)
    found = measured(path)
    assert list(found) == ["q", "w"]
    np.testing.assert_allclose(x @ found["q"].matrices()[0].T @ found["w"].matrices()[0].T, y, rtol=1e-3, atol=1e-5)


def test_integers_whose_scale_is_not_known_and_unknown_operators_are_left_out_with_the_reason(path):
    text = f"""{HEAD} g (uint8[2,6] x, float[2,4] h) => (float y) <int8[6,4] q = {{0}}, float[4,4] w = {{0}}> {{
        y = MatMulInteger (x, q) z = local.Magic (h, w) }}"""
    parsed(text, path, q=np.ones((6, 4), np.int8), w=draw(4, 4))
    specs = by_name(path)
    assert specs["q"].skipped == "integers whose scale is not an input of `MatMulInteger` are not the weights"
    assert specs["w"].skipped == "`local.Magic` is not known here"


def test_a_cut_file_and_one_without_weights_are_refused_by_name(path, tmp_path, capsys):
    text = f"{HEAD} g (float[2,6] x) => (float[2,4] y) <float[6,4] w = {{0}}> {{ y = MatMul (x, w) }}"
    parsed(text, path, w=draw(6, 4))
    whole, table = path.read_bytes(), tmp_path / "table.csv"
    cut = tmp_path / "cut.onnx"
    for share in (0.2, 0.6, 0.95):
        cut.write_bytes(whole[: int(share * len(whole))])
        assert main(["analyze", str(cut), "-o", str(table)]) == EXIT_ERROR
        printed = capsys.readouterr()
        assert re.search(
            r"cut\.onnx is not a readable ONNX file: it may be truncated.*Export or download it again", printed.err
        )
        assert printed.out == "" and not table.exists()
    parsed(f"{HEAD} g (float[2,6] x) => (float[2,6] y) {{ y = Sigmoid (x) }}", path)
    assert main(["analyze", str(path), "-o", str(table)]) == EXIT_ERROR
    assert "model.onnx: The model has no layer whose weights form a matrix" in capsys.readouterr().err
    assert not table.exists()


def test_external_data_is_never_read_from_outside_of_the_folder(path):
    (path.parent / "secret").write_bytes(draw(6, 4).tobytes())
    folder = path.parent / "model"
    folder.mkdir()
    text = f"{HEAD} g (float[2,6] x) => (float[2,4] y) <float[6,4] w = {{0}}> {{ y = MatMul (x, w) }}"
    model = onnx.parser.parse_model(text)
    for place in ("../secret", str(path.parent / "secret")):
        (tensor,) = model.graph.initializer
        del tensor.external_data[:]
        tensor.ClearField("float_data")
        tensor.data_location = TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value=place)
        (folder / "model.onnx").write_bytes(model.SerializeToString())
        with pytest.raises(ValueError, match=r"model\.onnx stores weights in files that do not exist: .*secret"):
            inspect(folder / "model.onnx")
