"""A Lightning run that stops and is resumed reads like one that was never interrupted."""

import shutil

import numpy as np
import pandas as pd
import pytest

pl = pytest.importorskip("pytorch_lightning", reason="needs the extra lightning")
import torch
from pytorch_lightning.callbacks import ModelCheckpoint

from tests.adapters.nets import Net, Validated, fit, same_batches, seeded
from tests.lifecycle.records import Stop, assert_same
from ww_callbacks.integrations.record import read_run
from ww_callbacks.lightning import SpectralCallback


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Runs that are not interrupted, each made once."""
    made = {}

    def run(kind, data=None, **settings):
        settings = settings or {"every_n_epochs": 1}
        key = (kind.__name__, *sorted(settings.items()))
        if key not in made:
            made[key] = tmp_path_factory.mktemp("whole")
            callback = SpectralCallback(log_dir=str(made[key]), verbose=0, **settings)
            fit(seeded(kind), callback, validate=kind is Validated, data=data)
        return made[key]

    return run


def interrupted(folder, kind, stop_at, checkpoint, background=False, data=None, **settings):
    """Train, stop by an error in the user's code, and continue from the last checkpoint in new objects."""
    record = folder / "record"
    settings = {"log_dir": str(record), "verbose": 0, "background": background} | (settings or {"every_n_epochs": 1})
    saver = ModelCheckpoint(folder / "checkpoints", save_top_k=-1, **checkpoint)
    with pytest.raises(Stop, match="the user's own error"):
        fit(seeded(kind, stop_at=stop_at), SpectralCallback(**settings), saver, validate=kind is Validated, data=data)
    last = max((folder / "checkpoints").glob("*.ckpt"), key=lambda path: path.stat().st_mtime_ns)
    callback = SpectralCallback(**settings)
    torch.manual_seed(1)  # the weights must come from the checkpoint
    fit(kind(), callback, validate=kind is Validated, data=data, ckpt_path=last)
    assert callback.directory == record
    return record, last


@pytest.mark.parametrize("epoch", [1, 2, 3])
def test_at_any_epoch(tmp_path, whole, epoch):
    record, checkpoint = interrupted(tmp_path, Net, (epoch, 2), {})
    assert_same(whole(Net), record)
    assert read_run(record).run.resumed_at == 4 * epoch
    held = torch.load(checkpoint, weights_only=True)["callbacks"]["ww_callbacks.lightning.SpectralCallback"]
    assert held["previous"] == {}, "W_0 and the weights that the checkpoint has anyway are not in it"


def test_saved_by_validation_before_the_epoch_ends(tmp_path, whole):
    record, _ = interrupted(tmp_path, Validated, (2, 1), {"monitor": "val_loss"})
    assert_same(whole(Validated), record)


def test_between_two_snapshots(tmp_path, whole):
    settings = {"every_n_steps": 5, "cheap_every_n_steps": 2}
    saving, data = {"every_n_train_steps": 3}, same_batches()
    record, checkpoint = interrupted(tmp_path, Net, (2, 3), saving, data=data, **settings)
    assert_same(whole(Net, data, **settings), record)
    held = torch.load(checkpoint, weights_only=True)["callbacks"]["ww_callbacks.lightning.SpectralCallback"]
    assert set(held["previous"]) == {"net.0.weight", "net.2.weight", "net.4.weight"}


def test_every_other_epoch(tmp_path, whole):
    record, _ = interrupted(tmp_path, Net, (3, 0), {}, every_n_epochs=2)
    assert_same(whole(Net, every_n_epochs=2), record)


def test_in_the_background(tmp_path, whole):
    record, _ = interrupted(tmp_path, Net, (2, 2), {}, background=True)
    a, b = read_run(whole(Net)), read_run(record)
    assert b.model["left_out"].eq("").all()
    pd.testing.assert_frame_equal(a.layers, b.layers)


def test_the_clock_and_the_cost_go_on(tmp_path):
    record, _ = interrupted(tmp_path, Net, (2, 2), {})
    model = read_run(record).model
    assert model["time"].is_monotonic_increasing
    assert model["overhead"].iloc[1:].between(0, 100).all()


def test_a_record_that_was_moved_is_found_by_its_folder(tmp_path, whole):
    record, checkpoint = interrupted(tmp_path, Net, (2, 2), {})
    shutil.copytree(record, tmp_path / "moved")
    shutil.rmtree(record)
    callback = SpectralCallback(log_dir=str(tmp_path / "moved"), verbose=0, every_n_epochs=1)
    fit(Net(), callback, ckpt_path=checkpoint)
    assert_same(whole(Net), tmp_path / "moved")


def test_where_w0_is_gone_a_new_record_begins_and_says_so(tmp_path, caplog):
    record, checkpoint = interrupted(tmp_path, Net, (2, 2), {})
    shutil.rmtree(record)
    callback = SpectralCallback(log_dir=str(tmp_path / "new"), verbose=0, every_n_epochs=1)
    trainer = fit(Net(), callback, ckpt_path=checkpoint)
    assert trainer.current_epoch == 4
    said = [r.message for r in caplog.records if r.name == "ww_callbacks"]
    assert len(said) == 1 and "w0.safetensors" in said[0] and "new record starts" in said[0]
    assert callback.summary["step"].tolist() == [8, 12, 16]
    assert callback.history.query("step == 8")["distance_from_init"].eq(0).all()


def test_a_checkpoint_of_a_run_without_the_callback(tmp_path):
    saver = ModelCheckpoint(tmp_path / "checkpoints")
    fit(seeded(), saver, epochs=1)
    (checkpoint,) = (tmp_path / "checkpoints").glob("*.ckpt")
    callback = SpectralCallback(log_dir=str(tmp_path / "record"), verbose=0, every_n_epochs=1)
    fit(Net(), callback, ckpt_path=checkpoint)
    assert callback.summary["step"].tolist() == [4, 8, 12, 16]


def test_a_foreign_state_in_the_checkpoint_is_said_and_training_goes_on(tmp_path, caplog):
    saver = ModelCheckpoint(tmp_path / "checkpoints")
    fit(seeded(), SpectralCallback(log_dir=str(tmp_path / "a"), verbose=0), saver, epochs=1)
    (path,) = (tmp_path / "checkpoints").glob("*.ckpt")
    checkpoint = torch.load(path, weights_only=True)
    held = checkpoint["callbacks"]["ww_callbacks.lightning.SpectralCallback"]
    held["state"]["layers"] = 7
    torch.save(checkpoint, path)
    callback = SpectralCallback(log_dir=str(tmp_path / "b"), verbose=0)
    trainer = fit(Net(), callback, ckpt_path=path)
    assert trainer.current_epoch == 4
    assert any("`layers` is 7" in r.message for r in caplog.records)
    assert np.isfinite(callback.history["frobenius_norm"]).all()
