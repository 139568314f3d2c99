"""Averaged weights (EMA, SWA), read instead of the weights that the optimiser updates."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from ww_callbacks.spectral.layers.spec import Array, LayerSpec

Read = Callable[[], Sequence[Array]]


def reading(specs: Sequence[LayerSpec], averages: Mapping[str, Read], begun: Callable[[], bool]) -> list[LayerSpec]:
    """``specs`` that read the averages once averaging has begun; before that, the current weights.

    Args:
        specs: the layers of the model that is trained.
        averages: layer → function that reads its average; layers without one (frozen ones) are read directly.
        begun: whether the averages contain values yet.
    """

    def read(trained: Read, average: Read) -> Sequence[Array]:
        return average() if begun() else trained()

    return [
        replace(s, read=partial(read, s.read, averages[s.name])) if s.read is not None and s.name in averages else s
        for s in specs
    ]


Look = Callable[[Any], Sequence[LayerSpec]]


def lightning_specs(callbacks: Sequence[Any], look: Look, model: Any) -> list[LayerSpec]:
    """The layers of ``model`` with the averages that a Lightning callback keeps.

    Args:
        callbacks: the Trainer's.
        look: the function that inspects a model.
        model: the model that is trained.

    Raises:
        ValueError: if no callback averages weights.
    """
    for callback in callbacks:
        average = getattr(callback, "_average_model", None)
        if average is not None:
            averages = {s.name: s.read for s in look(average) if s.read is not None}
            return reading(look(model), averages, partial(_lightning_has_begun, callback))
    raise ValueError(
        "`weights='average'` reads the weights that WeightAveraging, EMAWeightAveraging or StochasticWeightAveraging "
        "keeps, and the Trainer has none of these callbacks. Add one, or leave `weights='trained'`."
    )


def lightning_owner(trainer: Any) -> str:
    """The name of the Lightning callback that averages the weights; empty if there is none."""
    return next((type(c).__name__ for c in trainer.callbacks if hasattr(c, "_average_model")), "")


def keras_owner(model: Any) -> str:
    """Description of what averages the weights of a Keras ``model``; empty if nothing does."""
    return "an optimiser with `use_ema`" if getattr(getattr(model, "optimizer", None), "use_ema", False) else ""


def _lightning_has_begun(callback: Any) -> bool:
    count = getattr(callback._average_model, "n_averaged", None)
    count = getattr(callback, "n_averaged", None) if count is None else count
    return count is not None and int(count) > 0
