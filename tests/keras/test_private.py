"""What the adapter reads of Keras beyond its documented interface: still there, and missed with a word."""

import os
from types import MappingProxyType

os.environ.setdefault("KERAS_BACKEND", "torch")

import numpy as np
import pytest

keras = pytest.importorskip("keras", reason="needs the extra keras")

from tests.keras.test_callback import fit, model_of
from ww_callbacks.adapters.saved_weights.keras_weights import KerasWeights
from ww_callbacks.keras import SpectralCallback, private
from ww_callbacks.probes.keras_driver import KerasDriver
from ww_callbacks.spectral.layers import inspect
from ww_callbacks.spectral.layers.frameworks import keras_private

BACKEND = keras.backend.backend()


@pytest.fixture(autouse=True)
def nothing_said(monkeypatch):
    monkeypatch.setattr(keras_private, "said", set())


class LogConsumers(keras.callbacks.Callback):
    """Keeps what ``look`` gives when the training begins."""

    def __init__(self, look):
        super().__init__()
        self.look = look

    def on_train_begin(self, logs=None):
        self.seen = self.look(self.model)


def lost(caplog):
    return [r.getMessage() for r in caplog.records if r.name == "ww_callbacks" and "has no" in r.getMessage()]


def test_the_list_of_callbacks_tells_how_batches_are_reported(caplog):
    look = LogConsumers(lambda model: private.running_list())
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
    look = LogConsumers(private.build)
    model.fit(np.zeros((8, 5)), np.zeros((8, 4)), verbose=0, callbacks=[look])
    assert model.built and not lost(caplog)
    monkeypatch.setattr(keras.src.backend, "compute_output_spec", None)
    private.build(model)
    assert "a model without an input shape is watched from its first batch on" in lost(caplog)[0]


class Nested(keras.layers.Layer):
    """Layers in an attribute, a list and a dictionary, and one twice."""

    def __init__(self):
        super().__init__()
        self.first = keras.layers.Dense(4)
        self.blocks = [keras.layers.Dense(4), [keras.layers.Dense(4)]]
        self.named = {"last": keras.layers.SpectralNormalization(keras.layers.Dense(4)), "again": self.first}

    def call(self, x):
        for layer in (self.first, self.blocks[0], self.blocks[1][0], self.named["last"], self.first):
            x = layer(x)
        return x


def nested():
    inner = keras.Sequential([keras.layers.Input((4,)), keras.layers.Dense(4, name="inner")])
    return keras.Sequential([keras.layers.Input((4,)), Nested(), inner, keras.layers.Dense(2)])


def test_layers_tell_those_under_them(caplog, monkeypatch):
    keras.utils.clear_session()
    model = nested()
    known = [spec.name for spec in inspect(model)]
    assert len(known) == len({spec.name for spec in inspect(model)}) and not lost(caplog)
    kinds = [type(child).__name__ for child in keras_private.children(model)]
    assert {"Nested", "Sequential", "Dense"} <= set(kinds) and len(keras_private.children(model.layers[0])) == 4
    monkeypatch.delattr(keras.Layer, "_flatten_layers")
    assert [spec.name for spec in inspect(model)] == known and private.is_built(model)
    assert len(lost(caplog)) == 1 and "Layer._flatten_layers: nested layers are found by their attr" in lost(caplog)[0]


@pytest.mark.skipif(BACKEND != "jax", reason="the other backends update the variables at each step")
def test_jax_models_tell_the_weights_of_the_epoch_that_runs(caplog):
    model, told = model_of(), []
    weights = KerasWeights(model)

    def look(batch, logs):
        newer = keras_private.values_in_training(model)
        told.append((len(newer), weights.now(), len(keras_private.values_in_training(object.__new__(Without)))))

    fit(keras.callbacks.LambdaCallback(on_train_batch_end=look), model=model, epochs=1)
    assert all(count >= len(model.weights) for count, _, _ in told) and keras_private.values_in_training(model) == {}
    now = weights.now()
    assert all(np.array_equal(told[-1][1][name], now[name]) for name in now)
    assert any(not np.array_equal(told[0][1][name], now[name]) for name in now)
    assert told[0][2] == 0 and "averages within an epoch are those of its start" in lost(caplog)[0]


class Without:
    """A model of a Keras that keeps its state under other names."""

    _jax_state = MappingProxyType({"weights": []})


def test_models_that_no_graph_describes_are_refused_by_the_probe():
    class Subclassed(keras.Model):
        def __init__(self):
            super().__init__()
            self.dense = keras.layers.Dense(4)

        def call(self, x):
            return self.dense(x)

    model = Subclassed()
    model(keras.ops.ones((2, 3)))
    with pytest.raises(ValueError, match="`Subclassed` is subclassed"):
        KerasDriver(model)
    functional = model_of()
    assert KerasDriver(keras.Model(functional.inputs, functional.outputs)).names == KerasDriver(functional).names


def test_spectral_normalisation_gives_its_weights():
    wrapper = keras.layers.SpectralNormalization(keras.layers.Dense(4))
    wrapper.build((None, 3))
    assert [tuple(part.shape) for part in wrapper.normalized_weights()] == [(1, 4), (3, 4)]


def test_a_run_says_what_it_misses_and_goes_on(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(private, "running_list", lambda: type("List", (), {"callbacks": []})())
    callback = SpectralCallback(log_dir=tmp_path, verbose=0, every_n_steps=2)
    fit(callback, epochs=2)
    assert list(callback.summary.step) == [0, 2, 4, 6, 8] and "_async_train" in lost(caplog)[0]
