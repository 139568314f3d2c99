import json

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from ww_callbacks.commands import main


@pytest.fixture
def weights():
    g = torch.Generator().manual_seed(0)
    low = torch.randn(60, 5, generator=g) @ torch.randn(5, 80, generator=g)
    return {
        "conv.weight": torch.randn(8, 2, 2, 2, generator=g),
        "dense.weight": low + 1e-4 * torch.randn(60, 80, generator=g),
        "dense.bias": torch.randn(60, generator=g),
        "counter": torch.tensor(7),
        "head.weight": torch.randn(10, 60, generator=g).to(torch.bfloat16),
        "zero.weight": torch.zeros(20, 20),
    }


def compress(*arguments):
    return main(["compress", *map(str, arguments)])


@pytest.mark.parametrize("kind", ["safetensors", "checkpoint", "folder"])
@pytest.mark.parametrize("randomised", [False, True])
def test_the_copy_multiplies_back_and_keeps_everything_else(kind, randomised, weights, tmp_path, capsys):
    if kind == "checkpoint":
        model = tmp_path / "model.ckpt"
        torch.save({"state_dict": weights, "epoch": 3}, model)
    else:
        model = tmp_path / "model.safetensors"
        save_file(weights, model)
    target = tmp_path / "low.safetensors"
    source = tmp_path if kind == "folder" else model
    assert compress(source, "--to", target, "--rank", 5, *(["--randomised"] if randomised else [])) == 0
    assert "dense.weight" in capsys.readouterr().out
    found = load_file(target)
    for name in ("conv.weight", "dense.bias", "counter", "zero.weight"):
        assert torch.equal(found[name], weights[name]) and found[name].dtype == weights[name].dtype
    product = found["dense.weight.u"] @ found["dense.weight.v"]
    assert found["dense.weight.u"].shape == (60, 5)
    assert product.numpy() == pytest.approx(weights["dense.weight"].numpy(), abs=2e-3)
    assert found["head.weight.u"].dtype == torch.bfloat16
    with safe_open(target, "pt") as file:
        assert file.metadata()["dense.weight.shape"] == "60,80"


def test_the_table_says_what_was_done_and_how_far_off_it_is(weights, tmp_path, capsys):
    model = tmp_path / "model.safetensors"
    save_file(weights, model)
    assert compress(model, "--to", tmp_path / "low.safetensors", "--json", "-o", tmp_path / "table.csv") == 0
    rows = {row["layer"]: row for row in json.loads(capsys.readouterr().out)["layers"]}
    dense = rows["dense.weight"]
    assert dense["what"] == "factorised" and dense["rank"] == dense["energy_rank"] <= 5 and dense["tail_rank"] >= 1
    assert dense["size"] == dense["rank"] * 140 / 4800
    factors = load_file(tmp_path / "low.safetensors")
    matrix = weights["dense.weight"].double().numpy()
    left = matrix - factors["dense.weight.u"].double().numpy() @ factors["dense.weight.v"].double().numpy()
    assert dense["relative_error"] == pytest.approx(np.linalg.norm(left) / np.linalg.norm(matrix), rel=1e-3)
    assert "zero" in rows["zero.weight"]["what"]
    assert (tmp_path / "table.csv").read_text().startswith("layer,shape")


def test_the_randomised_error_is_below_its_bound(weights, tmp_path, capsys):
    model = tmp_path / "model.safetensors"
    save_file(weights, model)
    assert compress(model, "--table-only", "--randomised", "--rule", "break-even", "--json") == 0
    for row in json.loads(capsys.readouterr().out)["layers"]:
        if row["what"] == "factorised":
            assert row["spectral_error"] <= 1.5 * row["bound_of_its_mean"] + 1e-7
    assert sorted(p.name for p in tmp_path.iterdir()) == ["model.safetensors"]


def test_nothing_to_gain_writes_nothing_and_says_so(tmp_path, capsys):
    model = tmp_path / "flat.safetensors"
    save_file({"w": torch.eye(20)}, model)
    assert compress(model, "--to", tmp_path / "low.safetensors") == 1
    assert "no gain at this rank" in capsys.readouterr().out
    assert not (tmp_path / "low.safetensors").exists()


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--rank", "0"], "--rank"),
        (["--energy", "1.5"], "--energy"),
        (["--to", "low.pt"], ".safetensors"),
        (["--to", "nowhere/low.safetensors"], "the folder nowhere does not exist"),
        (["-o", "table.txt"], "table.txt"),
        (["--layers", "encoder.*"], "matches nothing"),
        (["--rule", "tail", "--rank", "3"], "use only one of them"),
        (["--energy", "0.9", "--rule", "effective"], "has no effect with --rule effective"),
        (["--energy", "0.9", "--rank", "3"], "has no effect with --rank 3"),
    ],
)
def test_wrong_arguments_are_refused_before_the_work(arguments, message, weights, tmp_path, capsys):
    model = tmp_path / "model.safetensors"
    save_file(weights, model)
    assert compress(model, *arguments) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("way", ["same name", "another path", "hard link", "part of the folder"])
def test_the_source_is_never_written_over(way, weights, tmp_path, capsys):
    model = tmp_path / "victim.safetensors"
    save_file(weights, model)
    before = model.read_bytes()
    (tmp_path / "sub").mkdir()
    target = tmp_path / "sub" / ".." / "victim.safetensors" if way == "another path" else model
    if way == "hard link":
        target = tmp_path / "link.safetensors"
        target.hardlink_to(model)
    source = tmp_path if way == "part of the folder" else model
    assert compress(source, "--to", target, "--rank", 5) == 2
    assert "Choose another name" in capsys.readouterr().err
    assert model.read_bytes() == before


@pytest.mark.parametrize("as_folder", [False, True])
def test_a_low_rank_copy_is_not_factorised_again(as_folder, weights, tmp_path, capsys):
    model, copies = tmp_path / "model.safetensors", tmp_path / "copies"
    copies.mkdir()
    save_file(weights, model)
    assert compress(model, "--to", copies / "low.safetensors", "--rank", 5) == 0
    source = copies if as_folder else copies / "low.safetensors"
    assert compress(source, "--to", tmp_path / "again.safetensors", "--rank", 2) == 2
    assert "already a low-rank copy" in capsys.readouterr().err
    assert not (tmp_path / "again.safetensors").exists()


def test_the_share_sets_the_rank_of_the_energy_rule(weights, tmp_path, capsys):
    model = tmp_path / "model.safetensors"
    save_file(weights, model)
    ranks = {}
    for given in ([], ["--energy", "0.9"], ["--rule", "energy", "--energy", "0.5"]):
        assert compress(model, "--table-only", "--json", "--layers", "dense.weight", *given) == 0
        ranks[" ".join(given)] = json.loads(capsys.readouterr().out)["layers"][0]["rank"]
    assert ranks[""] == ranks["--energy 0.9"] > ranks["--rule energy --energy 0.5"]


def test_a_file_that_is_none_is_refused(tmp_path, capsys):
    (tmp_path / "model.safetensors").write_bytes(b"no weights")
    assert compress(tmp_path / "model.safetensors") == 2
    assert compress(tmp_path / "missing.pt") == 2
    assert "model.safetensors" in capsys.readouterr().err


def test_by_default_the_copy_goes_to_the_current_folder(weights, tmp_path, monkeypatch, capsys):
    (tmp_path / "far").mkdir()
    (tmp_path / "here").mkdir()
    save_file(weights, tmp_path / "far" / "model.safetensors")
    monkeypatch.chdir(tmp_path / "here")
    assert compress(tmp_path / "far" / "model.safetensors", "--rank", 5) == 0
    assert [path.name for path in (tmp_path / "here").iterdir()] == ["model-lowrank.safetensors"]
    with pytest.raises(SystemExit):
        compress("--help")
    assert "current folder" in " ".join(capsys.readouterr().out.split())
