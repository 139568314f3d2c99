"""The trained weights of a Keras model, each with its average, on the torch, JAX and TensorFlow backends."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from ww_callbacks.adapters.saved_weights.weight_average import Copies, NotSharded, save_in_place
from ww_callbacks.spectral.layers.frameworks.keras_private import children, values_in_training


class KerasWeights(NotSharded):
    """See :class:`ww_callbacks.adapters.saved_weights.weight_average.Weights`.

    Averages trainable variables, and the floating-point state of trainable layers (running statistics).
    Averages of half-precision variables are kept in single precision.

    Args:
        model: a built model.
    """

    def __init__(self, model: Any) -> None:
        self._model = model
        self._names: dict[int, str] = {}
        self._variables: list[Any] = []
        self._averages: dict[int, Any] = {}
        self._backend = _BACKENDS[keras.backend.backend()]()
        self.follow()

    def follow(self) -> None:
        """Average the weights that are currently trained. Weights frozen so far have been constant, so they equal their
        average.
        """
        trained = list(_averaged(self._model))
        if [id(v) for v in trained] == [id(v) for v in self._variables]:
            return
        self._variables = trained
        self._names = {id(v): f"{i}/{v.path}" for i, v in enumerate(self._model.weights)}
        if self._averages:
            self._make_room()

    def _make_room(self) -> None:
        before = self._averages
        values = zip(self._variables, self._running(), strict=True)
        self._averages = {id(v): before[id(v)] if id(v) in before else self._backend.copy(value) for v, value in values}

    def _running(self) -> list[Any]:
        """The current values: on JAX those of the training state, because the variables are not updated within an
        epoch.
        """
        newer = values_in_training(self._model)
        return [newer[id(v)] for v in self._variables] if newer else [v.value for v in self._variables]

    def blend(self, share: float) -> None:
        """Move the average by this fraction of the distance to the current weights."""
        if not self._averages:
            self._make_room()
        averages = [self._averages[id(v)] for v in self._variables]
        blended = self._backend.blend(averages, self._running(), share)
        self._averages = {id(v): a for v, a in zip(self._variables, blended, strict=True)}

    def average(self) -> dict[str, np.ndarray]:
        """Copies of the average."""
        return {self._names[key]: _array(value) for key, value in self._averages.items()}

    def now(self) -> dict[str, np.ndarray]:
        """Exact copies of the current weights."""
        return {self._names[id(v)]: _array(value) for v, value in zip(self._variables, self._running(), strict=True)}

    def put(self, copies: Copies) -> None:
        """Write copies into the model."""
        for variable in self._variables:
            if (name := self._names[id(variable)]) in copies:
                variable.assign(keras.ops.cast(copies[name], variable.dtype))

    def save_average(self, save: Callable[[Path], object], path: Path) -> None:
        """Write the average to a file; the model holds it temporarily, and its exact weights afterwards."""
        save_in_place(self, save, path)

    def put_average(self, copies: Copies) -> None:
        """Set the average from copies; names that the model does not have are ignored."""
        self._make_room()
        for variable in self._variables:
            if (name := self._names[id(variable)]) in copies:
                value = keras.ops.convert_to_tensor(copies[name])
                self._averages[id(variable)] = self._backend.copy(value)


def _averaged(model: Any) -> Iterator[Any]:
    """Trainable variables, and the floating-point state of the layers that are not frozen."""
    frozen = {id(v) for layer in _layers(model) if not layer.trainable for v in layer.weights}
    trainable = {id(v) for v in model.trainable_variables}
    for variable in model.weights:
        state = id(variable) not in frozen and keras.backend.is_float_dtype(variable.dtype)
        if id(variable) in trainable or state:
            yield variable


def _layers(layer: Any) -> Iterator[Any]:
    yield layer
    for child in children(layer):
        yield from _layers(child)


def _array(value: Any) -> np.ndarray:
    return np.array(keras.ops.convert_to_numpy(value))


class _Torch:
    def copy(self, value: Any) -> Any:
        import torch

        value = value.detach()
        return value.to(value.dtype if value.dtype.itemsize >= 4 else torch.float32, copy=True)

    def blend(self, averages: list[Any], now: list[Any], share: float) -> list[Any]:
        import torch

        with torch.no_grad():
            torch._foreach_lerp_(averages, [n.detach().to(a.dtype) for a, n in zip(averages, now, strict=True)], share)
        return averages


class _Jax:
    def __init__(self) -> None:
        import jax

        def lerp(averages: list[Any], now: list[Any], share: Any) -> list[Any]:
            return [a + share.astype(a.dtype) * (n - a) for a, n in zip(averages, now, strict=True)]

        self._lerp = jax.jit(lerp, donate_argnums=0)

    def copy(self, value: Any) -> Any:
        import jax.numpy as jnp

        return jnp.array(value, dtype=jnp.promote_types(value.dtype, jnp.float32), copy=True)

    def blend(self, averages: list[Any], now: list[Any], share: float) -> list[Any]:
        return list(self._lerp(averages, now, np.float32(share)))


class _TensorFlow:
    def __init__(self) -> None:
        import tensorflow as tf

        self._tf = tf
        self._lerp: Callable[[Sequence[Any], Sequence[Any], Any], None] = tf.function(self._each, reduce_retracing=True)

    def _each(self, averages: Sequence[Any], now: Sequence[Any], share: Any) -> None:
        for average, value in zip(averages, now, strict=True):
            way = self._tf.cast(value, average.dtype) - average
            average.assign_add(self._tf.cast(share, average.dtype) * way)

    def copy(self, value: Any) -> Any:
        value = self._tf.convert_to_tensor(value)
        dtype = value.dtype if value.dtype.size >= 4 else self._tf.float32
        return self._tf.Variable(self._tf.cast(value, dtype), trainable=False)

    def blend(self, averages: list[Any], now: list[Any], share: float) -> list[Any]:
        self._lerp(averages, [self._tf.convert_to_tensor(value) for value in now], self._tf.constant(share))
        return averages


_BACKENDS: dict[str, Callable[[], Any]] = {"torch": _Torch, "jax": _Jax, "tensorflow": _TensorFlow}
