"""Averaged weights that a Keras optimizer keeps, read instead of the weights that it updates."""

from __future__ import annotations

from functools import partial
from typing import Any

from ww_callbacks.adapters.averages import Look, Read, reading
from ww_callbacks.keras import private
from ww_callbacks.spectral.layers.frameworks.keras_variables import to_array
from ww_callbacks.spectral.layers.spec import Array, LayerSpec


def keras_specs(model: Any, look: Look) -> list[LayerSpec]:
    """The layers of a Keras ``model`` with the averages that its optimiser keeps (``use_ema=True``).

    Raises:
        ValueError: if it keeps none, or if a layer consists of several variables.
    """
    optimizer = model.optimizer
    if not getattr(optimizer, "use_ema", False):
        raise ValueError(
            "`weights='average'` reads the averages that a Keras optimiser keeps with `use_ema=True`, and "
            f"{type(optimizer).__name__} keeps none. Set it, or use `weights='trained'`."
        )
    trainable = {v.path for v in model.trainable_variables}
    averages: dict[str, Read] = {}
    specs = list(look(model))
    for spec in specs:
        moving = [p for p in spec.parameters if p in trainable]
        if spec.read is None or not moving:
            continue
        if len(spec.parameters) > 1:
            raise ValueError(f"`weights='average'` cannot read `{spec.name}`, which consists of several variables.")
        averages[spec.name] = partial(_average, model, moving[0], spec.part)
    return reading(specs, averages, partial(_has_begun, model))


def _average(model: Any, path: str, part: Any) -> list[Array]:
    pairs = private.averages(model.optimizer)
    return [to_array(next(average for variable, average in pairs if variable.path == path), part)]


def _has_begun(model: Any) -> bool:
    optimizer = model.optimizer
    return bool(optimizer.built) and int(optimizer.iterations) > 0
