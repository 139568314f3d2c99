"""Rows of the harmless matrix: Keras on the backend of this process, with the loops and callbacks that users have."""

from __future__ import annotations

import csv
import os
import random
from functools import partial
from pathlib import Path
from typing import Any

import keras
import numpy as np

from tests.adapters.harmless.checks import Case, Outcome, Watch, ended_by, process_state, tensorboard_rows

BACKEND = keras.backend.backend()


def watch(folder: Path) -> Any:
    """The callback, with everything that it can do in the background."""
    from ww_callbacks.keras import SpectralCallback

    return SpectralCallback(
        log_dir=folder / "record", quantities=["default", "rand_distance"], verbose=0, workers=2, every_n_steps=3
    )


def quietly(folder: Path) -> Any:
    """The callback on its own: it then leaves it to Keras on which thread batches are reported."""
    from ww_callbacks.keras import SpectralCallback

    return SpectralCallback(log_dir=folder / "record", verbose=0)


def layers_of(classes: int = 3) -> list[Any]:
    """Layers with all kinds of state: moving averages and random draws."""
    return [
        keras.layers.Dense(24, activation="relu"),
        keras.layers.BatchNormalization(),
        keras.layers.GaussianNoise(0.1),
        keras.layers.Dropout(0.3),
        keras.layers.Dense(classes),
    ]


class OwnStep(keras.Model):
    """Two optimizers of its own, a step of its own that logs the batch's values, and no input shape."""

    def __init__(self) -> None:
        super().__init__()
        self.body = keras.Sequential(layers_of(8))
        self.head = keras.layers.Dense(3)
        self.optimizers = [keras.optimizers.Adam(0.01), keras.optimizers.SGD(0.1)]

    def call(self, x: Any, training: bool = False) -> Any:
        return self.head(self.body(x, training=training))

    def train_step(self, data: Any) -> dict[str, Any]:
        x, y = data
        if BACKEND == "torch":
            import torch

            self.zero_grad()
            loss = self.compute_loss(x, y, self(x, training=True))
            loss.backward()
            with torch.no_grad():
                for optimizer, part in zip(self.optimizers, (self.body, self.head), strict=True):
                    optimizer.apply([v.value.grad for v in part.trainable_weights], part.trainable_weights)
        else:
            import tensorflow as tf

            with tf.GradientTape(persistent=True) as tape:
                loss = self.compute_loss(x, y, self(x, training=True))
            for optimizer, part in zip(self.optimizers, (self.body, self.head), strict=True):
                optimizer.apply(tape.gradient(loss, part.trainable_weights), part.trainable_weights)
        return {"loss": loss, "own": loss * 2}


class Ends(keras.callbacks.Callback):
    """Ends the training in the middle of the second epoch, as the user's own code may."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how, self.batches = how, 0

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self.batches += 1
        if self.batches == 12 and self.how == "fails":
            raise RuntimeError("the user's own error")
        if self.batches == 12:
            self.model.stop_training = True


def model_of(kind: str) -> Any:
    """A compiled model."""
    loss: Any = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    options: dict[str, Any] = {"metrics": ["accuracy"]}
    optimizer: Any = keras.optimizers.Adam(0.01, gradient_accumulation_steps=4 if kind == "accumulated" else None)
    if kind == "own step":
        model = OwnStep()
        options = {}
    elif kind == "no input shape":
        model = keras.Sequential(layers_of())
    elif kind == "two outputs":
        inputs = hidden = keras.Input((12,))
        for layer in layers_of(8):
            hidden = layer(hidden)
        outputs = {name: keras.layers.Dense(3, name=name)(hidden) for name in ("a", "b")}
        model = keras.Model(inputs, outputs)
        loss, options["metrics"] = dict.fromkeys(outputs, loss), {"a": ["accuracy"], "b": ["accuracy"]}
    else:
        model = keras.Sequential([keras.Input((12,)), *layers_of()])
    if kind == "several steps a call":
        options["steps_per_execution"] = 3
    if kind == "eager":
        options["run_eagerly"] = True
    model.compile(optimizer, loss, **options)
    return model


def train(folder: Path, watch: Watch, kind: str = "plain", **options: Any) -> Outcome:
    """Train five epochs and look at everything that the user gets."""
    where = os.getcwd()
    keras.backend.clear_session()
    keras.utils.set_random_seed(3)
    generator = np.random.default_rng(0)
    x = generator.normal(size=(88, 12)).astype("float32")
    y: Any = x[:, :3].argmax(1)
    if kind == "two outputs":
        y = {"a": y, "b": 2 - y}
    model = model_of(kind)
    batches: list[Any] = []
    callbacks: list[Any] = [
        keras.callbacks.CSVLogger(folder / "log.csv"),
        keras.callbacks.EarlyStopping("val_loss", patience=2, mode="min", restore_best_weights=True),
        *([watch(folder)] if watch else []),
        keras.callbacks.ModelCheckpoint(folder / "best.weights.h5", save_best_only=True, save_weights_only=True),
        keras.callbacks.ReduceLROnPlateau("val_loss", patience=1, mode="min"),
        keras.callbacks.LambdaCallback(
            on_epoch_end=lambda epoch, logs: batches.append(("epoch", epoch, random.random()))
        ),
    ]
    if kind not in ("plain", "quiet"):  # Keras then reports batches on the training's own thread
        tell = keras.callbacks.LambdaCallback(
            on_train_batch_end=lambda batch, logs: batches.append((batch, dict(logs)))
        )
        callbacks.append(tell)
    board = BACKEND == "tensorflow" and kind != "fails"  # nothing closes its files after an error
    if board:
        callbacks.append(keras.callbacks.TensorBoard(folder / "board", update_freq=2))
    if kind in ("fails", "stops"):
        callbacks.append(Ends(kind))
    defaults: dict[str, Any] = {"epochs": 5, "batch_size": 8, "validation_split": 0.25, "verbose": 0}

    ended = ended_by(lambda: model.fit(x, y, callbacks=callbacks, **defaults | options))
    process = process_state()
    process["folder"] = process["folder"] == where
    process["keras random"] = keras.ops.convert_to_numpy(keras.random.uniform((3,))).tolist()
    history = model.history
    score = model.evaluate(x, y, verbose=0, return_dict=True)
    state = [v for o in [model.optimizer, *getattr(model, "optimizers", [])] for v in o.variables]
    weights = {f"{i} {v.path}": keras.ops.convert_to_numpy(v) for i, v in enumerate([*model.variables, *state])}
    logged = {"CSV": _csv(folder / "log.csv"), "History": _history(history), "own": list(enumerate(batches))}
    if board:
        for part in ("train", "validation"):
            logged[f"TensorBoard {part}"] = [r for r in tensorboard_rows(folder / "board" / part) if not _ours(r[1])]
    results = {
        "score": score,
        "epochs": history.epoch,
        "best": [np.asarray(a).sum() for a in _best(folder, model)],
        "stopped": model.stop_training,
        "callbacks": [
            (type(c).__name__, str(getattr(c, "best", ""))) for c in callbacks if "Spectral" not in type(c).__name__
        ],
        "built": (model.built, [v.path for v in model.variables]),
        "attributes": [(layer.name, sorted(vars(layer))) for layer in model._flatten_layers()],
    }
    return Outcome({k: np.array(v) for k, v in weights.items()}, logged, results, ended, process)


def _best(folder: Path, model: Any) -> list[np.ndarray]:
    now = model.get_weights()
    model.load_weights(folder / "best.weights.h5")
    best = model.get_weights()
    model.set_weights(now)
    return best


def _ours(name: str) -> bool:
    return "spectral/" in name


def _csv(path: Path) -> list[tuple[Any, ...]]:
    with path.open() as file:
        return [(row["epoch"], k, v) for row in csv.DictReader(file) for k, v in row.items() if not _ours(k)]


def _history(history: Any) -> list[tuple[Any, ...]]:
    return [(name, *values) for name, values in history.history.items() if not _ours(name)]


KINDS: dict[str, dict[str, Any]] = {
    "plain": {},
    "no input shape": {},
    "own step": {},
    "two outputs": {},
    "accumulated": {},
    "several steps a call": {},
    "eager": {},
    "fails": {},
    "stops": {"epochs": 9},
    "some validations": {"validation_freq": 2},
}
FOR = {
    "torch": KINDS.keys() - {"several steps a call"},  # Keras refuses it there
    "jax": {"plain", "accumulated", "several steps a call", "fails"},  # compiling takes its time
    "tensorflow": {"plain", "no input shape", "own step", "several steps a call", "fails", "some validations"},
}
CASES: dict[str, Case] = {
    name: partial(train, kind=name, **options) for name, options in KINDS.items() if name in FOR[BACKEND]
}
