"""ONNX files as real exporters and quantisers write them: the weights are those of the model that was exported."""

import numpy as np
import pytest
import torch
from torch import nn

from ww_callbacks import spectral
from ww_callbacks.spectral.layers import inspect

onnx = pytest.importorskip("onnx")

pytestmark = pytest.mark.filterwarnings("ignore")  # the exporters' own


def matrices(model):
    return [spec.matrices()[0] for spec in inspect(model) if not spec.skipped]


def assert_same_matrices(here, there, tolerance=0.0):
    """Each matrix of one is a matrix of the other; layers may be in another order."""
    assert sorted(m.shape for m in here) == sorted(m.shape for m in there)
    left = list(there)
    for matrix in here:
        near = [np.abs(matrix - m).max() if m.shape == matrix.shape else np.inf for m in left]
        place = int(np.argmin(near))
        assert near[place] <= tolerance * np.abs(left[place]).max()
        del left[place]


class Recurrent(nn.Module):
    """Everything whose weights an exporter lays out again."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(11, 8)
        self.lstm = nn.LSTM(8, 6, 2, bidirectional=True, batch_first=True)
        self.gru = nn.GRU(12, 5, batch_first=True)
        self.conv = nn.Conv1d(5, 10, 3, padding=1, groups=5)
        self.wide = nn.Linear(10, 4)
        self.bare = nn.Linear(4, 3, bias=False)

    def forward(self, tokens):
        x = self.embedding(tokens)
        x, _ = self.lstm(x)
        x, _ = self.gru(x)
        x = self.conv(x.transpose(1, 2)).transpose(1, 2)
        return self.bare(self.wide(x))


def pieces(model):
    return [matrix for spec in inspect(model) if not spec.skipped for matrix in spec.matrices()]


@pytest.mark.parametrize("folding", [True, False])
def test_what_torch_exports_gives_what_the_module_gives(tmp_path, folding):
    """Without constant folding the gates are cut and joined by nodes of the graph."""
    torch.manual_seed(0)
    model, path = Recurrent().eval(), tmp_path / "model.onnx"
    tokens = torch.zeros(1, 4, dtype=torch.long)
    torch.onnx.export(model, (tokens,), str(path), dynamo=False, do_constant_folding=folding)
    assert_same_matrices(pieces(path), pieces(model))


def test_what_torch_s_newer_exporter_writes(tmp_path):
    pytest.importorskip("onnxscript")
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(36, 5), nn.Linear(5, 2, bias=False))
    path = tmp_path / "model.onnx"
    torch.onnx.export(model.eval(), (torch.zeros(1, 3, 5, 5),), str(path), dynamo=True, verbose=False)
    assert_same_matrices(matrices(path), matrices(model))


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A model with its ONNX file, its input's name and some inputs."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(72, 32), nn.ReLU(), nn.Linear(32, 10))
    path = tmp_path_factory.mktemp("exported") / "model.onnx"
    torch.onnx.export(model.eval(), (torch.zeros(4, 3, 5, 5),), str(path), dynamo=False)
    return model, path, onnx.load(path).graph.input[0].name


@pytest.mark.parametrize("per_channel", [False, True])
@pytest.mark.parametrize("form", ["QDQ", "QOperator", "dynamic"])
def test_what_onnx_runtime_quantises_is_measured_within_its_rounding(exported, tmp_path, form, per_channel):
    quantization = pytest.importorskip("onnxruntime.quantization")
    model, path, name = exported

    class Reader(quantization.CalibrationDataReader):
        batches = iter([{name: np.random.default_rng(0).standard_normal((4, 3, 5, 5)).astype(np.float32)}])

        def get_next(self):
            return next(self.batches, None)

    out, int8 = tmp_path / "quantised.onnx", quantization.QuantType.QInt8
    if form == "dynamic":
        quantization.quantize_dynamic(path, out, per_channel=per_channel, weight_type=int8)
    else:
        how = quantization.QuantFormat[form]
        quantization.quantize_static(path, out, Reader(), quant_format=how, per_channel=per_channel, weight_type=int8)
    specs = [spec for spec in inspect(out) if not spec.skipped]
    assert [spec.name for spec in specs] == ["0.weight", "3.weight", "5.weight"]
    assert all("dequantised from int8" in spec.note and spec.stored_as == "INT8, ONNX" for spec in specs)
    assert_same_matrices(matrices(out), matrices(model), tolerance=0.5 / 127)
    result = spectral.compare(path, out)  # what quantising changed
    assert list(result.layers["layer"]) == ["0.weight", "3.weight", "5.weight"] and not result.only_after
    assert (result.layers["relative_distance_from_init"] < 0.02).all()


def test_a_recurrent_layer_of_integers(tmp_path):
    quantization = pytest.importorskip("onnxruntime.quantization")
    torch.manual_seed(0)
    model, path = nn.LSTM(8, 6, bidirectional=True), tmp_path / "model.onnx"
    torch.onnx.export(model, (torch.zeros(4, 1, 8),), str(path), dynamo=False)
    quantization.quantize_dynamic(path, path, weight_type=quantization.QuantType.QInt8)
    specs = [spec for spec in inspect(path) if not spec.skipped]
    assert {spec.type for spec in specs} == {"DynamicQuantizeLSTM"}
    assert_same_matrices(matrices(path), matrices(model), tolerance=1 / 127)


def test_a_four_bit_embedding_is_what_onnx_runtime_looks_up(tmp_path):
    runtime = pytest.importorskip("onnxruntime")
    from onnx import TensorProto, helper, numpy_helper

    rng, path = np.random.default_rng(0), tmp_path / "model.onnx"
    held = {
        "codes": rng.integers(0, 256, (11, 16), dtype=np.uint8),
        "scales": rng.random((11, 2)).astype(np.float32),
        "zeros": rng.integers(0, 256, (11, 1), dtype=np.uint8),
    }
    node = helper.make_node(
        "GatherBlockQuantized", ["codes", "i", "scales", "zeros"], ["y"], domain="com.microsoft", bits=4, block_size=16
    )
    tensors = [numpy_helper.from_array(array, name) for name, array in held.items()]
    inputs = [helper.make_tensor_value_info("i", TensorProto.INT64, [11])]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, [11, 32])]
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
    graph = helper.make_graph([node], "g", inputs, outputs, tensors)
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=10), path)
    (rows,) = runtime.InferenceSession(path).run(None, {"i": np.arange(11)})
    (spec,) = (spec for spec in inspect(path) if not spec.skipped)
    np.testing.assert_allclose(spec.matrices()[0], rows.T, rtol=1e-6)


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("form", ["QDQ", "QOperator"])
def test_four_bit_weights_of_onnx_runtime(tmp_path, form, symmetric):
    runtime = pytest.importorskip("onnxruntime.quantization.matmul_nbits_quantizer")
    from onnxruntime.quantization import QuantFormat

    torch.manual_seed(0)
    model, path = nn.Linear(72, 32, bias=False), tmp_path / "model.onnx"
    torch.onnx.export(model, (torch.zeros(3, 72),), str(path), dynamo=False)
    quantiser = runtime.MatMulNBitsQuantizer(
        onnx.load(path), block_size=16, is_symmetric=symmetric, quant_format=QuantFormat[form]
    )
    quantiser.process()
    onnx.save(quantiser.model.model, path)
    (spec,) = (spec for spec in inspect(path) if not spec.skipped)
    assert "dequantised from" in spec.note and "ONNX" in spec.stored_as
    assert_same_matrices(spec.matrices(), matrices(model), tolerance=1 / 8 if symmetric else 1 / 15)


def test_an_export_compares_with_the_network_itself(tmp_path):
    """The exporter takes the names of transposed weights away; the path of their node tells them."""
    torch.manual_seed(0)
    inner = nn.Sequential(nn.Linear(12, 9, bias=False), nn.ReLU(), nn.Linear(9, 7))
    model, path = nn.ModuleDict({"body": inner, "head": nn.Linear(7, 7, bias=False)}), tmp_path / "model.onnx"
    model.forward = lambda x: model["head"](model["body"](x))
    torch.onnx.export(model, (torch.zeros(2, 3, 12),), str(path), dynamo=False)
    result = spectral.compare(path, model)
    assert list(result.layers["layer"]) == ["body.0.weight", "body.2.weight", "head.weight"]
    assert [s.name for s in inspect(path) if not s.skipped] == list(result.layers["layer"])
    assert not result.layers["changed"].any() and not result.only_before and not result.only_after
    assert "stored as onnx::MatMul_" in next(spec for spec in inspect(path) if not spec.skipped).note
