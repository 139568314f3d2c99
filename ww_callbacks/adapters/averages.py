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


def keras_owner(model: Any) -> str:
    """Description of what averages the weights of a Keras ``model``; empty if nothing does."""
    return "an optimiser with `use_ema`" if getattr(getattr(model, "optimizer", None), "use_ema", False) else ""
