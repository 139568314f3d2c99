"""Steps and epochs in the loops that Lightning's own counter does not count, or counts otherwise."""

import pytest

pl = pytest.importorskip("pytorch_lightning", reason="needs the extra lightning")
import pandas as pd
from pytorch_lightning.loggers import CSVLogger

from tests.adapters.nets import Net, fit, loader, seeded
from tests.lightning.loops import HandMade, Manual, stream
from ww_callbacks.lightning import SpectralCallback


def watched(folder, model, data=None, epochs=4, settings=None, **options):
    callback = SpectralCallback(log_dir=str(folder), verbose=0, **(settings or {}))
    trainer = fit(model, callback, data=data, epochs=epochs, **options)
    return callback, trainer


def steps_of(callback, kind="full"):
    summary = callback.summary
    return summary[summary["kind"] == kind]["step"].tolist()


def test_raw_optimisers_that_lightning_does_not_count(tmp_path):
    model = seeded(Manual, wrapped=False, spoil_at=(2, 1))
    callback, trainer = watched(tmp_path, model, epochs=6)
    assert trainer.global_step == 0
    assert callback.summary["step"].tolist() == [0, 4, 8, 12, 16, 20, 24]
    assert callback.summary["epoch"].tolist() == [0, 1, 2, 3, 4, 5, 6]
    found = next(a for a in callback.alerts if a.kind == "non-finite")
    assert found.epoch == 3 and callback.verdict.state == "broken"


@pytest.mark.parametrize("optimizers", [1, 2, 3])
@pytest.mark.parametrize("wrapped", [True, False])
def test_several_optimisers_count_a_batch_once(tmp_path, optimizers, wrapped):
    settings = {"every_n_steps": 10, "cheap_every_n_steps": 7}
    model = seeded(Manual, optimizers=optimizers, wrapped=wrapped)
    callback, trainer = watched(tmp_path, model, loader(45), epochs=1, settings=settings)
    assert trainer.global_step == (45 * optimizers if wrapped else 0)
    assert steps_of(callback) == [0, 10, 20, 30, 40, 45]
    assert steps_of(callback, "cheap") == [7, 14, 21, 28, 35, 42]


@pytest.mark.parametrize("wrapped", [True, False])
def test_gradients_accumulated_by_hand(tmp_path, wrapped):
    model = seeded(Manual, wrapped=wrapped, accumulate=4)
    callback, _ = watched(tmp_path, model, loader(24), epochs=2, settings={"every_n_steps": 5})
    assert steps_of(callback) == [0, 5, 10, 12]


def test_gradients_accumulated_by_lightning(tmp_path):
    """Five batches an epoch, three accumulated: Lightning steps at the third, and at the last one."""
    settings = {"every_n_steps": 3}
    callback, trainer = watched(tmp_path, seeded(), loader(5), epochs=4, settings=settings, accumulate_grad_batches=3)
    assert trainer.global_step == 8 and steps_of(callback) == [0, 3, 6, 8]


def test_weights_updated_by_hand_are_counted_from_the_second_epoch_on(tmp_path):
    callback, trainer = watched(tmp_path, seeded(HandMade), epochs=5)
    assert trainer.global_step == 0
    summary = callback.summary
    assert summary["epoch"].tolist()[-3:] == [3, 4, 5] and summary["step"].is_monotonic_increasing
    assert callback.history.query("epoch == 5")["distance_from_init"].gt(0).all()


@pytest.mark.parametrize("nothing", [{"limit_train_batches": 0}, {"epochs": 0}, {"max_steps": 0}])
def test_where_nothing_is_trained_the_weights_are_recorded(tmp_path, nothing):
    callback, _ = watched(tmp_path, seeded(), **nothing)
    assert callback.summary["step"].tolist() == [0]
    assert len(callback.history) == 3 and callback.history["status"].eq("ok").all()
    assert callback.verdict is not None


@pytest.mark.parametrize(
    ("data", "options", "expected"),
    [
        (None, {"max_steps": 100, "epochs": -1}, list(range(0, 101, 5))),
        (None, {"max_steps": 100, "epochs": 50}, list(range(0, 101, 5))),  # an epoch that never ends
        (None, {"max_steps": 1100, "epochs": -1, "limit_train_batches": None}, list(range(0, 1101, 55))),
        (7, {"epochs": 3}, [0, 7, 14, 21]),
        (1200, {"epochs": 1}, [0, 500, 1000, 1200]),
    ],
)
def test_streams(tmp_path, data, options, expected):
    callback, _ = watched(tmp_path, seeded(), stream(data), **options)
    assert steps_of(callback) == expected


def test_a_stream_with_two_optimisers_is_measured_about_twenty_times(tmp_path):
    model = seeded(Manual, optimizers=2)
    callback, trainer = watched(tmp_path, model, stream(), epochs=-1, max_steps=200)  # Lightning counts both
    assert trainer.global_step == 200 and steps_of(callback) == list(range(0, 101, 5))


def test_a_run_that_steps_end_within_an_epoch(tmp_path):
    callback, _ = watched(tmp_path, seeded(), loader(4), epochs=100, max_steps=22)
    assert callback.summary["step"].tolist() == [0, 4, 8, 12, 16, 20, 22]
    assert callback.summary["epoch"].tolist() == [0, 1, 2, 3, 4, 5, 5.5]


def test_a_stop_of_ours_waits_for_min_steps(tmp_path):
    model = seeded(Manual, spoil_at=(0, 1))
    settings = {"policies": {"non-finite": "stop"}}
    callback, trainer = watched(tmp_path, model, loader(4), epochs=50, settings=settings, min_steps=18)
    assert callback.verdict.stopped and 18 <= trainer.global_step <= 20
    assert callback.summary["step"].iloc[-1] == trainer.global_step


def test_the_same_rows_under_the_same_steps_as_lightnings_own(tmp_path):
    """Lightning logs by batches; ours are next to its rows, also where it counts no step or several."""

    class Logging(Manual):
        def training_step(self, batch, index):
            loss = super().training_step(batch, index)
            self.log("mine", loss)
            return loss

    for name, arguments in {"raw": {"wrapped": False}, "two": {"optimizers": 2}, "four": {"accumulate": 4}}.items():
        model, logger = seeded(Logging, **arguments), CSVLogger(tmp_path / name)
        settings = {"every_n_steps": 2}
        watched(tmp_path / name / "r", model, loader(8), 2, settings, logger=logger, log_every_n_steps=1)
        rows = pd.read_csv(tmp_path / name / "lightning_logs" / "version_0" / "metrics.csv")
        ours = rows[rows["spectral/effective_rank/median"].notna()]["step"].tolist()
        per_step = arguments.get("accumulate", 1)
        assert ours == [0, *range(2 * per_step - 1, 16, 2 * per_step)], name


class Interrupted(Exception):
    pass


def test_resumed_with_several_optimisers(tmp_path):
    """The clock's own count continues, not Lightning's, which is twice as large."""
    from pytorch_lightning.callbacks import ModelCheckpoint

    from tests.lifecycle.records import assert_same
    from tests.lightning.loops import During

    settings = {"every_n_steps": 3}
    watched(tmp_path / "whole", seeded(Manual, optimizers=2), loader(4), settings=settings)

    def stop(trainer):
        if trainer.fit_loop.epoch_loop._batches_that_stepped == 10:
            raise Interrupted

    saver = ModelCheckpoint(tmp_path / "checkpoints", save_top_k=-1)
    with pytest.raises(Interrupted):
        callback = SpectralCallback(log_dir=str(tmp_path / "cut"), verbose=0, **settings)
        fit(seeded(Manual, optimizers=2), callback, saver, During(stop), data=loader(4))
    last = max((tmp_path / "checkpoints").glob("*.ckpt"), key=lambda path: path.stat().st_mtime_ns)
    callback = SpectralCallback(log_dir=str(tmp_path / "cut"), verbose=0, **settings)
    fit(Manual(optimizers=2), callback, data=loader(4), ckpt_path=last)
    assert callback.summary["step"].tolist() == [0, 3, 6, 9, 12, 15, 16]
    assert_same(tmp_path / "whole", tmp_path / "cut")


def test_the_default_net_counts_as_lightning_does(tmp_path):
    callback, trainer = watched(tmp_path, seeded(Net), loader(10), settings={"every_n_steps": 15})
    assert trainer.global_step == 40 and steps_of(callback) == [0, 15, 30, 40]
