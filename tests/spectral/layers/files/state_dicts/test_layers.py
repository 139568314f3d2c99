"""State dicts and nested parameters: the guess agrees with the modules where names and shapes can tell."""

import numpy as np
import pytest
import torch
import torch.nn.utils.prune
from torch import nn

from ww_callbacks.spectral.layers import inspect
from ww_callbacks.spectral.layers.selection import select


def measured(model, convolution="matrix"):
    return {spec.name: spec.matrices() for spec in inspect(model, convolution) if not spec.skipped}


def assert_same(here, there, rtol=0.0):
    assert here.keys() == there.keys()
    for name in here:
        for a, b in zip(here[name], there[name], strict=True):
            np.testing.assert_allclose(a, b, rtol=rtol, atol=rtol)


@pytest.fixture
def model():
    torch.manual_seed(0)
    model = nn.ModuleDict(
        {
            "emb": nn.Embedding(10, 4),
            "conv": nn.Conv2d(3, 5, 3),
            "up": nn.ConvTranspose2d(4, 6, 3, groups=2),
            "attention": nn.MultiheadAttention(8, 2),
            "lstm": nn.LSTM(3, 5, num_layers=2, bidirectional=True, proj_size=2),
            "gru": nn.GRUCell(3, 5),
            "norm": nn.BatchNorm2d(5),
            "head": nn.Linear(4, 10, bias=False),
            "low": nn.Linear(4, 3).bfloat16(),
        }
    )
    model["head"].weight = model["emb"].weight
    return model


@pytest.mark.parametrize("convolution", ["matrix", "slices", "separate"])
def test_a_state_dict_gives_what_the_module_gives(model, convolution):
    assert_same(measured(model.state_dict(), convolution), measured(model, convolution))


def test_tied_weights_are_measured_once(model):
    specs = {spec.name: spec for spec in inspect(model.state_dict())}
    assert specs["head.weight"].skipped == "tied: measured as `emb.weight`"
    assert "also stored as head.weight" in specs["emb.weight"].note


def test_the_guess_is_said(model):
    assert all(s.note.startswith("guessed") for s in inspect(model.state_dict()) if not s.skipped)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "wrap",
    [
        nn.utils.parametrizations.weight_norm,
        nn.utils.parametrizations.spectral_norm,
        nn.utils.weight_norm,
        nn.utils.spectral_norm,
        lambda layer: torch.nn.utils.prune.l1_unstructured(layer, "weight", 3),
    ],
)
@pytest.mark.parametrize("layer", [lambda: nn.Linear(5, 4), lambda: nn.ConvTranspose2d(3, 4, 2)])
def test_ingredients_are_put_together_as_torch_does(wrap, layer):
    torch.manual_seed(0)
    model = nn.Sequential(wrap(layer()))
    model(torch.rand(2, 5) if isinstance(model[0], nn.Linear) else torch.rand(1, 3, 4, 4))  # spectral norm's vectors
    state = model.state_dict()
    assert_same(measured(state), measured(model), rtol=1e-5)
    assert {p for spec in inspect(state) for p in spec.parameters} == set(state)


def test_prefixes_of_wrappers_are_left_out():
    state = nn.Sequential(nn.Linear(3, 3)).state_dict()
    for prefix in ("module.", "_orig_mod.", "module._orig_mod.", "_fsdp_wrapped_module."):
        assert [s.name for s in inspect({prefix + k: v for k, v in state.items()})] == ["0.weight", "0.bias"]
    averaged = torch.optim.swa_utils.AveragedModel(nn.Sequential(nn.Linear(3, 3)))
    assert [s.name for s in inspect(averaged.state_dict()) if not s.skipped] == ["0.weight"]
    assert inspect({"module.weight": np.eye(3), "other": np.eye(3)})[0].name == "module.weight"


def test_nested_parameters_with_flax_names():
    rng = np.random.default_rng(0)
    tree = {
        "encoder": {
            "dense": {"kernel": rng.standard_normal((4, 6)), "bias": np.zeros(6)},
            "conv": {"kernel": rng.standard_normal((3, 3, 2, 5))},
            "query": {"kernel": rng.standard_normal((6, 2, 3))},
            "norm": {"scale": np.ones(6)},
        },
        "tokens": {"embedding": rng.standard_normal((9, 6))},
    }
    found = measured(tree)
    assert {name: matrices[0].shape for name, matrices in found.items()} == {
        "encoder/dense/kernel": (6, 4),
        "encoder/conv/kernel": (5, 18),
        "encoder/query/kernel": (6, 6),
        "tokens/embedding": (6, 9),
    }
    np.testing.assert_array_equal(found["encoder/dense/kernel"][0], tree["encoder"]["dense"]["kernel"].T)


def test_a_bias_tells_which_axis_holds_the_outputs():
    (spec,) = [s for s in inspect({"fc.weight": np.ones((4, 6)), "fc.bias": np.ones(6)}) if not s.skipped]
    assert spec.matrix_shapes == ((6, 4),)


def test_low_rank_factors_without_their_scaling_are_measured_but_not_merged():
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((2, 6)), rng.standard_normal((4, 2))
    state = {"fc.base_layer.weight": np.ones((4, 6)), "fc.lora_A.default.weight": a, "fc.lora_B.default.weight": b}
    specs = {s.name: s for s in inspect(state)}
    np.testing.assert_allclose(specs["fc.lora_update[default]"].matrices()[0], b @ a)
    assert "scaling unknown" in specs["fc.lora_update[default]"].note
    assert not specs["fc.base_layer.weight"].skipped
    assert specs["fc.lora_A.default.weight"].skipped == "an ingredient of `fc.lora_update[default]`"


def test_values_that_are_no_weights_say_why():
    state = {
        "a": 3,
        "b": "text",
        "c": np.ones((2, 2), dtype=np.int64),
        "d": np.ones((2, 2), dtype=complex),
        "e": np.ones((0, 2)),
    }
    why = {s.name: s.skipped for s in inspect(state)}
    assert why["a"] == "not an array but int"
    assert why["b"] == "not an array but str"
    assert why["c"].startswith("int64")
    assert why["d"].startswith("complex")
    assert why["e"] == "empty"


def test_names_that_come_twice_are_told_apart():
    class Twice(dict):
        def items(self):
            return [("w", np.eye(2)), ("w/x", np.eye(3))]

    from ww_callbacks.spectral.layers import _unique

    specs = inspect(Twice(w=np.eye(2)))
    assert [s.name for s in _unique(specs + specs)][-2:] == ["w#2", "w/x#2"]


def test_one_matrix_is_a_layer():
    (spec,) = inspect(np.ones((3, 2)))
    assert (spec.name, spec.matrix_shapes) == ("matrix", ((3, 2),))


@pytest.mark.parametrize("thing", [3, None, np.ones(3), [3]])
def test_anything_else_is_refused(thing):
    with pytest.raises(TypeError, match=r"Expected a torch module, .* but got"):
        inspect(thing)


def test_a_name_with_brackets_can_be_selected():
    specs = inspect(nn.MultiheadAttention(4, 2))
    assert [s.name for s in select(specs, ["in_proj_weight[k]"])] == ["in_proj_weight[k]"]
    assert len(select(specs, ["in_proj_weight*"])) == 3
