"""Keras's files read without Keras, against what the live model gave that wrote them."""

import json
import os
import shutil
import subprocess
import sys
import zipfile
from importlib.machinery import PathFinder
from pathlib import Path

import numpy as np
import pytest

from tests.spectral.layers.files.keras_files.models import row
from ww_callbacks import spectral
from ww_callbacks.commands import EXIT_ERROR, EXIT_OK, main
from ww_callbacks.spectral.layers import inspect

h5py = pytest.importorskip("h5py")
if PathFinder.find_spec("keras") is None:
    pytest.skip("keras is not installed", allow_module_level=True)
ROOT = Path(__file__).parents[5]


@pytest.fixture(scope="module", params=["tensorflow", "torch"])
def folder(request, tmp_path_factory):
    """The files that one backend wrote."""
    if PathFinder.find_spec(request.param) is None:  # whatever this process keeps out of itself
        pytest.skip(f"{request.param} is not installed")
    where = tmp_path_factory.mktemp(request.param)
    environment = {**os.environ, "KERAS_BACKEND": request.param, "PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3"}
    command = [sys.executable, str(Path(__file__).with_name("models.py")), str(where)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=250)
    assert done.returncode == 0, done.stderr[-3000:]
    return where


def live(folder, name):
    """What the live model gave: its rows, and its matrices by layer."""
    held = dict(np.load(folder / f"{name}.npz"))
    return [tuple(map(str, r)) for r in json.loads(str(held.pop("info")))], held


def stored(path):
    specs = inspect(path)
    arrays = {f"{s.name}|{i}": m for s in specs if not s.skipped for i, m in enumerate(s.matrices())}
    return [tuple(map(str, json.loads(json.dumps(row(spec))))) for spec in specs], arrays


def assert_same(here, there):
    assert here.keys() == there.keys()
    for name in here:
        np.testing.assert_array_equal(here[name], there[name])


@pytest.mark.parametrize("name", ["functional", "subclass", "sequential", "half", "quantised"])
def test_a_keras_file_gives_what_the_live_model_gives(folder, name):
    """The same names, kinds, classes, shapes and values; the optimiser's state gives nothing."""
    (rows, arrays), (expected, matrices) = stored(folder / f"{name}.keras"), live(folder, name)
    assert sorted(rows) == sorted(expected)
    assert_same(arrays, matrices)


def test_layers_come_in_the_order_of_the_model(folder):
    rows, _ = stored(folder / "functional.keras")
    expected, _ = live(folder, "functional")
    measured = [[r[0] for r in some if r[4] == "False"] for some in (rows, expected)]
    assert measured[0] == measured[1]


def test_the_older_h5_gives_what_the_live_model_gives(folder):
    (rows, arrays), (expected, matrices) = stored(folder / "functional.h5"), live(folder, "functional")
    assert sorted(rows) == sorted(expected)
    assert_same(arrays, matrices)


@pytest.mark.parametrize("name", ["functional", "subclass", "sequential", "half"])
@pytest.mark.parametrize("suffix", [".weights.h5", ".weights.json"])
def test_weights_without_a_configuration_give_the_same_but_for_what_only_that_tells(folder, name, suffix):
    """Groups and equations are in no shape: a grouped kernel is taken to have one group, an einsum's is left out."""
    (rows, arrays), (expected, matrices) = stored(folder / f"{name}{suffix}"), live(folder, name)
    told = {key for key in matrices if not key.startswith(("conv2d/kernel", "einsum_dense/kernel"))}
    assert told <= arrays.keys() <= matrices.keys()
    assert_same({key: arrays[key] for key in told}, {key: matrices[key] for key in told})
    assert {r[0] for r in rows} == {r[0] for r in expected}


def test_int8_weights_without_a_configuration_are_left_out(folder):
    specs = {spec.name: spec for spec in inspect(folder / "quantised.weights.h5")}
    assert all(spec.skipped for spec in specs.values())
    assert any("int8" in spec.skipped for spec in specs.values())


def test_keras_files_are_analysed_compared_and_taken_as_a_baseline(folder, capsys):
    model, older = folder / "functional.keras", folder / "functional.h5"
    rows = spectral.analyze(model, "stable_rank", baseline=older).layers
    assert set(rows["status"]) == {"ok"}
    result = spectral.compare(model, older)
    assert not result.layers["changed"].any() and result.only_before == result.only_after == ()
    assert main(["compare", str(model), str(folder / "functional.weights.h5")]) == EXIT_OK
    assert " 0 changed, no finding" in capsys.readouterr().out
    with_distances = spectral.analyze(model, "distance_from_init", baseline=older).layers
    assert (with_distances["distance_from_init"] == 0).all()


@pytest.mark.parametrize("suffix", ["keras", "weights.h5"])
def test_the_callback_takes_a_keras_file_as_its_baseline(tmp_path, suffix):
    keras = pytest.importorskip("keras")
    from ww_callbacks.keras import SpectralCallback

    model = keras.Sequential([keras.Input((12,)), keras.layers.Dense(9), keras.layers.Dense(4)])
    model.compile(keras.optimizers.SGD(0.0), "mse")
    path = tmp_path / f"w0.{suffix}"
    model.save(path) if suffix == "keras" else model.save_weights(path)
    for layer in model.layers:
        layer.kernel.assign(layer.kernel * 1.25)
    callback = SpectralCallback(baseline=path, log_dir=tmp_path, quantities=["relative_distance_from_init"])
    model.fit(np.ones((4, 12)), np.ones((4, 4)), verbose=0, callbacks=[callback])
    distances = callback.history["relative_distance_from_init"].dropna()
    assert len(distances) >= 2
    np.testing.assert_allclose(distances, 0.25, rtol=1e-5)


def test_reading_needs_neither_keras_nor_a_backend(folder):
    code = (
        "import sys; from ww_callbacks import spectral; "
        f"assert len(spectral.analyze({str(folder / 'half.keras')!r}, 'norm').layers) == 2; "
        "sys.exit(len({'keras', 'tensorflow', 'jax', 'torch'} & set(sys.modules)))"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ, "PYTHONPATH": str(ROOT)})


def test_a_compressed_archive_is_read(folder, tmp_path):
    path = tmp_path / "packed.keras"
    with zipfile.ZipFile(folder / "half.keras") as whole, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed:
        for name in whole.namelist():
            packed.writestr(name, whole.read(name))
    assert_same(stored(path)[1], stored(folder / "half.keras")[1])


@pytest.mark.parametrize("name", ["functional.keras", "functional.h5", "functional.weights.h5"])
@pytest.mark.parametrize("share", [0.01, 0.5, 0.98])
def test_a_file_cut_off_is_refused_as_such_and_nothing_is_written(folder, tmp_path, name, share, capsys):
    whole = (folder / name).read_bytes()
    path = tmp_path / f"cut.{name.partition('.')[2]}"
    path.write_bytes(whole[: int(share * len(whole))])
    table = tmp_path / "table.csv"
    assert main(["analyze", str(path), "-o", str(table)]) == EXIT_ERROR
    printed = capsys.readouterr()
    assert f"{path} is not a readable Keras file: it may be truncated, damaged" in printed.err
    assert "model.save" in printed.err and printed.out == "" and not table.exists()


def test_other_hdf5_files_and_archives_are_refused_by_name(tmp_path):
    with h5py.File(tmp_path / "data.h5", "w") as file:
        file["measurements"] = np.ones((3, 4))
    with pytest.raises(ValueError, match=r"data\.h5 is an HDF5 file without weights written by Keras"):
        inspect(tmp_path / "data.h5")
    with zipfile.ZipFile(tmp_path / "empty.keras", "w") as archive:
        archive.writestr("config.json", "{}")
    with pytest.raises(ValueError, match=r"empty\.keras is not a readable Keras file.*no model\.weights\.h5"):
        inspect(tmp_path / "empty.keras")


def test_no_path_leads_out_of_a_file(folder, tmp_path):
    """Links to other files, data kept in other files, and shards elsewhere are not followed."""
    (tmp_path / "secret").write_bytes(np.ones((4, 3), np.float32).tobytes())
    shutil.copy(folder / "half.weights.h5", tmp_path / "other.h5")
    path = tmp_path / "linked.weights.h5"
    with h5py.File(path, "w") as file:
        own = file.create_group("layers/dense/vars")
        own["0"] = h5py.ExternalLink(str(tmp_path / "other.h5"), "layers/dense/vars/0")
        other = file.create_group("layers/dense_1/vars")
        other.create_dataset("0", (4, 3), "f4", external=[(str(tmp_path / "secret"), 0, 48)])
        file.create_group("layers/dense_2/vars")["0"] = np.ones((4, 3), np.float32)
    specs = inspect(path)
    assert [spec.name for spec in specs if not spec.skipped] == ["dense_2/kernel"]
    (left_out,) = (spec for spec in specs if spec.skipped)
    assert left_out.skipped.startswith("not in the file itself")
    index = tmp_path / "model.weights.json"
    index.write_text(json.dumps({"weight_map": {"/layers/dense/vars": "../other.h5"}}))
    with pytest.raises(ValueError, match="outside of its folder"):
        inspect(index)
    index.write_text(json.dumps({"weight_map": {"/layers/dense/vars": "gone.weights.h5"}}))
    with pytest.raises(FileNotFoundError, match=r"model\.weights\.json names files that do not exist: gone"):
        inspect(index)


def test_a_dataset_that_says_more_than_it_holds_is_not_read(tmp_path):
    path = tmp_path / "hollow.weights.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("layers/dense/vars/0", (1 << 20, 1 << 20), "f4", chunks=True)
        file.create_group("layers/dense_1/vars")["0"] = np.ones((4, 3), np.float32)
    assert [spec.name for spec in inspect(path) if not spec.skipped] == ["dense_1/kernel"]


def test_a_missing_h5py_is_named_with_its_extra(tmp_path, monkeypatch):
    (tmp_path / "model.keras").write_bytes(b"PK")
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(ImportError, match=r'model\.keras.*pip install "ww-callbacks\[h5\]"'):
        inspect(tmp_path / "model.keras")
