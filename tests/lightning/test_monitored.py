"""What Lightning's own callbacks read of us belongs to the weights of the moment at which they read it."""

import time
from datetime import timedelta

import numpy as np
import pytest

pl = pytest.importorskip("pytorch_lightning", reason="needs the extra lightning")
import torch
from pytorch_lightning.callbacks import EarlyStopping, ModelCheckpoint

from tests.adapters.nets import Net, Validated, fit, loader, seeded
from tests.lightning.loops import During, Manual, stream
from ww_callbacks.lightning import SpectralCallback

MOVED = "spectral/relative_distance_from_init/median"
START = {name: w.detach().numpy().copy() for name, w in seeded().named_parameters() if w.ndim == 2}


def moved(weights):
    """What MOVED is of ``weights``: names → tensors."""
    shares = []
    for name, start in START.items():
        now = weights[name].detach().double().numpy()
        shares.append(np.linalg.norm(now - start) / np.linalg.norm(start.astype(float)))
    return float(np.median(shares))


def ours(folder, **settings):
    return SpectralCallback(log_dir=str(folder / "record"), verbose=0, **settings)


class Read(pl.Callback):
    """Reads as Lightning's own callbacks do: after every validation and at every epoch's end."""

    monitor = MOVED

    def __init__(self):
        self.seen = []

    def _read(self, trainer, pl_module):
        if not trainer.sanity_checking:
            value = float(trainer.callback_metrics[MOVED])
            self.seen.append((trainer.global_step, value, moved(dict(pl_module.named_parameters()))))

    def on_validation_end(self, trainer, pl_module):
        self._read(trainer, pl_module)

    def on_train_epoch_end(self, trainer, pl_module):
        self._read(trainer, pl_module)


def assert_scores_are_those_of_the_saved_weights(saver, count):
    assert len(saver.best_k_models) == count
    for path, score in saver.best_k_models.items():
        weights = torch.load(path, weights_only=True)["state_dict"]
        assert float(score) == pytest.approx(moved(weights), rel=1e-5), path


@pytest.mark.parametrize("settings", [{}, {"every_n_epochs": 3}, {"background": True}, {"max_overhead": 1e-6}])
def test_checkpoints_within_an_epoch_are_judged_by_their_own_weights(tmp_path, settings):
    saver = ModelCheckpoint(tmp_path / "c", monitor=MOVED, mode="max", every_n_train_steps=3, save_top_k=-1)
    fit(seeded(), ours(tmp_path, **settings), saver, data=loader(7), epochs=2)
    assert_scores_are_those_of_the_saved_weights(saver, 4)
    best = torch.load(saver.best_model_path, weights_only=True)
    assert best["global_step"] == 12, "the distance grows, so the last one saved is the best"


@pytest.mark.parametrize("settings", [{}, {"background": True}, {"every_n_steps": 5}])
def test_a_checkpoint_before_a_validation_takes_no_validation_value_away(tmp_path, settings):
    """It reads the value of its weights before they are validated; their snapshot is taken after that."""
    options = {"data": loader(4), "epochs": 5, "validate": True, "val_check_interval": 2}
    plain, watched = ours(tmp_path / "plain", every_n_epochs=1), ours(tmp_path / "watched", **settings)
    fit(seeded(Validated), plain, **options)
    saver = ModelCheckpoint(tmp_path / "c", monitor=MOVED, mode="max", every_n_train_steps=2, save_top_k=-1)
    fit(seeded(Validated), watched, saver, **options)
    assert_scores_are_those_of_the_saved_weights(saver, 10)
    assert watched.summary.step.is_unique and watched.summary.step.is_monotonic_increasing
    summary = watched.summary[watched.summary.step % 2 == 0]
    assert list(summary.step) == list(range(0, 21, 2)) and summary["metrics/val_loss"].iloc[1:].notna().all()
    at_ends = summary[summary.step % 4 == 0].reset_index(drop=True)
    assert list(at_ends["metrics/val_loss"])[1:] == list(plain.summary["metrics/val_loss"])[1:]
    assert watched.verdict.state == plain.verdict.state == "healthy"
    updates = watched.history.query("step > 0")["relative_update_norm"]
    assert (updates > 0).all()


def test_checkpoints_saved_by_the_clock(tmp_path):
    saver = ModelCheckpoint(
        tmp_path / "c", monitor=MOVED, mode="max", train_time_interval=timedelta(milliseconds=1), save_top_k=-1
    )
    slow = During(lambda trainer: time.sleep(0.003))
    fit(seeded(), slow, saver, ours(tmp_path, every_n_epochs=5), data=loader(6), epochs=1)
    assert_scores_are_those_of_the_saved_weights(saver, 6)


def test_manual_optimisation(tmp_path):
    saver = ModelCheckpoint(tmp_path / "c", monitor=MOVED, mode="max", every_n_train_steps=4, save_top_k=-1)
    fit(seeded(Manual, optimizers=2), ours(tmp_path), saver, data=loader(8), epochs=1)
    assert_scores_are_those_of_the_saved_weights(saver, 4)


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("settings", [{}, {"every_n_epochs": 4}, {"every_n_steps": 5}, {"background": True}])
def test_validation_within_an_epoch(tmp_path, first, settings):
    reader, callback = Read(), ours(tmp_path, **settings)
    order = (reader, callback) if first else (callback, reader)
    fit(seeded(Validated), *order, data=loader(8), epochs=3, validate=True, val_check_interval=3)
    assert [step for step, *_ in reader.seen] == [3, 6, 8, 11, 14, 16, 19, 22, 24]
    for step, value, now in reader.seen:
        assert value == pytest.approx(now, rel=1e-5), step
    summary = callback.summary
    assert summary["step"].is_monotonic_increasing and summary["step"].is_unique


@pytest.mark.parametrize("every", [1, 2])
def test_validation_of_some_epochs(tmp_path, every):
    reader = Read()
    fit(seeded(Validated), reader, ours(tmp_path), epochs=4, validate=True, check_val_every_n_epoch=every)
    assert {step for step, *_ in reader.seen} == {4, 8, 12, 16}
    assert all(value == pytest.approx(now, rel=1e-5) for _, value, now in reader.seen)


def test_a_monitor_that_looks_within_the_first_epoch_ends_nothing(tmp_path):
    """The value of W_0 is known from the start, and that of the third step is measured when it is looked for."""
    saver = ModelCheckpoint(tmp_path / "c", monitor="spectral/effective_rank/median", save_top_k=-1)
    stopper = EarlyStopping("spectral/effective_rank/median", patience=99)
    options = {"validate": True, "val_check_interval": 3, "num_sanity_val_steps": 2}
    trainer = fit(seeded(Validated), stopper, saver, ours(tmp_path), data=loader(9), epochs=2, **options)
    assert trainer.global_step == 18 and len(saver.best_k_models) == 6


def test_a_learning_rate_scheduler_that_reads_every_other_step(tmp_path):
    seen = []

    class Scheduled(Net):
        def configure_optimizers(self):
            optimizer = super().configure_optimizers()
            scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer)
            config = {"scheduler": scheduler, "monitor": MOVED, "interval": "step", "frequency": 2}
            return {"optimizer": optimizer, "lr_scheduler": config}

        def lr_scheduler_step(self, scheduler, metric):
            seen.append((float(metric), moved(dict(self.named_parameters()))))

    fit(seeded(Scheduled), ours(tmp_path), data=loader(6), epochs=2)
    assert len(seen) == 6 and all(value == pytest.approx(now, rel=1e-5) for value, now in seen)


def test_a_scheduler_that_monitors_an_unknown_value_is_refused(tmp_path):
    class Scheduled(Net):
        def configure_optimizers(self):
            optimizer = super().configure_optimizers()
            scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer)
            return {"optimizer": optimizer, "lr_scheduler": scheduler, "monitor": "spectral/effective_rnk/median"}

    with pytest.raises(ValueError, match="LRSchedulerConfig monitors 'spectral/effective_rnk/median'"):
        fit(seeded(Scheduled), ours(tmp_path))


def test_a_name_of_ours_in_a_checkpoints_file_name(tmp_path):
    saver = ModelCheckpoint(
        tmp_path / "c",
        filename=f"{{step}}-{{{MOVED}:.6f}}",
        auto_insert_metric_name=False,
        every_n_train_steps=2,
        save_top_k=-1,
    )
    fit(seeded(), ours(tmp_path), saver, data=loader(4), epochs=1)
    for path in (tmp_path / "c").rglob("*.ckpt"):
        weights = torch.load(path, weights_only=True)["state_dict"]
        assert float(path.stem.rpartition("-")[2]) == pytest.approx(moved(weights), abs=1e-5)


def test_nothing_more_is_measured_where_nobody_looks(tmp_path):
    saver = ModelCheckpoint(tmp_path / "c", monitor="val_loss", every_n_train_steps=2, save_top_k=-1)
    callback = ours(tmp_path)
    options = {"validate": True, "val_check_interval": 2}
    fit(seeded(Validated), EarlyStopping("val_loss"), saver, callback, epochs=6, data=loader(4), **options)
    steps = callback.summary["step"]
    assert (steps % 4 == 0).all() and steps.is_unique


class Noting(pl.Callback):
    def __init__(self):
        self.logged = {}

    def on_validation_end(self, trainer, pl_module):
        if not trainer.sanity_checking:
            self.logged[trainer.global_step] = float(trainer.callback_metrics["val_loss"])


def test_validation_values_are_of_the_weights_of_their_row(tmp_path):
    """Of a validation within an epoch only what was measured at the same step, and at its end the epoch's last."""
    callback, noting = ours(tmp_path, every_n_steps=2, every_n_epochs=1), Noting()
    fit(seeded(Validated), noting, callback, data=loader(9), epochs=2, validate=True, val_check_interval=4)
    logged = noting.logged
    assert list(logged) == [4, 8, 13, 17]
    rows = callback.summary.set_index("step")["metrics/val_loss"]
    assert rows.index.tolist() == [0, *range(2, 9, 2), 9, *range(10, 18, 2), 18]
    expected = {4: logged[4], 8: logged[8], 9: logged[8], 18: logged[17]}
    assert rows.dropna().to_dict() == pytest.approx(expected, rel=1e-6)


def test_validation_values_of_a_stream_without_epochs(tmp_path):
    callback, noting = ours(tmp_path), Noting()
    options = {"validate": True, "val_check_interval": 10, "max_steps": 60, "check_val_every_n_epoch": None}
    fit(seeded(Validated), noting, callback, data=stream(), epochs=-1, **options)
    rows = callback.summary.set_index("step")["metrics/val_loss"]
    assert rows.index.tolist() == list(range(0, 61, 3))
    expected = {step: noting.logged[step] for step in (30, 60)}
    assert rows.dropna().to_dict() == pytest.approx(expected, rel=1e-6)


def test_a_snapshot_put_off_is_taken_where_no_validation_comes(tmp_path, monkeypatch):
    from ww_callbacks.lightning import private

    monkeypatch.setattr(private, "validates_now", lambda trainer: True)
    callback = ours(tmp_path, every_n_steps=3)
    fit(seeded(), callback, data=loader(5), epochs=2)
    assert callback.summary["step"].tolist() == [0, 3, 6, 9, 10]
    moved_by = callback.history.groupby("step")["relative_distance_from_init"].median()
    assert moved_by.is_monotonic_increasing
