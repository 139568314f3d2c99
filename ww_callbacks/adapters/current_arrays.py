"""The current arrays of a model without modules: JAX creates new ones at every update."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import sys
from collections.abc import Iterator, Mapping
from typing import Any

from ww_callbacks.spectral.layers.files.stored_arrays import Stored, stored
from ww_callbacks.spectral.layers.frameworks.pytrees import has_arrays, leaves


class CurrentArrays(Mapping[str, Stored]):
    """Name → current array, each read only when it is measured.

    Args:
        source: a pytree of arrays (a mapping, a module of Flax NNX or Equinox, nested lists, dataclasses, …), or a
            function without arguments that returns one.

    Raises:
        TypeError: if the function returns something without arrays.
    """

    def __init__(self, source: Any) -> None:
        self._source = source
        self._arrays: dict[str, Any] = {}
        self.look()
        self._first = list(map(id, self._arrays.values()))

    @classmethod
    def of(cls, model: Any) -> CurrentArrays | None:
        """The arrays of ``model``; None if it is of another kind (a torch or Keras module, a path)."""
        keras, torch = sys.modules.get("keras"), sys.modules.get("torch")
        for framework, name in ((keras, "Layer"), (getattr(torch, "nn", None), "Module")):
            if framework is not None and hasattr(framework, name) and isinstance(model, getattr(framework, name)):
                return None
        return cls(model) if is_function(model) or isinstance(model, Mapping) or has_arrays(model) else None

    def look(self, now: Any = None) -> None:
        """Use the current arrays.

        Args:
            now: the pytree that contains them; None reads the source.
        """
        if now is not None:
            self._source = now
        tree = self._source() if is_function(self._source) else self._source
        arrays = leaves(tree)
        if is_function(self._source) and not arrays:
            raise TypeError(
                "Expected the function to return the current weights (a mapping, a pytree of arrays), but got "
                f"{type(tree).__module__}.{type(tree).__qualname__}, in which no array was found."
            )
        known = {name: arrays[name] for name in self._arrays if name in arrays}
        self._arrays = known | arrays  # in the order of their first appearance

    def raw(self) -> dict[str, Any]:
        """The arrays at the last update, in their own library."""
        return dict(self._arrays)

    @property
    def unchanged_arrays(self) -> bool:
        """Whether the arrays are the same immutable objects as at the start, so no update is visible."""
        jax = sys.modules.get("jax")
        arrays = list(self._arrays.values())
        return (
            jax is not None
            and not is_function(self._source)
            and all(isinstance(array, jax.Array) for array in arrays)
            and list(map(id, arrays)) == self._first
        )

    def __getitem__(self, name: str) -> Stored:
        now = stored(self._arrays[name])
        part = None if now.read_part is None else functools.partial(self._read_part, name)
        return dataclasses.replace(now, read=functools.partial(self._read, name), read_part=part)

    def _read(self, name: str) -> Any:
        return stored(self._arrays[name]).read()

    def _read_part(self, name: str, index: Any) -> Any:
        now = stored(self._arrays[name])
        return now.read()[index] if now.read_part is None else now.read_part(index)

    def __iter__(self) -> Iterator[str]:
        return iter(self._arrays)

    def __len__(self) -> int:
        return len(self._arrays)


def is_function(model: Any) -> bool:
    """Whether ``model`` is a function that returns the weights, not a callable module."""
    return inspect.isroutine(model) or isinstance(model, functools.partial)
