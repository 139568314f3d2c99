"""One model's weights under the names of two places."""

import numpy as np
import pytest
import torch
from torch import nn

from ww_callbacks import spectral
from ww_callbacks.spectral.layers import inspect
from ww_callbacks.spectral.layers.matching import arrays_from
from ww_callbacks.spectral.layers.names import renaming


def named(*names, shape=(3, 2)):
    return dict.fromkeys(names, shape)


@pytest.mark.parametrize(
    ("ours", "theirs", "prefix"),
    [
        ("0.weight", "model.0.weight", "`model.`"),
        ("model.0.weight", "0.weight", "`model.`"),
        ("module.0.weight", "0.weight", ""),
        ("model._orig_mod.0.weight", "model.0.weight", ""),
        ("base_model.model.0.merged_weight", "0.weight", "`base_model.model.`"),
        ("student.0.weight", "backbone.0.weight", "`student.` here and `backbone.` there"),
        ("encoder/0/weight", "params/encoder/0/weight", "`params.`"),
        ("weight", "linear.weight", "`linear.`"),
    ],
)
def test_prefixes_are_left_out_and_said(ours, theirs, prefix):
    def several(name):
        return [name.replace("0", str(i)) for i in range(3)] if "0" in name else [name]

    found = renaming(named(*several(ours)), named(*several(theirs), "head.bias"))
    assert found.theirs == dict(zip(several(ours), several(theirs), strict=True))
    assert found.remark == (f"names matched without the prefix {prefix}" if prefix else "")


def test_what_only_looks_alike_is_not_matched():
    same = [f"encoder.{i}.weight" for i in range(4)]
    # Most names are the same: the rest are other layers, though two of them end alike.
    found = renaming(named(*same, "pooler.dense.weight"), named(*same, "cls.dense.weight"))
    assert list(found.theirs) == same
    # Two prefixes explain as much: neither is taken.
    assert not renaming(
        named("0.weight", "1.weight"), named("a.0.weight", "a.1.weight", "b.0.weight", "b.1.weight")
    ).theirs
    assert not renaming(named("a.weight"), named("b.weight")).theirs
    assert not renaming(named("0.weight"), named("model.0.weight", shape=(9, 9))).theirs


def test_a_wrapped_checkpoint_against_the_bare_network():
    torch.manual_seed(0)
    net = nn.ModuleDict({"attention": nn.MultiheadAttention(8, 2), "fc": nn.Linear(8, 3)})
    state = {f"model.{name}": value.numpy() * 1.1 for name, value in net.state_dict().items()}
    result = spectral.compare(state, net)
    assert result.only_before == result.only_after == ()
    assert result.layers["changed"].all()
    assert "names matched without the prefix `model.`" in result.heading()
    packed = arrays_from(inspect(net), state)
    assert set(packed) == {spec.name for spec in inspect(net) if not spec.skipped}
    np.testing.assert_array_equal(
        packed["attention.in_proj_weight[k]"][0], state["model.attention.in_proj_weight"][8:16]
    )
    table = spectral.analyze(net, ["distance_from_init"], baseline=state)
    assert np.isfinite(table.layers["distance_from_init"]).all()
    assert "`model.`" in table.heading()


def test_filters_do_not_make_layers_missing():
    net = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2))
    state = {f"model.{name}": value for name, value in net.state_dict().items()}
    result = spectral.compare(state, net, layers="0.*")
    assert list(result.layers["layer"]) == ["0.weight"]
    assert result.only_before == ()


def test_a_baseline_of_which_one_layer_cannot_be_read_loses_no_other(tmp_path):
    from ww_callbacks.spectral.layers.files.stored_arrays import Stored

    def broken():
        raise OSError("the disk is gone")

    net = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2))
    before = {"0.weight": Stored((3, 4), broken), "1.weight": net.state_dict()["1.weight"]}
    result = spectral.compare(before, net)
    assert list(result.layers["unusable_before"]) == ["failed: OSError: the disk is gone", ""]
    assert list(spectral.analyze(net, ["distance_from_init"], baseline=before).layers["status"])[1] == "ok"
