"""The weights of one model's layers, taken from another source: a baseline for a model, two checkpoints compared."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from ww_callbacks.spectral.layers import inspect
from ww_callbacks.spectral.layers.matrix_layouts import copied
from ww_callbacks.spectral.layers.spec import Array, Index, LayerSpec


class Arrays(Mapping[str, list[Array]]):
    """Layer → arrays, read each time a layer is asked for, so that no more than one layer need be in memory."""

    def __init__(self, readers: Mapping[str, Callable[[], list[Array]]]) -> None:
        self._readers = readers

    def __getitem__(self, layer: str) -> list[Array]:
        return self._readers[layer]()

    def __contains__(self, layer: object) -> bool:
        return layer in self._readers

    def __iter__(self) -> Iterator[str]:
        return iter(self._readers)

    def __len__(self) -> int:
        return len(self._readers)


def arrays_from(specs: Sequence[LayerSpec], source: Any, convolution: str = "matrix") -> Arrays:
    """What ``read`` of each of ``specs`` would return if the model held the weights of ``source``.

    Layers are matched by name and by the parameter's shape as stored, so that a file whose layout could only be guessed
    is arranged as the model arranges it.

    Args:
        specs: the layers of a model.
        source: another model, a state dict or a file, as :func:`ww_callbacks.spectral.layers.inspect` takes it.
        convolution: the convention of ``specs``.

    Returns:
        Layer name → arrays, to be given to that layer's ``arrange``; layers that ``source`` does not hold are left out.
    """
    others = {other.name: other for other in inspect(source, convolution) if other.read is not None}
    found: dict[str, Callable[[], list[Array]]] = {}
    for spec in specs:
        if spec.skipped:
            continue
        for name in (spec.name, *spec.parameters[:1]):
            other = others.get(name)
            if other is None or other.read is None or other.shape != spec.shape:
                continue
            if other.part == spec.part:
                found[spec.name] = partial(_whole, other.read)
                break
            if not other.part:
                found[spec.name] = partial(_part, other.read, spec.part)
                break
    return Arrays(found)


def _whole(read: Callable[[], Sequence[Array]]) -> list[Array]:
    return list(read())


def _part(read: Callable[[], Sequence[Array]], part: Index) -> list[Array]:
    return [copied(array[part]) for array in read()]
