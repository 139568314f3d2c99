"""Loops and models that Keras users write: whose steps are counted, what goes into ``logs``, what is read from them."""

import json
import os
import warnings

os.environ.setdefault("KERAS_BACKEND", "torch")

import numpy as np
import pytest

keras = pytest.importorskip("keras", reason="needs the extra keras")

from tests.adapters.harmless.keras_loops import OwnStep
from tests.keras.test_callback import fit, model_of
from ww_callbacks.integrations.record import read_run
from ww_callbacks.keras import SpectralCallback
from ww_callbacks.keras.loop_values import BatchValues

BACKEND = keras.backend.backend()
once = pytest.mark.skipif(BACKEND != "torch", reason="no backend has a part in it")
LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def of_layers(*layers, **options):
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((12,)), *layers])
    model.compile(**{"optimizer": "sgd", "loss": LOSS} | options)
    return model


def metrics_of(callback):
    rows = map(json.loads, (callback.directory / "spectral.jsonl").read_text().splitlines())
    return [row["metrics"] for row in rows if row["record"] == "model"]


# 64 samples: 16 batches an epoch, so four steps of four batches each.
@pytest.mark.parametrize(("every", "steps"), [({"every_n_steps": 3}, [0, 3, 6, 9, 12, 15, 16]), ({}, None)])
def test_accumulated_gradients_are_counted_as_steps(tmp_path, every, steps):
    callback = SpectralCallback(log_dir=tmp_path, verbose=0, **every)
    epochs = 4 if every else 5
    model, _ = fit(callback, model=model_of(gradient_accumulation_steps=4), epochs=epochs, batch_size=4)
    assert list(callback.summary.step) == (steps or [0, 4, 8, 12, 16, 20])
    assert callback.summary.step.iloc[-1] == int(keras.ops.convert_to_numpy(model.optimizer.iterations))
    assert callback.summary.epoch.iloc[-1] == epochs


def batches():
    yield from ((np.ones((4, 12)) * k, np.zeros(4)) for k in range(12))


@pytest.mark.parametrize(
    ("every", "moments"),
    [({}, [(0, 0), (12, 1)]), ({"every_n_steps": 4}, [(0, 0), (4, 0), (8, 0), (12, 1)])],
)
def test_an_epoch_whose_length_is_not_known(tmp_path, every, moments):
    """Its last batch is known as such only afterwards."""
    callback, model = SpectralCallback(log_dir=tmp_path, verbose=0, **every), model_of()
    with warnings.catch_warnings(action="ignore"):
        model.fit(batches(), verbose=0, callbacks=[callback])
    assert list(zip(callback.summary.step, callback.summary.epoch, strict=True)) == moments
    assert "the first epoch that can be judged is the second" in callback.verdict.reason


@once
def test_the_length_of_later_epochs_is_that_of_the_first(tmp_path):
    torch = pytest.importorskip("torch")

    class Rows(torch.utils.data.IterableDataset):
        def __iter__(self):
            return iter([(torch.ones(12), torch.tensor(0))] * 48)

    callback = SpectralCallback(log_dir=tmp_path, verbose=0, every_n_steps=5)
    with warnings.catch_warnings(action="ignore"):
        model_of().fit(torch.utils.data.DataLoader(Rows(), batch_size=4), epochs=2, verbose=0, callbacks=[callback])
    assert list(callback.summary.step) == [0, 5, 10, 15, 20, 24]
    np.testing.assert_allclose(callback.summary.epoch, [0, 0, 0, 1.25, 5 / 3, 2])


def test_a_model_that_is_frozen_as_a_whole_is_told(tmp_path):
    model = model_of()
    model.trainable = False
    callback = SpectralCallback(log_dir=tmp_path, verbose=0)
    with warnings.catch_warnings(action="ignore"):
        fit(callback, model=model, epochs=5)
    (alert,) = [a for a in callback.alerts if a.kind == "dead layer"]
    assert alert.message == "No layer has changed since the start: all layers are frozen."
    assert callback.verdict.state == "watch"


def test_layers_that_are_frozen_are_no_reason_to_judge_by_the_losses(tmp_path):
    """What trains is a vector; nothing of it is watched."""
    keras.utils.set_random_seed(0)
    model = of_layers(keras.layers.Dense(8, trainable=False), keras.layers.BatchNormalization(), keras.layers.Dense(3))
    model.layers[-1].trainable = False
    model.compile("sgd", LOSS)
    callback = SpectralCallback(log_dir=tmp_path, verbose=0)
    fit(callback, model=model, epochs=5)
    assert not callback.alerts and callback.verdict.state == "not judged"
    assert "all layers with a matrix are frozen" in callback.verdict.reason


def test_accumulation_goes_on_in_a_second_fit(tmp_path):
    model = model_of(gradient_accumulation_steps=3)
    fit(model=model, epochs=1, batch_size=16)  # four batches: one step, and one batch collected
    callback = SpectralCallback(log_dir=tmp_path, verbose=0, every_n_steps=1)
    fit(callback, model=model, epochs=2, batch_size=16)
    assert list(callback.summary.step) == [1, 2, 3, 4]
    assert list(callback.summary.epoch) == [0, 0.5, 1.25, 2.0]


@pytest.mark.skipif(BACKEND == "jax", reason="a step of one's own is a pure function on jax")
def test_a_model_with_optimizers_of_its_own_counts_its_steps(tmp_path):
    model = OwnStep()
    model.compile(loss=LOSS)
    callback, told = SpectralCallback(log_dir=tmp_path, verbose=0), []
    fit(
        callback,
        keras.callbacks.LambdaCallback(on_train_batch_end=lambda b, logs: told.append(logs["loss"])),
        model=model,
    )
    assert list(callback.summary.step) == [0, 4, 8, 12, 16, 20]
    distances = callback.summary["relative_distance_from_init/median"]
    assert distances[0] == 0 and (np.diff(distances) > 0).all()
    assert callback.summary["metrics/learning_rate"].dropna().unique() == pytest.approx([0.01])
    # Its step logs the batch's own loss, of which Keras keeps the last; ours is the mean of the epoch.
    assert callback.summary["metrics/train_loss"].tolist()[1:] == pytest.approx(np.reshape(told, (5, 4)).mean(axis=1))
    assert callback.summary["metrics/first_loss"][1] == pytest.approx(told[0])


def test_keys_are_the_same_from_the_first_epoch_on_and_belong_to_it(tmp_path):
    callback = SpectralCallback(log_dir=tmp_path / "log", verbose=0, every_n_epochs=2)
    writer = keras.callbacks.CSVLogger(tmp_path / "log.csv")
    _, logs = fit(callback, writer, epochs=5, validation_split=0.25)
    header, *rows = [line.split(",") for line in (tmp_path / "log.csv").read_text().splitlines()]
    assert {"spectral/alpha/median", "spectral/overtraining/score"} <= set(header) and all(
        len(r) == 47 + 5 for r in rows
    )
    values = np.array(logs["spectral/effective_rank/median"])
    assert np.isfinite(values).tolist() == [False, True, False, True, False]
    measured = callback.summary.set_index("step")["effective_rank/median"]
    np.testing.assert_array_equal(values[[1, 3]], measured[[6, 12]])


@once
@pytest.mark.parametrize(
    ("chosen", "count"), [([], 0), ("overtraining/*", 2), (["*/median", "alerts"], 8), ("nothing of the kind", 0)]
)
def test_logs_are_chosen(tmp_path, chosen, count):
    _, logs = fit(SpectralCallback(log_dir=tmp_path, verbose=0, logs=chosen), epochs=5)
    assert sum(name.startswith("spectral/") for name in logs) == count


def test_what_is_monitored_is_measured_every_epoch(tmp_path):
    stopper = keras.callbacks.EarlyStopping("spectral/relative_distance_from_init/median", mode="max", patience=1)
    callback = SpectralCallback(log_dir=tmp_path, verbose=0, every_n_epochs=3, logs=[])
    _, logs = fit(stopper, callback, epochs=6)
    assert len(logs["loss"]) == 6, "a value that is not measured anew is no lack of improvement"
    assert list(callback.summary.epoch) == [0, 1, 2, 3, 4, 5, 6]
    assert [name for name in logs if name.startswith("spectral/")] == [stopper.monitor]


@once
def test_what_has_no_value_yet_is_no_lack_of_improvement(tmp_path):
    stopper = keras.callbacks.EarlyStopping("spectral/alpha/median", mode="max", patience=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # Keras's own, that there is no value
        _, logs = fit(stopper, SpectralCallback(log_dir=tmp_path, verbose=0), epochs=5)
    assert len(logs["loss"]) == 5


@once
@pytest.mark.parametrize(
    ("monitor", "said"),
    [
        (lambda: keras.callbacks.EarlyStopping("spectral/efective_rank/median", mode="max"), "Near it: spectral/eff"),
        (
            lambda: keras.callbacks.ModelCheckpoint(
                "x.keras", "spectral/alerts", mode="min", save_best_only=True, save_freq=2
            ),
            "Use save_freq='epoch'",
        ),
    ],
)
def test_a_monitor_that_finds_nothing_is_refused_before_training(tmp_path, monitor, said):
    model = model_of()
    before = model.get_weights()
    with pytest.raises(ValueError, match=said):
        fit(monitor(), SpectralCallback(log_dir=tmp_path, verbose=0), model=model)
    for a, b in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("options", [{}, {"steps_per_execution": 2}, {"jit_compile": True}, {"run_eagerly": True}])
def test_losses_within_an_epoch_are_those_of_the_batches(tmp_path, options):
    if BACKEND == "torch" and options in ({"steps_per_execution": 2}, {"jit_compile": True}):
        pytest.skip("Keras has it on the other backends")
    if BACKEND == "jax" and "run_eagerly" in options:
        pytest.skip("slow there, and the same code")
    Keeps.losses.clear()
    callback = SpectralCallback(log_dir=tmp_path, verbose=0, detectors=[Keeps()])
    model = of_layers(keras.layers.Dense(3), **options)
    told = []
    tell = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda batch, logs: told.append((batch + 1) * logs["loss"])
    )
    x = np.random.default_rng(0).normal(size=(80, 12)).astype("float32")
    model.fit(x, x[:, :3].argmax(1), batch_size=4, epochs=5, verbose=0, callbacks=[callback, tell])
    losses = np.diff(told[: 10 if "steps_per_execution" in options else 20], prepend=0).reshape(10, -1).sum(axis=1) / 2
    assert Keeps.losses[1] == pytest.approx(losses, rel=1e-4)
    assert metrics_of(callback)[1]["first_loss"] == pytest.approx(told[0] / (2 if len(told) == 50 else 1))


class Keeps:
    """A detector that keeps what it is told; a run takes a copy of it, so they share the list."""

    kind = "mine"
    can_stop = False
    losses: list = []  # noqa: RUF012

    def update(self, observation):
        self.losses.append(observation.epoch_losses)
        return []

    def state_dict(self):
        return {}

    def load_state_dict(self, state):
        pass


@once
@pytest.mark.parametrize("running", [True, False])
@pytest.mark.parametrize("steps", [10, 57, 5000])
def test_sums_from_values_in_any_order(steps, running):
    losses = np.random.default_rng(steps).random(steps)
    values = np.cumsum(losses) / np.arange(1, steps + 1) if running else losses
    collected = BatchValues()
    for i in np.random.default_rng(1).permutation(steps) if steps < 1000 else range(steps):
        collected.add(int(i) + 1, float(values[i]))
    assert collected.first == losses[0] and len(collected._points) <= 1280
    assert collected.mean(running) == pytest.approx(losses.mean(), rel=1e-9 if running or steps < 1000 else 0.05)
    if steps % 10 == 0:
        expected = losses.reshape(10, -1).mean(axis=1)
        assert collected.parts(running) == pytest.approx(expected, rel=0.2 if steps > 1000 else 1e-9)


def test_validation_of_several_outputs_is_understood_and_said(tmp_path, capsys):
    inputs = keras.Input((12,))
    model = keras.Model(inputs, {name: keras.layers.Dense(3, name=name)(inputs) for name in ("a", "b")})
    model.compile("sgd", {"a": LOSS, "b": LOSS}, metrics={"a": ["accuracy"]})
    x = np.random.default_rng(0).normal(size=(64, 12)).astype("float32")
    y = x[:, :3].argmax(1)
    callback = SpectralCallback(log_dir=tmp_path)
    model.fit(x, {"a": y, "b": y}, epochs=5, validation_split=0.25, verbose=0, callbacks=[callback])
    said = [line for line in capsys.readouterr().out.splitlines() if "metrics recognised" in line]
    names = "val_loss from `val_loss`, val_accuracy from `val_a_accuracy`, train_accuracy from `a_accuracy`"
    assert said == [f"spectra: metrics recognised: {names}."]
    assert {"val_loss", "val_accuracy", "train_accuracy", "train_loss"} <= metrics_of(callback)[-1].keys()


@once
def test_a_loop_of_short_fits_says_once_how_to_keep_one_record(tmp_path, capsys):
    model, callback = model_of(), SpectralCallback(log_dir=tmp_path / "apart")
    said = []
    for _ in range(4):
        fit(callback, model=model, epochs=1)
        said.append(capsys.readouterr().out.splitlines())
    assert "log_dir=" in said[1][0] and "initial_epoch=1, epochs=2" in said[1][0]
    assert [len(lines) for lines in said[1:]] == [2, 1, 1] and all("verdict" in lines[-1] for lines in said[1:])
    callback = SpectralCallback(log_dir=tmp_path / "one")
    for epoch in range(4):
        fit(callback, model=model, initial_epoch=epoch, epochs=epoch + 1)
    assert len(capsys.readouterr().out.splitlines()) == 4
    assert {0, 1, 2, 3, 4} <= set(read_run(tmp_path / "one").model["epoch"])
    assert callback.directory == tmp_path / "one"


@once
def test_lines_within_an_epoch_do_not_tear_the_progress_bar(tmp_path, capsys):
    fit(SpectralCallback(log_dir=tmp_path, every_n_steps=2), epochs=2, verbose=1)
    lines = capsys.readouterr().out.splitlines()
    ours = [line for line in lines if "spectra:" in line]
    assert len(ours) > 6 and all(line.startswith("spectra:") for line in ours)
    assert not any("\b" in line or "━" in line for line in ours)


def test_spectral_normalisation_is_no_collapse(tmp_path):
    large = keras.initializers.RandomNormal(stddev=2.0)
    model = of_layers(
        keras.layers.SpectralNormalization(keras.layers.Dense(24, "relu", kernel_initializer=large)),
        keras.layers.SpectralNormalization(keras.layers.Dense(16, kernel_initializer=large)),
        keras.layers.Dense(3),
    )
    callback = SpectralCallback(log_dir=tmp_path, verbose=0)
    fit(callback, model=model, epochs=6)
    assert not callback.alerts
    norms = callback.history.pivot(index="step", columns="layer", values="log_spectral_norm").iloc[:, 1:]
    assert norms.iloc[0].max() < 0.8 and norms.iloc[-1].abs().max() < 0.05  # σ², of 2·(√24 + √12) at first


def test_frozen_layers_are_called_frozen(tmp_path):
    frozen = keras.layers.Dense(24, "relu", name="frozen")
    frozen.trainable = False
    callback = SpectralCallback(log_dir=tmp_path, verbose=0)
    fit(callback, model=of_layers(frozen, keras.layers.Dense(3)), epochs=8)
    assert not callback.alerts
    moved = callback.history.groupby("layer").distance_from_init.max()
    assert [name.endswith("frozen/kernel") for name in moved.index[moved == 0]] == [True]


@pytest.mark.skipif(BACKEND != "tensorflow", reason="elsewhere Keras refuses such a model, or builds it itself")
def test_a_model_that_no_symbol_can_build_begins_after_its_first_batch(tmp_path, caplog):
    class Concrete(keras.Model):
        def __init__(self):
            super().__init__()
            self.dense = keras.layers.Dense(3)

        def call(self, x, training=False):
            return self.dense(x) * float(x.numpy().shape[1])

    model = Concrete()
    model.compile("sgd", LOSS, run_eagerly=True)
    callback = SpectralCallback(log_dir=tmp_path, verbose=0)
    fit(callback, model=model)
    assert list(callback.summary.step) == [1, 4, 8, 12, 16, 20]
    assert "Distances start from the weights after the first batch" in caplog.text
