"""Averaged weights that a Lightning callback keeps, read instead of the weights that the optimiser updates."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from ww_callbacks.adapters.averages import Look, reading
from ww_callbacks.lightning import private
from ww_callbacks.spectral.layers.spec import LayerSpec


def lightning_specs(callbacks: Sequence[Any], look: Look, model: Any) -> list[LayerSpec]:
    """The layers of ``model`` with the averages that a Lightning callback keeps.

    Args:
        callbacks: the Trainer's callbacks.
        look: the function that inspects a model.
        model: the trained model.

    Raises:
        ValueError: if no callback averages weights.
    """
    for callback in callbacks:
        average = private.averaged_model(callback)
        if average is not None:
            averages = {s.name: s.read for s in look(average) if s.read is not None}
            return reading(look(model), averages, partial(_has_begun, callback))
    raise ValueError(
        "`weights='average'` reads the weights that WeightAveraging, EMAWeightAveraging or StochasticWeightAveraging "
        "keeps, and the Trainer has none of these callbacks. Add one, or use `weights='trained'`."
    )


def lightning_owner(trainer: Any) -> str:
    """The name of the Lightning callback that averages the weights; empty if there is none."""
    return next((type(c).__name__ for c in trainer.callbacks if private.averages_weights(c)), "")


def _has_begun(callback: Any) -> bool:
    count = getattr(private.averaged_model(callback), "n_averaged", None)
    count = getattr(callback, "n_averaged", None) if count is None else count
    return count is not None and int(count) > 0
