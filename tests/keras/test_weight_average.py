"""The average of the weights in Keras; on the backend that KERAS_BACKEND names, torch by default."""

import importlib.util
import os
import subprocess
import sys

os.environ.setdefault("KERAS_BACKEND", "torch")

import numpy as np
import pytest

keras = pytest.importorskip("keras", reason="needs the extra keras")

from tests.adapters.saved_weights.best_epoch import best_at
from ww_callbacks.keras import SpectralCallback

BACKEND = keras.backend.backend()
STEPS, EPOCHS = 4, 3
SETTINGS = {"verbose": 0, "early_stopping": "cautious"}


class Trace(keras.callbacks.Callback):
    """Every step's weights."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def on_train_batch_end(self, batch, logs=None):
        self.seen.append([np.array(w) for w in self.model.get_weights()])

    def average(self, count=None):
        seen = self.seen[:count]
        w = np.array([(1 - 1 / STEPS) ** (len(seen) - 1 - s) for s in range(len(seen))])
        return [np.tensordot(w / w.sum(), np.array(arrays), 1) for arrays in zip(*seen, strict=True)]


def model_of():
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((12,)),
            keras.layers.Dense(8, trainable=False),
            keras.layers.Dense(16, activation="relu"),
            keras.layers.BatchNormalization(),
            keras.layers.Dropout(0.1),
            keras.layers.Dense(3),
        ]
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(0.1, momentum=0.9), loss)
    return model


def fit(*callbacks, model=None, epochs=EPOCHS, **options):
    generator = np.random.default_rng(0)
    x = generator.normal(size=(STEPS * 16, 12)).astype("float32")
    model = model or model_of()
    model.fit(
        x,
        x[:, :3].argmax(1),
        epochs=epochs,
        callbacks=list(callbacks),
        verbose=0,
        batch_size=16,
        shuffle=False,
        **options,
    )
    return model


def assert_close(found, expected):
    for one, other in zip(found, expected, strict=True):
        if one.dtype.kind == "f":  # dropout's random state is not averaged
            np.testing.assert_allclose(one, other, atol=2e-6)


def test_raw_and_averaged_weights_are_kept_and_the_training_is_the_same(tmp_path):
    trace, callback = Trace(), SpectralCallback(log_dir=tmp_path, **SETTINGS)
    model = fit(callback, trace)
    for one, other in zip(model.get_weights(), fit().get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    last = STEPS * EPOCHS
    assert sorted(p.name for p in tmp_path.glob("best-*")) == [
        f"best-step-{last}-average.weights.h5",
        f"best-step-{last}.weights.h5",
    ]
    other = model_of()
    other.load_weights(callback.best_checkpoint)
    assert_close(other.get_weights(), trace.seen[-1])
    other.load_weights(callback.best_average)
    assert_close(other.get_weights(), trace.average())


@pytest.mark.parametrize("averaged", [True, False])
def test_the_best_weights_are_in_the_model_at_the_end(tmp_path, averaged, monkeypatch):
    best_at(monkeypatch, 2 * STEPS)
    trace = Trace()
    callback = SpectralCallback(log_dir=tmp_path, restore="best", keep_average=averaged, **SETTINGS)
    model = fit(callback, trace)
    assert_close(model.get_weights(), trace.average(2 * STEPS) if averaged else trace.seen[2 * STEPS - 1])
    assert (callback.best_average is not None) == averaged


def test_a_run_that_is_taken_up_again_has_the_same_average(tmp_path):
    trace = Trace()
    fit(SpectralCallback(log_dir=tmp_path / "whole", **SETTINGS), trace)
    keras.utils.clear_session()
    model = model_of()
    fit(SpectralCallback(log_dir=tmp_path / "parts", **SETTINGS), model=model, epochs=1)
    callback = SpectralCallback(log_dir=tmp_path / "parts", restore="best", **SETTINGS)
    fit(callback, model=model, initial_epoch=1)
    assert callback.run.resumed
    assert_close(model.get_weights(), trace.average())


def test_the_users_own_average_stands_alone(tmp_path):
    model = model_of()
    model.optimizer.use_ema = True
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(0.1, use_ema=True), loss)
    callback = SpectralCallback(log_dir=tmp_path / "kept", **SETTINGS)
    fit(callback, model=model)
    assert callback.best_checkpoint is not None and callback.best_average is None
    with pytest.raises(ValueError, match="either `restore='best'` or an optimiser with `use_ema`"):
        fit(SpectralCallback(log_dir=tmp_path / "refused", restore="best", **SETTINGS), model=model)


@pytest.mark.skipif(BACKEND != "torch", reason="this is the run that the torch backend's tests start")
@pytest.mark.parametrize("backend", ["jax", "tensorflow"])
def test_the_same_on_the_other_backends(backend):
    if importlib.util.find_spec(backend) is None:
        pytest.skip(f"needs {backend}")
    environment = {**os.environ, "KERAS_BACKEND": backend}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", __file__]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]
