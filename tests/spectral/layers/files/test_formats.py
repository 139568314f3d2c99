"""Files of weights: what is read from them, and how bad ones are refused."""

import contextlib
import json
import os
import pickle
import sys
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import nn

from ww_callbacks.spectral.layers import inspect


def measured(model):
    return {spec.name: spec.matrices() for spec in inspect(model) if not spec.skipped}


def assert_same(here, there):
    assert here.keys() == there.keys()
    for name in here:
        for a, b in zip(here[name], there[name], strict=True):
            np.testing.assert_array_equal(a, b)


@pytest.fixture
def model():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5), nn.Linear(6, 4), nn.Linear(4, 7).bfloat16(), nn.Linear(3, 4).half(),
        nn.Linear(3, 2).double(),
    )  # fmt: skip


def test_safetensors_in_every_precision_without_torch_s_help(model, tmp_path):
    path = tmp_path / "model.safetensors"
    safetensors.torch.save_file(model.state_dict(), path)
    assert_same(measured(path), measured(model.state_dict()))
    assert_same(measured(str(path)), measured(path))
    (matrix,) = measured(path)["2.weight"]
    assert not matrix.flags.writeable  # a view of the file: nothing was copied


def test_layers_come_in_the_order_of_their_numbers(tmp_path):
    path = tmp_path / "model.safetensors"
    safetensors.torch.save_file({f"h.{i}.weight": torch.ones(2, 2) for i in range(12)}, path)
    assert [spec.name for spec in inspect(path)] == [f"h.{i}.weight" for i in range(12)]


@pytest.mark.parametrize(
    "wrapped",
    [
        lambda state: state,
        lambda state: {
            "epoch": 3,
            "state_dict": state,
            "optimizer_states": [{"state": {0: {"exp_avg": torch.ones(9, 9)}}}],
        },
        lambda state: {"model_state_dict": state, "loss": 0.1},
        lambda state: {"model": state, "args": {"lr": 0.1}},
    ],
)
@pytest.mark.parametrize("zipped", [True, False])
def test_torch_checkpoints(model, tmp_path, wrapped, zipped):
    path = tmp_path / "model.ckpt"
    torch.save(wrapped(model.state_dict()), path, _use_new_zipfile_serialization=zipped)
    assert_same(measured(path), measured(model.state_dict()))


def test_nothing_in_a_checkpoint_is_executed(tmp_path):
    class Evil:
        def __reduce__(self):
            return (os.mkdir, (str(tmp_path / "executed"),))

    weights, evil = {"weight": torch.ones(2, 2)}, Evil()
    for zipped in (True, False):
        path = tmp_path / "beside.pt"
        torch.save({**weights, "evil": evil}, path, _use_new_zipfile_serialization=zipped)
        assert_same(measured(path), {"weight": [np.ones((2, 2))]})
    for name, content in (("only.pt", {"weight": evil}), ("bare.pt", evil)):
        (tmp_path / name).write_bytes(pickle.dumps(content))
        with pytest.raises(ValueError, match=name):
            inspect(tmp_path / name)
        torch.save(content, tmp_path / name)
        with pytest.raises(ValueError, match=rf"{name} contains .*posix.mkdir"):
            inspect(tmp_path / name)
    assert not (tmp_path / "executed").exists()


def test_weights_are_found_in_pickled_modules_and_beside_objects(model, tmp_path):
    class Run:
        def __init__(self):
            self.network, self.updates = model, 3

    state = model.state_dict()
    for zipped in (True, False):
        torch.save(model, tmp_path / "module.pt", _use_new_zipfile_serialization=zipped)
        assert_same(measured(tmp_path / "module.pt"), measured(state))
    with pytest.MonkeyPatch.context() as patched:
        patched.setitem(globals(), "Run", Run)
        Run.__qualname__ = "Run"
        torch.save({"run": Run(), "opt": Run()}, tmp_path / "object.pt")
        torch.save({"state_dict": state, "hyper_parameters": {"config": Run()}}, tmp_path / "lightning.ckpt")
    assert_same(measured(tmp_path / "object.pt"), measured(state))
    assert_same(measured(tmp_path / "lightning.ckpt"), measured(state))


@pytest.mark.filterwarnings("ignore")
def test_torchscript_never_comes_to_the_loader_that_runs_its_code(tmp_path, monkeypatch):
    torch.jit.script(nn.Linear(3, 2)).save(tmp_path / "scripted.pt")
    # As if the archive looked to us like a plain one: zip files can be made that two readers see differently.
    monkeypatch.setattr(zipfile, "ZipFile", lambda *_, **__: (_ for _ in ()).throw(zipfile.BadZipFile))
    monkeypatch.setattr(torch.jit, "load", lambda *_, **__: pytest.fail("the code was loaded"))
    with pytest.raises(ValueError, match=r"scripted\.pt is not a readable torch checkpoint"):
        inspect(tmp_path / "scripted.pt")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("make", ["script", "trace"])
def test_the_weights_of_torchscript_are_read_and_its_code_is_not(tmp_path, make):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5), nn.Flatten(), nn.Linear(20, 3)).eval()
    scripted = torch.jit.script(net) if make == "script" else torch.jit.trace(net, torch.rand(1, 3, 4, 4))
    scripted.save(tmp_path / "scripted.pt")
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(torch.jit, "load", None)
        found = {name.replace("/", "."): matrices for name, matrices in measured(tmp_path / "scripted.pt").items()}
    assert_same(found, measured(net))


def test_packed_weights_of_torch_s_own_quantisation(tmp_path):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 4))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        packed = torch.ao.quantization.quantize_dynamic(net, {nn.Linear})
        torch.save(packed.state_dict(), tmp_path / "int8.pt")
        (found,) = measured(tmp_path / "int8.pt").values()
        np.testing.assert_array_equal(found[0], packed[0].weight().dequantize().numpy())
    np.testing.assert_allclose(found[0], net[0].weight.detach().numpy(), atol=0.01)


def test_compressed_records_are_read_and_not_mapped(model, tmp_path):
    torch.save(model.state_dict(), tmp_path / "plain.pt")
    with (
        zipfile.ZipFile(tmp_path / "plain.pt") as plain,
        zipfile.ZipFile(tmp_path / "small.pt", "w", zipfile.ZIP_DEFLATED) as small,
    ):
        for record in plain.infolist():
            small.writestr(record.filename, plain.read(record))
    assert_same(measured(tmp_path / "small.pt"), measured(model.state_dict()))


@pytest.mark.filterwarnings("ignore")
def test_tensors_of_lying_shapes_are_not_spelt_out(tmp_path):
    place = torch.zeros(2, 1, dtype=torch.long)
    huge = torch.sparse_coo_tensor(place, torch.ones(1), (1 << 20, 1 << 20))
    few = torch.sparse_coo_tensor(torch.tensor([[0, 1], [1, 0]]), torch.tensor([3.0, 2.0]), (2, 2))
    torch.save({"huge": huge, "few": few, "repeated": torch.ones(1).expand(1 << 20, 1 << 20)}, tmp_path / "sparse.pt")
    specs = {spec.name: spec for spec in inspect(tmp_path / "sparse.pt")}
    assert "too many to expand" in specs["huge"].skipped
    assert "too many to expand" in specs["repeated"].skipped
    np.testing.assert_array_equal(specs["few"].matrices()[0], [[0, 3], [2, 0]])


def test_a_checkpoint_without_weights_is_refused(tmp_path):
    path = tmp_path / "empty.pt"
    torch.save({"epoch": 3, "lr": 0.1}, path)
    with pytest.raises(ValueError, match=r"contains no weights: it has 'epoch', 'lr'\. Expected a state dict"):
        inspect(path)
    torch.save([1, 2], path)
    with pytest.raises(ValueError, match="contains a list"):
        inspect(path)


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("share", [0.2, 0.5, 0.98])
def test_a_checkpoint_cut_off_is_refused_as_such(model, tmp_path, share, zipped):
    path = tmp_path / "cut.pt"
    torch.save(model.state_dict(), path, _use_new_zipfile_serialization=zipped)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(
        ValueError, match=r"cut\.pt is not a readable torch checkpoint: it may be truncated, damaged"
    ) as info:
        inspect(path)
    assert "Errno" not in str(info.value)


def test_an_empty_path_is_refused(tmp_path, monkeypatch):
    safetensors.torch.save_file({"w": torch.ones(2, 2)}, tmp_path / "model.safetensors")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="empty path"):
        inspect("")
    assert len(inspect(Path())) == 1  # the current folder, named as such


def test_missing_empty_and_foreign_files_are_refused_by_name(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nothing\.safetensors"):
        inspect(tmp_path / "nothing.safetensors")
    for name, content in (("none.pt", b""), ("notes.txt", b"these are notes"), ("model.safetensors", b"not one")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ValueError, match=name):
            inspect(tmp_path / name)
    (tmp_path / "weights.h5").write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(64))
    with pytest.raises(ValueError, match=r"weights\.h5 is not a readable Keras file"):
        inspect(tmp_path / "weights.h5")


@pytest.mark.parametrize("name", ["model.onnx", "model.keras", "model.safetensors", "model.pt", "folder"])
@pytest.mark.parametrize(
    ("content", "said"),
    [
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 9\n",
            "is a Git LFS pointer.*git lfs pull",
        ),
        (b"\n<!DOCTYPE html><html>sign in</html>", "is a web page.*download the file itself"),
    ],
)
def test_what_a_failed_download_leaves_is_named_as_such(tmp_path, name, content, said):
    path = tmp_path / ("model.safetensors" if name == "folder" else name)
    path.write_bytes(content)
    with pytest.raises(ValueError, match=rf"{path.name} {said}"):
        inspect(tmp_path if name == "folder" else path)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", ["safetensors", "pt", "legacy.pt", "onnx"])
def test_damaged_files_never_do_worse_than_an_error_that_names_them(kind, tmp_path):
    """Bytes are flipped and files cut: each is read, or refused by name."""
    path = tmp_path / f"model.{kind}"
    state = {"fc.weight": torch.arange(12.0).reshape(3, 4), "fc.bias": torch.zeros(3)}
    if kind == "safetensors":
        safetensors.torch.save_file(state, path)
    elif kind == "onnx":
        onnx = pytest.importorskip("onnx")
        node = onnx.helper.make_node("Gemm", ["x", "w"], ["y"], transB=1)
        tensor = onnx.numpy_helper.from_array(np.ones((3, 4), np.float32), "w")
        onnx.save(onnx.helper.make_model(onnx.helper.make_graph([node], "g", [], [], [tensor])), path)
    else:
        torch.save(state, path, _use_new_zipfile_serialization=kind == "pt")
    whole = path.read_bytes()
    rng = np.random.default_rng(0)
    for _ in range(150):
        damaged = bytearray(whole)
        for position in rng.integers(0, min(len(whole), 400), size=rng.integers(1, 4)):
            damaged[position] = rng.integers(0, 256)
        path.write_bytes(damaged[: rng.integers(1, len(whole))] if rng.random() < 0.3 else damaged)
        try:
            specs = inspect(path)
        except ValueError as error:
            assert path.name in str(error)
            continue
        for spec in specs:
            if not spec.skipped:
                # A layer that cannot be read is a row that says so (see test_analyze).
                with contextlib.suppress(ValueError, OSError, RuntimeError, TypeError):
                    spec.matrices()


@pytest.fixture
def folder(model, tmp_path):
    (tmp_path / "config.json").write_text("{}")
    return tmp_path


def test_a_folder_with_one_file(model, folder):
    safetensors.torch.save_file(model.state_dict(), folder / "model.safetensors")
    assert_same(measured(folder), measured(model.state_dict()))


@pytest.mark.parametrize("suffix", ["safetensors", "bin"])
def test_a_sharded_folder(model, folder, suffix):
    state = model.state_dict()
    names = list(state)
    stem = "model" if suffix == "safetensors" else "pytorch_model"
    placed = {}
    for i, part in enumerate((names[:4], names[4:])):
        file = f"{stem}-0000{i + 1}-of-00002.{suffix}"
        save = safetensors.torch.save_file if suffix == "safetensors" else torch.save
        save({name: state[name] for name in part}, folder / file)
        placed.update(dict.fromkeys(part, file))
    index = folder / f"{stem}.{suffix}.index.json"
    index.write_text(json.dumps({"weight_map": placed}))
    assert_same(measured(folder), measured(state))
    (folder / placed[names[0]]).unlink()
    with pytest.raises(FileNotFoundError, match="00001-of-00002"):
        inspect(folder)
    index.write_text(json.dumps({"weight_map": {"a": "../elsewhere.safetensors"}}))
    with pytest.raises(ValueError, match="outside of its folder"):
        inspect(folder)
    index.write_text("{")
    with pytest.raises(ValueError, match=r"index\.json"):
        inspect(folder)


def test_a_folder_without_weights_is_refused(folder):
    with pytest.raises(ValueError, match=r"Expected one of model\.safetensors"):
        inspect(folder)
    for name in ("a.safetensors", "b.safetensors"):
        safetensors.torch.save_file({"w": torch.ones(2, 2)}, folder / name)
    with pytest.raises(ValueError, match=r"a\.safetensors, b\.safetensors"):
        inspect(folder)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("stabilised", [False, True])
def test_an_adapter_folder_of_peft_knows_its_scaling(tmp_path, stabilised):
    peft = pytest.importorskip("peft")
    config = peft.LoraConfig(
        r=2,
        lora_alpha=8,
        use_rslora=stabilised,
        init_lora_weights=False,
        target_modules=["0", "1"],
        alpha_pattern={"1": 6},
    )
    model = peft.get_peft_model(nn.Sequential(nn.Linear(6, 4), nn.Linear(4, 6)), config)
    model.save_pretrained(tmp_path)
    here = {spec.name: spec for spec in inspect(model)}
    found = [spec for spec in inspect(tmp_path) if not spec.skipped]
    assert len(found) == 2
    for spec in found:
        np.testing.assert_allclose(spec.matrices()[0], here[spec.name].matrices()[0], rtol=1e-6)
    (tmp_path / "adapter_config.json").write_text("[]")
    with pytest.raises(ValueError, match=r"adapter_config\.json"):
        inspect(tmp_path)


def test_a_missing_package_is_named_with_its_extra(tmp_path, monkeypatch):
    torch.save({"w": torch.ones(2, 2)}, tmp_path / "model.pt")
    Path(tmp_path / "model.onnx").write_bytes(b"x")
    for module, name, extra in (("torch", "model.pt", "lightning"), ("onnx", "model.onnx", "onnx")):
        with monkeypatch.context() as patched:
            patched.setitem(sys.modules, module, None)
            with pytest.raises(ImportError, match=rf'{name}.*pip install "ww-callbacks\[{extra}\]"'):
                inspect(tmp_path / name)


def test_a_folder_in_parts_is_read_a_matrix_at_a_time(tmp_path):
    from ww_callbacks import spectral

    tracemalloc = pytest.importorskip("tracemalloc")
    rows = 512
    for part in range(4):
        weights = {f"layers.{4 * part + i}.weight": torch.randn(rows, rows).bfloat16() for i in range(4)}
        safetensors.torch.save_file(weights, tmp_path / f"model-{part + 1:05d}-of-00004.safetensors")
    spectral.analyze(tmp_path, "stable_rank", layers="layers.0.*", workers=1)  # what is loaded once
    tracemalloc.start()
    result = spectral.analyze(tmp_path, "stable_rank", workers=1)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(result.layers) == 16
    assert peak < 6 * rows * rows * 8  # 16 matrices in float32 are 8 of these
