"""What the adapter reads of Keras beyond its documented interface: still there, and missed with a word."""

import os

os.environ.setdefault("KERAS_BACKEND", "torch")

import numpy as np
import pytest

keras = pytest.importorskip("keras", reason="needs the extra keras")

from tests.keras.test_callback import fit, model_of
from ww_callbacks.keras import SpectralCallback, private

BACKEND = keras.backend.backend()


@pytest.fixture(autouse=True)
def nothing_said(monkeypatch):
    monkeypatch.setattr(private, "_said", set())


class Looks(keras.callbacks.Callback):
    """Keeps what ``look`` gives when the training begins."""

    def __init__(self, look):
        super().__init__()
        self.look = look

    def on_train_begin(self, logs=None):
        self.seen = self.look(self.model)


def lost(caplog):
    return [r.getMessage() for r in caplog.records if r.name == "ww_callbacks" and "has no" in r.getMessage()]


def test_the_list_of_callbacks_tells_how_batches_are_reported(caplog):
    look = Looks(lambda model: private.running_list())
    fit(look, epochs=1)
    assert look in look.seen.callbacks and isinstance(look.seen._async_train, bool)
    assert private.running_list() is None
    private.report_batches_at_once(look.seen)
    assert look.seen._async_train is False and not lost(caplog)
    private.report_batches_at_once(object())
    assert "CallbackList._async_train: snapshots within an epoch may be some batches late" in lost(caplog)[0]


def test_optimizers_tell_what_they_collect(caplog):
    model = model_of(gradient_accumulation_steps=3)
    fit(model=model, epochs=1)
    assert private.accumulation(model.optimizer) == (3, 1) and private.accumulation(keras.optimizers.SGD()) == (1, 0)
    scaled = keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(gradient_accumulation_steps=5))
    assert private.accumulation(scaled) == (5, 0) and not lost(caplog)
    stranger = type("Stranger", (), {"gradient_accumulation_steps": 2})()
    assert private.accumulation(stranger) == (2, 0) and "Optimizer._iterations" in lost(caplog)[0]


def test_optimizers_give_their_averages():
    model = model_of(use_ema=True)
    fit(model=model, epochs=1)
    pairs = list(private.averages(model.optimizer))
    assert [v.path for v, _ in pairs] == [v.path for v in model.trainable_variables]
    assert all(tuple(v.shape) == tuple(average.shape) for v, average in pairs)
    with pytest.raises(ValueError, match="cannot be read"):
        private.averages(object())


@pytest.mark.skipif(BACKEND != "tensorflow", reason="the other backends build every model themselves")
def test_the_data_of_a_fit_tell_their_shapes(caplog, monkeypatch):
    model = keras.Sequential([keras.layers.Dense(4)])
    model.compile("adam", "mse")
    look = Looks(private.build)
    model.fit(np.zeros((8, 5)), np.zeros((8, 4)), verbose=0, callbacks=[look])
    assert model.built and not lost(caplog)
    monkeypatch.setattr(keras.src.backend, "compute_output_spec", None)
    private.build(model)
    assert "a model without an input shape is watched from its first batch on" in lost(caplog)[0]


def test_layers_and_models_have_their_parts():
    """What the Keras layers, the probes and ``adapters.saved_weights.keras_weights`` read."""
    model = model_of()
    if BACKEND == "jax":
        told = []
        tell = keras.callbacks.LambdaCallback(
            on_train_batch_end=lambda batch, logs: told.append((set(model._jax_state), model._jax_state_synced))
        )
        fit(tell, model=model, epochs=1)
        assert {"trainable_variables", "non_trainable_variables"} <= told[0][0] and told[0][1] is False
    assert [type(layer).__name__ for layer in model._flatten_layers(include_self=False, recursive=False)]
    wrapper = keras.layers.SpectralNormalization(keras.layers.Dense(4))
    wrapper.build((None, 3))
    assert [tuple(part.shape) for part in wrapper.normalized_weights()] == [(1, 4), (3, 4)]
    assert hasattr(keras.Model(model.inputs, model.outputs), "_nodes")


def test_a_run_says_what_it_misses_and_goes_on(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(private, "running_list", lambda: type("List", (), {"callbacks": []})())
    callback = SpectralCallback(log_dir=tmp_path, verbose=0, every_n_steps=2)
    fit(callback, epochs=2)
    assert list(callback.summary.step) == [0, 2, 4, 6, 8] and "_async_train" in lost(caplog)[0]
