"""The weights of one model's layers, taken from another source: a baseline for a model, two checkpoints compared."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ww_callbacks.spectral.layers import inspect
from ww_callbacks.spectral.layers.spec import Array, LayerSpec


def arrays_from(specs: Sequence[LayerSpec], source: Any, convolution: str = "matrix") -> dict[str, list[Array]]:
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
    found: dict[str, list[Array]] = {}
    for spec in specs:
        if spec.skipped:
            continue
        for name in (spec.name, *spec.parameters[:1]):
            other = others.get(name)
            if other is None or other.read is None or other.shape != spec.shape:
                continue
            if other.part == spec.part:
                found[spec.name] = list(other.read())
                break
            if not other.part:
                found[spec.name] = [array[spec.part] for array in other.read()]
                break
    return found
