"""The trained weights of the model of a plain loop, of any kind, each with its average."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ww_callbacks.adapters.current_arrays import CurrentArrays
from ww_callbacks.adapters.saved_weights.best_checkpoint import save_arrays
from ww_callbacks.adapters.saved_weights.weight_average import Copies, NotSharded, Weights
from ww_callbacks.engine.accelerator import to_host


def weights_of(model: Any) -> Weights:
    """The weights of a torch module, a Keras model, or a pytree of arrays.

    Raises:
        ValueError: for a module that does not hold its full weights.
    """
    if isinstance(model, CurrentArrays):
        return ArrayWeights(model)
    if hasattr(model, "save_weights"):
        from ww_callbacks.adapters.saved_weights.keras_weights import KerasWeights

        return KerasWeights(model)
    from ww_callbacks.adapters.saved_weights.torch_weights import TorchWeights

    return TorchWeights(model)


class ArrayWeights(NotSharded):
    """The floating-point arrays of a pytree; see :class:`ww_callbacks.adapters.saved_weights.weight_average.Weights`.

    Each average is an array of the same library on the same device; half precision is averaged in single precision.

    Args:
        arrays: name → current array of NumPy, JAX or torch.
    """

    def __init__(self, arrays: CurrentArrays) -> None:
        self._arrays = arrays
        self._average: dict[str, Any] = {}

    def follow(self) -> None:
        """Average the current arrays."""
        held = self._floats()
        self._average = {n: a for n, a in self._average.items() if n in held and held[n].shape == a.shape}

    def _floats(self) -> dict[str, Any]:
        self._arrays.look()
        held = self._arrays.raw().items()
        return {n: a for n, a in held if "float" in str(a.dtype) and not getattr(a, "is_deleted", bool)()}

    def blend(self, share: float) -> None:
        """Move the average by this fraction of the distance to the current weights."""
        for name, array in self._floats().items():
            now, kept = _wide(array), self._average.get(name)
            self._average[name] = +now if kept is None else kept + share * (now - kept)

    def average(self) -> dict[str, np.ndarray]:
        """Copies of the average."""
        return {name: np.array(to_host(a)) for name, a in self._average.items()}

    def now(self) -> dict[str, np.ndarray]:
        """Copies of the current weights."""
        return {name: np.array(to_host(_wide(a))) for name, a in self._floats().items()}

    def put(self, copies: Copies) -> None:
        """Write copies into the arrays.

        Raises:
            ValueError: if an array cannot be changed in place.
        """
        held = self._floats()
        for name in held.keys() & copies.keys():
            if isinstance(held[name], np.ndarray):
                held[name][...] = copies[name]
            elif hasattr(held[name], "copy_"):
                held[name].detach().copy_(sys.modules["torch"].as_tensor(copies[name]))
            else:
                raise ValueError("JAX arrays cannot be changed in place: load the file that `best_average` names")

    def save_average(self, save: Callable[[Path], object], path: Path) -> None:
        """Write the average to a file, and the arrays that are not averaged unchanged."""
        save_arrays({n: a.read() for n, a in self._arrays.items() if not a.skipped} | self.average(), path)

    def put_average(self, copies: Copies) -> None:
        """Set the average from copies."""
        self._average = {name: np.array(a) for name, a in copies.items() if name in self._floats()}


def _wide(array: Any) -> Any:
    plain = array.detach() if hasattr(array, "detach") else array
    if plain.dtype.itemsize >= 4:
        return plain
    return plain.float() if hasattr(plain, "detach") else plain.astype("float32")
