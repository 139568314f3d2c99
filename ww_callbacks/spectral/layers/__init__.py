"""A model, state dict or file → layers: which parameters become which matrices."""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from ww_callbacks.spectral.layers.matrix_layouts import check_convention
from ww_callbacks.spectral.layers.names import printable
from ww_callbacks.spectral.layers.spec import Layers, LayerSpec

__all__ = ["inspect"]


def inspect(model: Any, convolution: str = "matrix", *, base: Any = None) -> Layers:
    """Return how every parameter of ``model`` is handled, in depth order; skipped parameters have a reason.

    Imports no framework that the model does not already use, reads no values, and changes nothing.

    Args:
        model: a torch module, a Keras model or layer, a state dict or any other mapping of names to arrays, a
            pytree of arrays (a module of Flax NNX or Equinox, nested lists, dataclasses), one matrix, or the path of a
            safetensors file, a torch checkpoint, an ONNX or Keras file or a Hugging Face folder. A path can select
            one of several sets of weights, ``file.pt:teacher``.
        convolution: how a convolution becomes matrices: ``matrix``, ``slices``, ``separate`` or ``weightwatcher`` (see
            :data:`ww_callbacks.spectral.layers.matrix_layouts.Convention`).
        base: the base weights of an adapter's folder, so that their sum is measured; ignored for any other model.

    Raises:
        TypeError: if ``model`` is none of these.
        FileNotFoundError: if there is no such file.
        ImportError: if the package that reads the file is not installed.
        ValueError: if ``convolution`` is not one of the conventions, or the file cannot be read.

    Examples:
        >>> import numpy as np
        >>> [(spec.name, spec.shape) for spec in inspect({"fc.weight": np.zeros((10, 4))})]
        [('fc.weight', (10, 4))]
    """
    convention = check_convention(convolution)
    keras, torch = sys.modules.get("keras"), sys.modules.get("torch")
    # Keras first: on its torch backend a Keras layer is a torch module too.
    if keras is not None and hasattr(keras, "Layer") and isinstance(model, keras.Layer):
        from ww_callbacks.spectral.layers.frameworks.keras_variables import inspect_keras

        return _unique(inspect_keras(model, convention))
    if torch is not None and hasattr(torch, "nn") and isinstance(model, torch.nn.Module):
        from ww_callbacks.spectral.layers.frameworks.torch_modules import inspect_torch

        return _unique(inspect_torch(model, convention))
    if isinstance(model, str | os.PathLike):
        from ww_callbacks.spectral.layers.files.formats import inspect_file

        try:
            return _unique(inspect_file(model, convention, base=base))
        except (ValueError, FileNotFoundError) as error:
            if str(error).isprintable():
                raise
            raise type(error)(printable(str(error))) from None
    from ww_callbacks.spectral.layers.files.state_dicts.layers import inspect_mapping
    from ww_callbacks.spectral.layers.frameworks.pytrees import has_arrays, leaves

    if isinstance(model, Mapping):
        return _unique(inspect_mapping(model, convention))
    if has_arrays(model):
        return _unique(inspect_mapping(leaves(model), convention))
    if len(getattr(model, "shape", ())) == 2:
        return inspect_mapping({"matrix": model}, convention)
    shape = getattr(model, "shape", None)
    raise TypeError(
        "Expected a torch module, a Keras model, a mapping of names to arrays, a pytree, one 2-D array or a path, "
        f"but got {type(model).__module__}.{type(model).__qualname__}"
        f"{'' if shape is None else f' of shape {tuple(shape)}: give it a name, as a mapping, or make it 2-D'}."
    )


def _unique(specs: list[LayerSpec]) -> Layers:
    """``specs`` with ``#2``, ``#3``, … after a name that came before: Keras lets two layers have one.

    What a terminal could obey in names and texts is spelt out.
    """
    seen: Counter[str] = Counter()
    found = []
    for spec in map(_printable, specs):
        seen[spec.name] += 1
        found.append(replace(spec, name=f"{spec.name}#{seen[spec.name]}") if seen[spec.name] > 1 else spec)
    return Layers(found, map(printable, specs.remarks) if isinstance(specs, Layers) else ())


def _printable(spec: LayerSpec) -> LayerSpec:
    texts = (spec.name, *spec.parameters, spec.note, spec.skipped, spec.stored_as)
    if all(text.isprintable() for text in texts):
        return spec
    return replace(
        spec,
        name=printable(spec.name).replace("\n", "\\n"),
        parameters=tuple(map(printable, spec.parameters)),
        note=printable(spec.note),
        skipped=printable(spec.skipped),
        stored_as=printable(spec.stored_as),
    )
