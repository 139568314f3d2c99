"""Keras models → layers, on any backend, named by ``variable.path``; imports only the backend in use."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from ww_callbacks.spectral.layers import matrix_layouts as layouts
from ww_callbacks.spectral.layers.frameworks.keras_private import children
from ww_callbacks.spectral.layers.keras_layouts import classify, divisor_as_kernel, kind_of_vector, type_of
from ww_callbacks.spectral.layers.matrix_layouts import Convention, Part, skipped, specs
from ww_callbacks.spectral.layers.spec import EXISTS_LATER, Array, Index, LayerSpec

_HALVES = ("float16", "bfloat16")


@dataclass(frozen=True)
class Place:
    """The layer that owns a variable, and the classes of the layers around it."""

    layer: Any
    ancestors: tuple[str, ...]

    def is_a(self, *names: str) -> bool:
        """Whether the layer is an instance of one of these classes of ``keras.layers``."""
        import keras

        return isinstance(self.layer, tuple(getattr(keras.layers, n) for n in names if hasattr(keras.layers, n)))

    @property
    def class_name(self) -> str:
        """The layer's own class."""
        return type(self.layer).__name__

    @property
    def groups(self) -> int:
        """The number of groups of a convolution."""
        return getattr(self.layer, "groups", 1)

    @property
    def equation(self) -> str:
        """The equation of an ``EinsumDense``."""
        return getattr(self.layer, "equation", "")


def _is_frozen(paths: Sequence[str], variables: Mapping[str, Any]) -> bool:
    known = [variables[path] for path in paths if path in variables]
    return bool(known) and not any(variable.trainable for variable in known)


def inspect_keras(model: Any, convolution: Convention = "matrix") -> list[LayerSpec]:
    """The layers of a Keras model or layer, and the variables that are none, in the order of ``model.weights``."""
    import keras

    owners: dict[int, Place] = {}
    found: list[LayerSpec] = []
    for place in _places(model):
        for variable in place.layer.weights:
            owners[id(variable)] = place
    normalised = {
        id(place.layer.kernel): place.layer
        for place in _places(model)
        if place.is_a("SpectralNormalization") and place.layer.built
    }
    for variable in model.weights:
        found.extend(_variable_specs(variable, owners[id(variable)], convolution, normalised.get(id(variable))))
    variables = {variable.path: variable for variable in model.weights}
    found = [replace(spec, is_frozen=partial(_is_frozen, spec.parameters, variables)) for spec in found]
    return found + [
        skipped(
            place.layer.path or place.layer.name,
            f"not built yet: {EXISTS_LATER}",
            type=type_of(place),
        )
        for place in _places(model)
        if not place.layer.built
        and not place.layer.weights
        and type(place.layer).build is not keras.Layer.build
        and not isinstance(place.layer, keras.Model)
    ]


def _places(layer: Any, ancestors: tuple[str, ...] = ()) -> list[Place]:
    """Every layer under ``layer``, outer ones before inner ones, so that the last to claim a variable is its owner."""
    inner = (*ancestors, type(layer).__name__)
    return [Place(layer, ancestors), *(place for child in children(layer) for place in _places(child, inner))]


def to_array(variable: Any, index: Index = ()) -> Array:
    """The values of a Keras variable: NumPy, or a torch tensor where the torch backend holds it on an accelerator.

    A view on torch's CPU; elsewhere a copy, since a jax buffer may be donated to the next step. Half becomes float32.

    Args:
        variable: the variable.
        index: a slice of it, all of it by default; taken before anything is widened.
    """
    import keras

    value = variable.value
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(value, torch.Tensor):
        from ww_callbacks.spectral.layers.frameworks import torch_tensors

        return torch_tensors.to_array(value, index)
    array = np.asarray(keras.ops.convert_to_numpy(value))
    if keras.backend.standardize_dtype(variable.dtype) in _HALVES:
        return array[index].astype(np.float32)
    return layouts.copied(array[index]) if index else array


def _normalised(wrapper: Any) -> Array:
    """The weight W/σ that ``SpectralNormalization`` applies at the next batch.

    What is in the kernel is not normalised before the first batch, and on jax never.
    """
    import keras

    if not keras.ops.any(keras.ops.not_equal(wrapper.kernel, 0)):
        return to_array(wrapper.kernel)  # as Keras does: σ is 0
    value = keras.ops.stop_gradient(wrapper.normalized_weights()[1])
    return _float(np.asarray(keras.ops.convert_to_numpy(value)))


def _float(array: Any) -> Array:
    return array.astype(np.float32) if isinstance(array, np.ndarray) else array.float()


def _variable_specs(variable: Any, place: Place, convolution: Convention, normalised_by: Any = None) -> list[LayerSpec]:
    import keras

    path, name, shape = variable.path, variable.path.rpartition("/")[2], tuple(variable.shape)
    layer, dtype = place.layer, keras.backend.standardize_dtype(variable.dtype)
    type_, kind = type_of(place), kind_of_vector(place, name)
    main = name in ("kernel", "embeddings")
    adapted = bool(getattr(layer, "lora_enabled", False))
    folder = path.rpartition("/")[0]
    if name.startswith("lora_"):
        return []  # part of the rows of the kernel, below
    read: Callable[[], Array]
    read_part: Callable[[Index], Array] | None = None
    parameters: tuple[str, ...] = (path,)
    note = ""
    scale = next((v for v in layer.weights if v.path == f"{path}_scale"), None)
    if main and dtype == "int8" and getattr(layer, "quantization_mode", None) == "int8" and scale is not None:
        read, note, parameters = (
            _dequantised(layer, variable, scale),
            "int8, measured as kernel/scale",
            (path, scale.path),
        )
    elif "float" not in dtype or dtype.startswith("float8"):
        why = (
            "complex: the quantities are defined for real matrices"
            if "complex" in dtype
            else (f"{dtype}: integers or 8-bit floats without their scale are not the weights")
        )
        return [skipped(path, why, kind=kind, type=type_, shape=shape)]
    elif normalised_by is not None:
        read, note = partial(_normalised, normalised_by), "W/σ, as spectral normalisation applies it"
    else:
        read = read_part = partial(to_array, variable)
    kind, cut = classify(place, name, shape, convolution)
    if isinstance(cut, str):
        return [skipped(path, cut, kind=kind, type=type_, shape=shape)]
    if not (main and adapted):
        return specs(
            path,
            cut,
            read,
            read_part=read_part,
            kind=kind,
            type=type_,
            shape=shape,
            parameters=parameters,
            note=note,
        )
    return _adapted(layer, folder, name, cut, read, type_, shape, parameters, note)


def _adapted(
    layer: Any,
    folder: str,
    name: str,
    cut: list[Part],
    read: Callable[[], Array],
    type_: str,
    shape: tuple[int, ...],
    parameters: tuple[str, ...],
    note: str,
) -> list[LayerSpec]:
    """The rows of a layer with LoRA: its update A·B with its scaling, and the merged weight."""
    a, b = getattr(layer, f"lora_{name}_a"), getattr(layer, f"lora_{name}_b")
    scaling = layer.lora_alpha / layer.lora_rank

    def update() -> Array:
        return (_float(to_array(a)) @ _float(to_array(b))) * scaling

    prefix = f"{folder}/" if folder else ""
    merged = f"{prefix}merged_{name}"
    how = f"scaling·A·B of rank {layer.lora_rank}, scaling {scaling:g}"
    return [
        *specs(
            f"{prefix}lora_update",
            cut,
            update,
            kind="lora",
            type=type_,
            shape=shape,
            parameters=(a.path, b.path),
            note=how,
        ),
        *specs(
            merged,
            cut,
            lambda: read() + update(),
            kind="lora",
            type=type_,
            shape=shape,
            parameters=(*parameters, a.path, b.path),
            note="; ".join(filter(None, ("the base with its update", note))),
        ),
        skipped(parameters[0], f"the frozen base of `{merged}`", kind="dense", type=type_, shape=shape),
    ]


def _dequantised(layer: Any, kernel: Any, scale: Any) -> Callable[[], Array]:
    """Reads the real values q/scale of an int8 kernel, in the kernel's layout."""
    import keras

    def read() -> Array:
        values, divisor = to_array(kernel), to_array(scale)
        equation = layer.equation if isinstance(layer, keras.layers.EinsumDense) else ""
        embedding = isinstance(layer, keras.layers.Embedding)
        return _float(values) / divisor_as_kernel(divisor, tuple(values.shape), equation, embedding)

    return read
