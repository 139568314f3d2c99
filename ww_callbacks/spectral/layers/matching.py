"""Matches the layers of two sources of weights: a model and its baseline, or two checkpoints."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from ww_callbacks.spectral.layers import inspect
from ww_callbacks.spectral.layers.matrix_layouts import copied
from ww_callbacks.spectral.layers.names import renaming
from ww_callbacks.spectral.layers.spec import Array, Index, LayerSpec


class Arrays(Mapping[str, list[Array]]):
    """Layer → arrays, read each time a layer is requested, so that no more than one layer need be in memory."""

    def __init__(
        self,
        readers: Mapping[str, Callable[[], list[Array]]],
        remarks: Sequence[str] = (),
        unused: Sequence[str] = (),
    ) -> None:
        self._readers = readers
        #: What has to be known of how they were found, such as a prefix that names were matched without.
        self.remarks = tuple(filter(None, remarks))
        #: The layers of the source that were requested by none.
        self.unused = tuple(unused)

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

    Layers are matched by name, without what wrappers put into it and without a prefix that most names of one side have
    (see :func:`ww_callbacks.spectral.layers.names.renaming`); and by the parameter's shape as stored, so that a file
    whose layout could only be guessed is arranged as the model arranges it.

    Args:
        specs: the layers of a model.
        source: another model, a state dict or a file, as :func:`ww_callbacks.spectral.layers.inspect` takes it.
        convolution: the convention of ``specs``.

    Returns:
        Layer name → arrays, to be given to that layer's ``arrange``; layers that ``source`` does not hold are left out.
    """
    others: dict[str, list[LayerSpec]] = defaultdict(list)
    there = inspect(source, convolution)
    for other in there:
        if other.read is not None:
            others[_parameter(other)].append(other)
    ours = {_parameter(spec): spec.shape for spec in specs if not spec.skipped}
    names = renaming(ours, {name: held[0].shape for name, held in others.items()})
    found: dict[str, Callable[[], list[Array]]] = {}
    used: set[str] = set()
    for spec in specs:
        for other in others.get(names.theirs.get(_parameter(spec), ""), ()) if not spec.skipped else ():
            assert other.read is not None
            if other.part == spec.part:
                found[spec.name] = partial(_whole, other.read)
            elif not other.part:
                found[spec.name] = partial(_part, other.read, spec.part)
            else:
                continue
            used.add(other.name)
            break
    unused = [other.name for held in others.values() for other in held if other.name not in used]
    return Arrays(found, (*there.remarks, names.remark), unused)


def _parameter(spec: LayerSpec) -> str:
    """The name of the parameter of which the layer is a part, or of the layer where it is the whole."""
    return spec.name.rpartition("[")[0] if spec.part and spec.name.endswith("]") else spec.name


def _whole(read: Callable[[], Sequence[Array]]) -> list[Array]:
    return list(read())


def _part(read: Callable[[], Sequence[Array]], part: Index) -> list[Array]:
    return [copied(array[part]) for array in read()]
