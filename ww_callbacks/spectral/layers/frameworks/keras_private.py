"""Use of Keras's undocumented interface outside the callback, whose own use is in ``keras.private``.

Each function names the attributes that it reads; all exist in the versions listed in :data:`TRIED`. If a later version
lacks one, there is a fallback and one warning says what no longer works. ``tests/keras/test_private.py`` fails on the
first version that lacks one.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from typing import Any

logger = logging.getLogger("ww_callbacks")

TRIED = ("3.6.0", "3.15.1")

said: set[str] = set()
"""The attributes that were reported missing."""


def lost(attribute: str, consequence: str) -> None:
    """Report once that ``attribute`` is missing, and what that costs."""
    import keras

    if attribute not in said:
        said.add(attribute)
        logger.warning(
            "ww-callbacks: Keras %s has no %s: %s. Training continues.", keras.__version__, attribute, consequence
        )


def children(layer: Any) -> list[Any]:
    """The layers directly under ``layer`` (``_flatten_layers``); without it, those found in its attributes."""
    flatten = getattr(layer, "_flatten_layers", None)
    if flatten is not None:
        return list(flatten(include_self=False, recursive=False))
    lost("Layer._flatten_layers", "nested layers are found by their attributes")
    found = {id(child): child for value in vars(layer).values() for child in _layers_in(value) if child is not layer}
    return list(found.values())


def _layers_in(value: Any) -> Iterator[Any]:
    import keras

    if isinstance(value, keras.Layer):
        yield value
    elif isinstance(value, list | tuple | Mapping):
        for item in value.values() if isinstance(value, Mapping) else value:
            yield from _layers_in(item)


def values_in_training(model: Any) -> dict[int, Any]:
    """The current value of each variable, by its id, if it is newer than the variable's own; empty otherwise.

    On JAX, ``fit`` keeps the weights of the running epoch in ``_jax_state`` until ``_jax_state_synced``.
    """
    import keras

    state = getattr(model, "_jax_state", None)
    if state is None and keras.backend.backend() == "jax" and not hasattr(model, "jax_state_sync"):
        lost("Model.jax_state_sync", "averages within an epoch are those of the last epoch's end")
    if not state:
        return {}
    try:
        if model._jax_state_synced:
            return {}
        trained = zip(model.trainable_variables, state["trainable_variables"], strict=True)
        others = zip(model.non_trainable_variables, state["non_trainable_variables"], strict=True)
        return {id(variable): value for variable, value in (*trained, *others)}
    except (AttributeError, KeyError, ValueError):
        lost("Model._jax_state_synced or its lists of variables", "averages within an epoch are those of its start")
        return {}
