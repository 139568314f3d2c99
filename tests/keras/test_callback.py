"""The Keras adapter in real ``fit`` calls; on the backend that KERAS_BACKEND names, torch by default."""

import json
import os
import random

os.environ.setdefault("KERAS_BACKEND", "torch")

import numpy as np
import pytest

keras = pytest.importorskip("keras", reason="needs the extra keras")

from ww_callbacks.keras import SpectralCallback


def model_of(seed=0, rate=0.1, **options):
    keras.utils.set_random_seed(seed)
    model = keras.Sequential(
        [
            keras.Input((12,)),
            keras.layers.Dense(24, activation="relu"),
            keras.layers.Dropout(0.2),
            keras.Sequential([keras.layers.Dense(16), keras.layers.Dense(3)], name="nested"),
        ]
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(rate, **options), loss, metrics=["accuracy"])
    return model


def fit(*callbacks, epochs=5, model=None, **options):
    generator = np.random.default_rng(0)
    x = generator.normal(size=(64, 12)).astype("float32")
    model = model or model_of()
    options = {"verbose": 0, "batch_size": 16, **options}
    history = model.fit(x, x[:, :3].argmax(1), epochs=epochs, callbacks=list(callbacks), **options)
    return model, history.history


def test_every_epoch_is_measured(tmp_path):
    callback = SpectralCallback(log_dir=tmp_path, verbose=0)
    _, logs = fit(callback)
    history = callback.history
    assert sorted(history.epoch.unique()) == [0, 1, 2, 3, 4, 5]
    assert sorted(history.step.unique()) == [0, 4, 8, 12, 16, 20]
    assert len(history.layer.unique()) == 3 and all("kernel" in name for name in history.layer)
    np.testing.assert_allclose(logs["spectral/effective_rank/median"], callback.summary["effective_rank/median"][1:])
    rows = [json.loads(line) for line in (tmp_path / "spectral.jsonl").open()]
    metrics = [row["metrics"] for row in rows if row["record"] == "model"]
    assert all(set(m) == {"train_loss", "first_loss", "train_accuracy", "learning_rate"} for m in metrics[1:])
    np.testing.assert_allclose([m["train_loss"] for m in metrics[1:]], logs["loss"])


def test_training_is_not_disturbed(tmp_path):
    states = []
    for callbacks in ((), (SpectralCallback(log_dir=tmp_path, quantities=["default", "rand_distance"], verbose=0),)):
        model, _ = fit(*callbacks)
        states.append((model.get_weights(), np.random.get_state()[1].tolist(), random.getstate()))
    (weights, *rest), (weights_with, *rest_with) = states
    for a, b in zip(weights, weights_with, strict=True):
        np.testing.assert_array_equal(a, b)
    assert rest == rest_with


def test_early_stopping_before_ours_in_the_list_sees_our_values(tmp_path):
    stopper = keras.callbacks.EarlyStopping("spectral/relative_distance_from_init/median", mode="min", patience=2)
    callback = SpectralCallback(log_dir=tmp_path, verbose=0)
    _, logs = fit(stopper, callback, epochs=10)
    assert len(logs["loss"]) == 3
    assert list(callback.summary.epoch) == [0, 1, 2, 3]


def test_stops_by_keras_own_means(tmp_path, capsys):
    callback = SpectralCallback(log_dir=tmp_path, policies={"non-finite": "stop"})
    _, logs = fit(Nan(), callback, epochs=8)
    assert len(logs["loss"]) == 3
    assert callback.verdict.stopped and "non-finite" in capsys.readouterr().out


class Nan(keras.callbacks.Callback):
    """Puts a NaN into the first kernel after the third epoch's last batch, before ours looks."""

    def on_train_batch_end(self, batch, logs=None):
        steps = int(keras.ops.convert_to_numpy(self.model.optimizer.iterations))
        if steps == 9:
            weights = self.model.get_weights()
            weights[0][0, 0] = np.nan
            self.model.set_weights(weights)


def test_few_epochs_are_measured_by_steps(tmp_path):
    callback = SpectralCallback(log_dir=tmp_path, verbose=0)
    fit(callback, epochs=1, batch_size=1)
    assert sorted(callback.history.step.unique()) == [*range(0, 64, 3), 64]


def test_event_files_hold_the_record(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    callback = SpectralCallback(log_dir=tmp_path, verbose=0)
    fit(callback)
    events = EventAccumulator(str(tmp_path), size_guidance={"tensors": 0}).Reload()
    read = events.Tensors("spectral/log_spectral_norm/median")
    assert [e.step for e in read] == [0, 4, 8, 12, 16, 20]
    values = [e.tensor_proto.float_val[0] for e in read]
    np.testing.assert_allclose(values, callback.summary["log_spectral_norm/median"], rtol=1e-6)


def test_refused_before_training(tmp_path):
    with pytest.raises(ValueError, match="matches nothing"):
        fit(SpectralCallback(log_dir=tmp_path, layers=["nothing*"]))


def test_a_model_that_is_built_by_its_first_batch(tmp_path):
    model = keras.Sequential([keras.layers.Dense(8), keras.layers.Dense(3)])
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    callback = SpectralCallback(log_dir=tmp_path, verbose=0)
    fit(callback, model=model)
    assert (callback.history.query("step == 0").distance_from_init == 0).all()
    assert (callback.history.query("step == 4").distance_from_init > 0).all()


def test_the_progress_bar_stays_whole(tmp_path, capsys):
    fit(SpectralCallback(log_dir=tmp_path), epochs=5, verbose=1)
    out = capsys.readouterr().out
    lines = [line for line in out.splitlines() if line.startswith("spectra: epoch")]
    assert len(lines) == 6  # epoch 0, too
    assert not any("spectral/" in line for line in out.splitlines())


def test_keras_own_checkpoint_keeps_the_epoch_that_the_detector_would_keep(tmp_path):
    keeper = keras.callbacks.ModelCheckpoint(
        tmp_path / "kept.weights.h5",
        monitor="spectral/overtraining/keep",
        mode="min",
        save_best_only=True,
        save_weights_only=True,
    )
    callback = SpectralCallback(log_dir=tmp_path / "log", verbose=0)
    model, logs = fit(keeper, callback)
    assert keeper.best == min(logs["spectral/overtraining/keep"]) == -5.0  # no alarm: the last epoch is the one to keep
    last = model.get_weights()
    model.set_weights([np.zeros_like(w) for w in last])
    model.load_weights(tmp_path / "kept.weights.h5")
    for kept, now in zip(model.get_weights(), last, strict=True):
        np.testing.assert_array_equal(kept, now)
