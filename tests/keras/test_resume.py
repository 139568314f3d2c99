"""The same for Keras, with its own BackupAndRestore; on the backend that KERAS_BACKEND names, torch by default."""

import os

os.environ.setdefault("KERAS_BACKEND", "torch")

import numpy as np
import pytest

keras = pytest.importorskip("keras", reason="needs the extra keras")

from tests.lifecycle.records import Stop, assert_same
from ww_callbacks.integrations.record import read_run
from ww_callbacks.keras import SpectralCallback


def model_of(seed=0):
    keras.utils.set_random_seed(seed)
    # Keras numbers what has no name over the whole process; a run that is resumed is in a new one.
    model = keras.Sequential(
        [keras.Input((12,)), keras.layers.Dense(24, "relu", name="a"), keras.layers.Dense(3, name="b")], name="net"
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(0.1, momentum=0.9), loss, metrics=["accuracy"])
    return model


def fit(model, *callbacks, epochs=4, **options):
    x = np.random.default_rng(0).normal(size=(64, 12)).astype("float32")
    model.fit(
        x,
        x[:, :3].argmax(1),
        epochs=epochs,
        batch_size=16,
        shuffle=False,
        verbose=0,
        callbacks=list(callbacks),
        **options,
    )
    return model


def stop_in(epoch):
    def stop(batch, logs=None):
        if batch == 2 and now[0] == epoch:
            raise Stop("the user's own error")

    now = [0]
    return keras.callbacks.LambdaCallback(
        on_epoch_begin=lambda epoch, logs=None: now.__setitem__(0, epoch), on_train_batch_end=stop
    )


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    fit(model_of(), SpectralCallback(log_dir=str(folder), verbose=0, every_n_epochs=1))
    return folder


def assert_events_go_on(record):
    """TensorBoard's own reader finds every snapshot of the record in the event files next to it."""
    from tensorboard.backend.event_processing.event_multiplexer import EventMultiplexer

    events = EventMultiplexer(size_guidance={"tensors": 0}).AddRunsFromDirectory(str(record)).Reload()
    # Files of one second are read in the order of their process numbers, which start again from time to time.
    read = sorted(events.Tensors(".", "spectral/log_spectral_norm/median"), key=lambda event: event.step)
    model = read_run(record).model
    assert [e.step for e in read] == model["step"].tolist()
    np.testing.assert_allclose([e.tensor_proto.float_val[0] for e in read], model["log_spectral_norm/median"], 1e-6)


@pytest.mark.parametrize("epoch", [1, 2, 3] if keras.backend.backend() == "torch" else [2])
@pytest.mark.parametrize("ours_first", [True, False])
def test_at_any_epoch(tmp_path, whole, epoch, ours_first, monkeypatch):
    # Without a folder named: the record is found by what is in the backup.
    settings = {"verbose": 0, "every_n_epochs": 1}
    monkeypatch.chdir(tmp_path)

    def callbacks():
        both = [SpectralCallback(**settings), keras.callbacks.BackupAndRestore(str(tmp_path / "backup"))]
        return both if ours_first else both[::-1]

    with pytest.raises(Stop, match="the user's own error"):
        fit(model_of(), *callbacks(), stop_in(epoch))
    fit(model_of(seed=1), *callbacks())
    (record,) = {path.parent for path in tmp_path.glob("spectral_runs/**/spectral.jsonl")}
    assert_same(whole, record)
    assert not (tmp_path / "backup").exists()
    assert {path.parent for path in tmp_path.rglob("events.out.tfevents.*")} == {record}
    assert_events_go_on(record)


def test_between_two_snapshots(tmp_path):
    def run(folder, stop_at):
        settings = {"verbose": 0, "every_n_epochs": 2, "log_dir": str(folder / "record")}
        backup = str(folder / "backup")
        try:
            extra = [stop_in(stop_at)] if stop_at else []
            fit(model_of(), SpectralCallback(**settings), keras.callbacks.BackupAndRestore(backup), *extra)
        except Stop:
            fit(model_of(1), SpectralCallback(**settings), keras.callbacks.BackupAndRestore(backup))
        return folder / "record"

    assert_same(run(tmp_path / "a", None), run(tmp_path / "b", 3))


def test_a_second_fit_that_goes_on(tmp_path, whole):
    model = model_of()
    callback = SpectralCallback(log_dir=str(tmp_path), verbose=0, every_n_epochs=1)
    fit(model, callback, epochs=2)
    fit(model, callback, initial_epoch=2)
    assert_same(whole, tmp_path)


def test_another_run_in_the_same_folder_is_no_resume(tmp_path):
    for seed in (0, 1):
        callback = SpectralCallback(log_dir=str(tmp_path), verbose=0, every_n_epochs=1)
        fit(model_of(seed), callback, epochs=2)
    assert callback.directory == tmp_path / "run-2"
    assert read_run(tmp_path).model["step"].tolist() == [0, 4, 8]
