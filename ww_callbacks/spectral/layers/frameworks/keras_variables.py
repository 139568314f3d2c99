"""Keras models → layers, on any backend, named by ``variable.path``; the backend in use is the only one touched."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from ww_callbacks.spectral.layers import matrix_layouts as layouts
from ww_callbacks.spectral.layers.matrix_layouts import Convention, Part, skipped, specs
from ww_callbacks.spectral.layers.spec import Array, Index, LayerSpec

_CONV = ("Conv1D", "Conv2D", "Conv3D")
_TRANSPOSED = ("Conv1DTranspose", "Conv2DTranspose", "Conv3DTranspose")
_DEPTHWISE = ("DepthwiseConv1D", "DepthwiseConv2D", "SeparableConv1D", "SeparableConv2D")
_HALVES = ("float16", "bfloat16")
_GATES = {"LSTMCell": layouts.LSTM_GATES, "GRUCell": layouts.GRU_GATES_KERAS}


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
    def type(self) -> str:
        """The class name; for a recurrent layer's cell that of the layer."""
        name, parent = type(self.layer).__name__, self.ancestors[-1] if self.ancestors else ""
        return parent if parent and name in (f"{parent}Cell", f"{parent.removesuffix('Cell')}Cell") else name


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
    for variable in model.weights:
        found.extend(_variable_specs(variable, owners[id(variable)], convolution))
    variables = {variable.path: variable for variable in model.weights}
    found = [replace(spec, is_frozen=partial(_is_frozen, spec.parameters, variables)) for spec in found]
    return found + [
        skipped(
            place.layer.path or place.layer.name,
            "not built yet: its weights exist after the first batch",
            type=place.type,
        )
        for place in _places(model)
        if not place.layer.built
        and not place.layer.weights
        and type(place.layer).build is not keras.Layer.build
        and not isinstance(place.layer, keras.Model)
    ]


def _places(layer: Any, ancestors: tuple[str, ...] = ()) -> list[Place]:
    """Every layer under ``layer``, outer ones before inner ones, so that the last to claim a variable is its owner."""
    children = layer._flatten_layers(include_self=False, recursive=False)
    inner = (*ancestors, type(layer).__name__)
    return [Place(layer, ancestors), *(place for child in children for place in _places(child, inner))]


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


def _float(array: Any) -> Array:
    return array.astype(np.float32) if isinstance(array, np.ndarray) else array.float()


def _variable_specs(variable: Any, place: Place, convolution: Convention) -> list[LayerSpec]:
    import keras

    path, name, shape = variable.path, variable.path.rpartition("/")[2], tuple(variable.shape)
    layer, dtype = place.layer, keras.backend.standardize_dtype(variable.dtype)
    type_, kind = place.type, _kind_of_vector(place, name)
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
    """Reads the real values q/scale that an int8 kernel stands for, laid out as the kernel."""
    import keras

    def read() -> Array:
        values, divisor = to_array(kernel), to_array(scale)
        if isinstance(layer, keras.layers.EinsumDense):
            letters, _, outputs = layer.equation.partition(",")[2].partition("->")
            # The scale has the axes of the outputs, of length one where the kernel has none of them.
            kept = [axis for axis in outputs if axis in letters]
            sizes = dict(zip(letters, values.shape, strict=True))
            divisor = divisor.reshape([sizes[axis] for axis in kept])
            order = [kept.index(axis) for axis in letters if axis in kept]
            divisor = layouts.permuted(divisor, order)
            divisor = divisor.reshape([sizes[axis] if axis in kept else 1 for axis in letters])
        elif isinstance(layer, keras.layers.Embedding):
            divisor = divisor.reshape(-1, 1)
        return _float(values) / divisor

    return read


def _kind_of_vector(place: Place, name: str) -> str:
    if "norm" in type(place.layer).__name__.lower():
        return "norm"
    return "bias" if "bias" in name else "other"


def classify(place: Place, name: str, shape: tuple[int, ...], convolution: Convention) -> tuple[str, list[Part] | str]:
    """The kind of a variable, with its parts or the reason why it has none."""
    layer, kind = place.layer, _kind_of_vector(place, name)
    if 0 in shape:
        return kind, "empty"
    if len(shape) < 2:
        return kind, "a scalar" if not shape else "a vector: it has no spectrum"
    if kind != "other":
        return kind, f"a {kind}: not a map from inputs to outputs"
    attention = "attention" if any("Attention" in a for a in place.ancestors) else "dense"
    if place.is_a(*_DEPTHWISE) and name != "pointwise_kernel":
        return "conv", layouts.convolution(shape, convolution, layout="keras depthwise")
    if place.is_a(*_CONV) or name == "pointwise_kernel":
        groups = getattr(layer, "groups", 1) if name == "kernel" else 1
        return "conv", layouts.convolution(shape, convolution, groups=groups, layout="keras")
    if place.is_a(*_TRANSPOSED):
        return "conv", layouts.convolution(shape, convolution, layout="keras transposed")
    if type(layer).__name__.startswith("ConvLSTM") and name in ("kernel", "recurrent_kernel"):
        return "recurrent", _convolutional_gates(shape, convolution)
    if name in ("kernel", "recurrent_kernel") and (gates := _GATES.get(type(layer).__name__)):
        return "recurrent", layouts.packed(shape, gates, "gates", transposed=True)
    if place.is_a("EinsumDense"):
        try:
            return attention, layouts.einsum(layer.equation, shape)
        except ValueError as error:
            return attention, str(error)
    if place.is_a("Embedding"):
        if name == "reverse_embeddings":
            return "dense", layouts.matrix(shape, transposed=True)
        return "embedding", layouts.embedding(shape)
    if place.is_a("SimpleRNNCell"):
        return "recurrent", layouts.matrix(shape, transposed=True)
    if len(shape) == 2 and name == "vector_u":
        return "other", "power-iteration vector of spectral normalisation"
    if len(shape) == 2:
        known = place.is_a("Dense") or name == "kernel"
        note = "" if known else "a bare 2-D variable, taken as (in, out): transposed"
        return (attention if known else "other"), layouts.matrix(shape, transposed=True, note=note)
    return "other", f"{len(shape)} axes in a layer of unknown layout"


def _convolutional_gates(shape: tuple[int, ...], convolution: Convention) -> list[Part]:
    size = shape[-1] // len(layouts.LSTM_GATES)
    found = []
    for i, gate in enumerate(layouts.LSTM_GATES):
        rows = slice(i * size, (i + 1) * size)
        for part in layouts.convolution((*shape[:-1], size), convolution, layout="keras"):
            whole = (slice(None),) * (len(shape) - 1 - len(part.index))
            label = f"{gate},{part.label}" if part.label else gate
            found.append(replace(part, label=label, index=(*part.index, *whole, rows), note=f"gate; {part.note}"))
    return found
