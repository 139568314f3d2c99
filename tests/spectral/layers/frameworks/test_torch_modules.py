"""Real torch modules: what becomes of each parameter, and that reading leaves no trace."""

import copy
import warnings

import numpy as np
import pytest
import torch
import torch.nn.utils.prune
from torch import nn

from ww_callbacks.spectral.layers import inspect


def by_name(model, convolution="matrix"):
    return {spec.name: spec for spec in inspect(model, convolution)}


def matrices(model, name, convolution="matrix"):
    return by_name(model, convolution)[name].matrices()


def test_a_dense_layer_is_a_view_and_a_bias_is_none():
    layer = nn.Linear(6, 4)
    specs = by_name(nn.Sequential(layer))
    (matrix,) = specs["0.weight"].matrices()
    assert np.shares_memory(matrix, layer.weight.detach().numpy())
    assert (specs["0.weight"].kind, specs["0.weight"].type, specs["0.weight"].matrix_shapes) == (
        "dense",
        "Linear",
        ((4, 6),),
    )
    assert specs["0.bias"].kind == "bias"
    assert specs["0.bias"].skipped == "a vector: it has no spectrum"
    with pytest.raises(ValueError, match=r"`0.bias` is not measured: a vector"):
        specs["0.bias"].matrices()


def test_a_replaced_parameter_is_read():
    layer = nn.Linear(3, 3)
    (spec, _) = inspect(layer)
    layer.weight = nn.Parameter(torch.full((3, 3), 7.0))
    assert spec.matrices()[0].max() == 7.0


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_read_as_float32(dtype):
    layer = nn.Linear(6, 4).to(dtype)
    (matrix,) = matrices(layer, "weight")
    assert matrix.dtype == np.float32
    np.testing.assert_array_equal(matrix, layer.weight.detach().float().numpy())


def test_every_kind_of_layer_has_its_matrices():
    model = nn.ModuleDict(
        {
            "conv": nn.Conv2d(4, 8, 3, groups=2),
            "up": nn.ConvTranspose1d(4, 6, 3, groups=2),
            "depthwise": nn.Conv2d(4, 8, 3, groups=4),
            "embedding": nn.Embedding(10, 4),
            "bag": nn.EmbeddingBag(10, 4),
            "bilinear": nn.Bilinear(3, 4, 5),
            "norm": nn.LayerNorm((3, 4)),
        }
    )
    shapes = {name: spec.matrix_shapes for name, spec in by_name(model).items() if not spec.skipped}
    assert shapes == {
        "conv.weight": ((4, 18), (4, 18)),
        "up.weight": ((3, 6), (3, 6)),
        "depthwise.weight": ((8, 9),),
        "embedding.weight": ((4, 10),),
        "bag.weight": ((4, 10),),
        "bilinear.weight": ((5, 12),),
    }
    for spec in inspect(model):
        if not spec.skipped:
            assert tuple(m.shape for m in spec.matrices()) == spec.matrix_shapes
    assert by_name(model)["norm.weight"].skipped == "a norm: not a map from inputs to outputs"


def test_a_bilinear_layer_acts_on_the_outer_product():
    layer = nn.Bilinear(3, 4, 5, bias=False)
    x, y = torch.randn(3), torch.randn(4)
    expected = layer(x, y).detach().numpy()
    np.testing.assert_allclose(
        matrices(layer, "weight")[0] @ torch.outer(x, y).flatten().numpy(), expected, rtol=1e-4, atol=1e-6
    )


def test_packed_attention_is_split_as_it_is_used():
    packed = nn.MultiheadAttention(8, 2)
    specs = by_name(packed)
    for label, weight in zip("qkv", packed.in_proj_weight.detach().chunk(3), strict=True):
        (matrix,) = specs[f"in_proj_weight[{label}]"].matrices()
        np.testing.assert_array_equal(matrix, weight.numpy())
        assert np.shares_memory(matrix, packed.in_proj_weight.detach().numpy())
    assert specs["out_proj.weight"].kind == "attention"
    apart = by_name(nn.MultiheadAttention(8, 2, kdim=4, vdim=6, add_bias_kv=True))
    assert apart["k_proj_weight"].matrix_shapes == ((8, 4),)
    assert apart["bias_k"].skipped.startswith("a bias")


@pytest.mark.parametrize(("layer", "gates"), [(nn.LSTM, "input forget cell output"), (nn.GRU, "reset update new")])
def test_gates_are_split(layer, gates):
    module = layer(3, 5, num_layers=2, bidirectional=True)
    specs = by_name(module)
    for name in ("weight_ih_l0", "weight_hh_l1_reverse"):
        whole = getattr(module, name).detach()
        for gate, rows in zip(gates.split(), whole.chunk(len(gates.split())), strict=True):
            np.testing.assert_array_equal(specs[f"{name}[{gate}]"].matrices()[0], rows.numpy())
    assert by_name(nn.LSTM(3, 5, proj_size=2))["weight_hr_l0"].matrix_shapes == ((2, 5),)
    assert by_name(nn.RNN(3, 5))["weight_hh_l0"].matrix_shapes == ((5, 5),)
    assert by_name(nn.LSTMCell(3, 5))["weight_ih[cell]"].matrix_shapes == ((5, 3),)


def test_tied_weights_are_measured_once():
    model = nn.ModuleDict(
        {"embed": nn.Embedding(10, 4), "head": nn.Linear(4, 10, bias=False), "again": nn.Linear(4, 4)}
    )
    model["head"].weight = model["embed"].weight
    model["shared"] = model["again"]
    specs = by_name(model)
    assert specs["head.weight"].skipped == "tied: measured as `embed.weight`"
    assert "also used as head.weight" in specs["embed.weight"].note
    assert specs["shared.weight"].skipped == "tied: measured as `again.weight`"


def test_weights_that_share_memory_without_being_one_parameter_are_tied():
    model = nn.ModuleDict({"a": nn.Linear(3, 3), "b": nn.Linear(3, 3)})
    model["b"].weight.data = model["a"].weight.data
    assert by_name(model)["b.weight"].skipped == "tied: measured as `a.weight`"


def test_what_cannot_be_measured_says_why():
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.lazy = nn.LazyLinear(4)
            self.meta = nn.Linear(3, 3, device="meta")
            self.complex = nn.Parameter(torch.zeros(3, 3, dtype=torch.complex64))
            self.integers = nn.Parameter(torch.zeros(3, 3, dtype=torch.int8), requires_grad=False)
            self.bits = nn.Parameter(torch.zeros(3, 3, dtype=torch.bool), requires_grad=False)
            self.eight = nn.Parameter(torch.zeros(3, 3).to(torch.float8_e4m3fn), requires_grad=False)
            self.empty = nn.Parameter(torch.zeros(0, 3))
            self.odd = nn.Parameter(torch.zeros(2, 3, 4))
            self.position = nn.Parameter(torch.ones(1, 5, 4))

    why = {name: spec.skipped for name, spec in by_name(Model()).items()}
    assert "first batch" in why["lazy.weight"]
    assert "meta" in why["meta.weight"]
    assert "complex" in why["complex"]
    assert why["integers"].startswith("int8")
    assert why["bits"].startswith("bool")
    assert why["eight"].startswith("float8_e4m3fn")
    assert why["empty"] == "empty"
    assert "unknown layout" in why["odd"]
    assert why["position"] == ""


def test_a_scale_beside_the_weight_is_noticed():
    layer = nn.Linear(4, 4)
    layer.register_buffer("weight_scale_inv", torch.ones(1))
    assert "weight_scale_inv" in by_name(layer)["weight"].skipped


def test_a_lazy_module_is_measured_once_it_is_initialised():
    model = nn.Sequential(nn.LazyLinear(4))
    assert by_name(model)["0.weight"].skipped
    model(torch.zeros(2, 3))
    assert by_name(model)["0.weight"].matrix_shapes == ((4, 3),)


def test_sparse_weights_are_measured_on_their_values():
    dense = torch.tensor([[0.0, 2.0], [3.0, 0.0]])
    module = nn.ParameterDict({"weight": nn.Parameter(dense.to_sparse())})
    np.testing.assert_array_equal(matrices(module, "weight")[0], dense.numpy())


@pytest.mark.filterwarnings("ignore")
def test_a_quantised_module_is_measured_on_the_values_it_stands_for():
    model = torch.ao.quantization.quantize_dynamic(nn.Sequential(nn.Linear(8, 4)), {nn.Linear}, dtype=torch.qint8)
    (matrix,) = matrices(model, "0.weight")
    np.testing.assert_array_equal(matrix, model[0].weight().dequantize().numpy())


@pytest.mark.filterwarnings("ignore")
def test_quantised_convolutions_and_embeddings():
    import torch.ao.nn.quantized as quantized

    model = nn.Sequential(
        quantized.Conv2d(4, 6, 3, groups=2), quantized.ConvTranspose2d(4, 6, 3), quantized.Embedding(10, 16)
    )
    shapes = {name: spec.matrix_shapes for name, spec in by_name(model).items() if not spec.skipped}
    assert shapes == {"0.weight": ((3, 18), (3, 18)), "1.weight": ((6, 36),), "2.weight": ((16, 10),)}


def test_packed_integers_of_bitsandbytes_are_skipped():
    """bitsandbytes needs a GPU build; its parameters are known by the name of their class."""

    class Params4bit(nn.Parameter):
        pass

    layer = nn.Linear(4, 4)
    layer.weight = Params4bit(torch.zeros(8, 1, dtype=torch.uint8), requires_grad=False)
    assert by_name(layer)["weight"].skipped.startswith("quantised by bitsandbytes (Params4bit)")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "wrap",
    [
        nn.utils.parametrizations.weight_norm,
        nn.utils.parametrizations.spectral_norm,
        nn.utils.parametrizations.orthogonal,
        nn.utils.weight_norm,
        nn.utils.spectral_norm,
        lambda layer: torch.nn.utils.prune.l1_unstructured(layer, "weight", 3),
    ],
)
def test_the_effective_weight_is_measured_and_nothing_is_left_behind(wrap):
    torch.manual_seed(0)
    model = nn.Sequential(wrap(nn.Linear(5, 4)), nn.Dropout())
    model(torch.randn(2, 5)).sum().backward()
    before = copy.deepcopy(model.state_dict())
    versions = {name: b._version for name, b in model.named_buffers()}
    modes = [m.training for m in model.modules()]
    attributes = {name: set(vars(m)) for name, m in model.named_modules()}
    random = torch.get_rng_state()
    specs = by_name(model)
    (matrix,) = specs["0.weight"].matrices()
    assert specs["0.weight"].note.startswith("effective weight after")
    assert all(spec.skipped for name, spec in specs.items() if name != "0.weight")
    assert torch.equal(torch.get_rng_state(), random)
    assert [m.training for m in model.modules()] == modes
    assert {name: b._version for name, b in model.named_buffers()} == versions
    assert {name: set(vars(m)) for name, m in model.named_modules()} == attributes
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), name
    model.eval()  # in evaluation nothing steps: the module uses just what was measured
    x = torch.randn(3, 5)
    np.testing.assert_allclose(
        x.numpy() @ matrix.T + model[0].bias.detach().numpy(), model(x).detach().numpy(), rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize("evaluated", ["never", "with a graph", "without"])
@pytest.mark.parametrize(("channels", "power"), [(8, 1), (8, 3), (32, 1), (2, 1), (1, 1)])
def test_spectral_norm_before_training_is_what_the_first_batch_will_use(channels, power, evaluated):
    """The older one starts from random vectors, by which it would seem many times as large, also once evaluated."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.utils.spectral_norm(nn.Conv2d(3, channels, 3), n_power_iterations=power))
    if evaluated != "never":
        with torch.set_grad_enabled(evaluated == "with a graph"):
            model.eval()(torch.randn(2, 3, 5, 5))
    model.train()
    before = copy.deepcopy(model.state_dict())
    versions = {name: b._version for name, b in model.named_buffers()}
    (spec,) = [s for s in inspect(model) if not s.skipped]
    measured = spec.read()[0]
    assert {name: b._version for name, b in model.named_buffers()} == versions
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    model(torch.randn(2, 3, 5, 5))
    np.testing.assert_allclose(measured, model[0].weight.detach().numpy(), rtol=1e-5)


def test_a_parametrisation_with_side_effects_leaves_none():
    class Restless(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("calls", torch.zeros(()))

        def forward(self, weight):
            self.calls += 1
            return weight + torch.rand(()) * 0

    layer = nn.Linear(3, 3)
    nn.utils.parametrize.register_parametrization(layer, "weight", Restless())
    chain = layer.parametrizations.weight[0]
    calls, random = chain.calls.clone(), torch.get_rng_state()
    matrices(layer, "weight")
    assert chain.calls == calls
    assert torch.equal(torch.get_rng_state(), random)
    with nn.utils.parametrize.cached():
        matrices(layer, "weight")
        assert layer.weight.requires_grad  # the cache holds none of ours


def test_a_parametrisation_that_fails_is_said():
    class Broken(nn.Module):
        def forward(self, weight):
            if self.training:
                return weight
            raise RuntimeError("only while training")

    layer = nn.Linear(3, 3)
    nn.utils.parametrize.register_parametrization(layer, "weight", Broken())
    assert "only while training" in by_name(layer)["weight"].skipped


def test_reading_asks_for_no_gradient():
    model = nn.Sequential(nn.Linear(3, 3))
    for spec in inspect(model):
        if not spec.skipped:
            spec.matrices()
    assert all(p.grad is None and p.requires_grad for p in model.parameters())


def test_wrappers_are_left_out_of_the_names(tmp_path):
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    names = list(by_name(model))
    assert list(by_name(torch.compile(model))) == names
    assert list(by_name(nn.DataParallel(model))) == names
    assert list(by_name(torch.optim.swa_utils.AveragedModel(model))) == names
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        wrapped = nn.parallel.DistributedDataParallel(torch.compile(model))
        assert list(by_name(wrapped)) == names
    finally:
        torch.distributed.destroy_process_group()
    fabric = pytest.importorskip("lightning.fabric", reason="needs lightning").Fabric(accelerator="cpu")
    assert list(by_name(fabric.setup(model))) == names
    inner = nn.ModuleDict({"module": nn.Linear(3, 3)})  # the user's own name stays
    assert list(by_name(inner)) == ["module.weight", "module.bias"]
    model[1] = torch.compile(model[1])
    assert list(by_name(model)) == names


def test_a_sharded_weight_is_gathered(tmp_path):
    from torch.distributed.tensor import DTensor, Shard, distribute_tensor, init_device_mesh

    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        layer = nn.Linear(4, 4)
        expected = layer.weight.detach().numpy().copy()
        mesh = init_device_mesh("cpu", (1,))
        layer.weight = nn.Parameter(distribute_tensor(layer.weight.detach(), mesh, [Shard(0)]))
        assert isinstance(layer.weight, DTensor)
        np.testing.assert_array_equal(matrices(layer, "weight")[0], expected)
    finally:
        torch.distributed.destroy_process_group()


def test_names_follow_named_parameters():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Sequential(nn.Linear(3, 3), nn.MultiheadAttention(4, 2)))
    paths = [p for spec in inspect(model) for p in spec.parameters]
    assert list(dict.fromkeys(paths)) == [name for name, _ in model.named_parameters()]


def test_nothing_warns():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for spec in inspect(nn.Sequential(nn.Linear(3, 3), nn.Conv1d(2, 2, 2))):
            if not spec.skipped:
                spec.matrices()
