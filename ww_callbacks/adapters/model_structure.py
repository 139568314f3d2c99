"""Detects changes of a model's parameters: pruning, adapters and parametrisations change them."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from ww_callbacks.adapters.current_arrays import CurrentArrays
from ww_callbacks.spectral.layers.spec import LayerSpec


class Structure:
    """A model's layers, inspected again only if its parameters' names or shapes have changed.

    Args:
        model: what :func:`ww_callbacks.spectral.layers.inspect` takes.
        look: the function that inspects the model.
    """

    def __init__(self, model: Any, look: Callable[[], Sequence[LayerSpec]]) -> None:
        self._model = model
        self._look = look
        self._signature = tuple(_parameters(model))
        self.specs = list(look())

    def refresh(self) -> list[LayerSpec] | None:
        """The current layers if the structure has changed since the last call, otherwise None."""
        if isinstance(self._model, CurrentArrays):
            self._model.look()
        signature = tuple(_parameters(self._model))
        if signature == self._signature:
            return None
        self._signature = signature
        self.specs = list(self._look())
        return self.specs


def _parameters(model: Any) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Names and shapes, without reading a value."""
    keras, torch = sys.modules.get("keras"), sys.modules.get("torch")
    if keras is not None and hasattr(keras, "Layer") and isinstance(model, keras.Layer):
        yield from ((v.path, tuple(v.shape)) for v in model.weights)
    elif torch is not None and isinstance(model, torch.nn.Module):
        lazy = torch.nn.parameter.is_lazy
        for name, p in model.named_parameters(remove_duplicate=False):
            if type(p) is torch.nn.Parameter and not hasattr(p, "ds_shape"):
                yield name, p.shape
            else:
                yield name, () if lazy(p) else tuple(getattr(p, "ds_shape", p.shape))  # under ZeRO-3, p.shape is empty
    elif isinstance(model, Mapping):
        yield from ((str(k), tuple(getattr(v, "shape", ()))) for k, v in model.items())
