"""Keras's files → layers, without Keras: ``.keras``, ``.weights.h5``, sharded ``.weights.json`` and the older ``.h5``.

Names equal ``variable.path`` in the live model, and the layouts are those of live models (see ``keras_layouts``). A
layer's class, groups and equation come from the configuration, or, without one, from the names that Keras gives to
layers.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ww_callbacks.spectral.layers.files.keras_files.archive import Layer, Variable, read_archive
from ww_callbacks.spectral.layers.files.stored_arrays import why_not_dtype
from ww_callbacks.spectral.layers.keras_layouts import classify, divisor_as_kernel, kind_of_vector, type_of
from ww_callbacks.spectral.layers.matrix_layouts import Convention, skipped, specs
from ww_callbacks.spectral.layers.spec import Index, LayerSpec

_CELLS = ("LSTMCell", "GRUCell", "SimpleRNNCell")
_CONVOLUTIONS = tuple(
    f"{how}Conv{n}D{t}" for n in (1, 2, 3) for how, t in (("", ""), ("", "Transpose"), ("Depthwise", ""))
)
_SEPARABLE = ("SeparableConv1D", "SeparableConv2D")
_VARIABLES: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("Dense", "EinsumDense", *_CONVOLUTIONS), ("kernel", "bias")),
    **dict.fromkeys(_CELLS, ("kernel", "recurrent_kernel", "bias")),
    **dict.fromkeys(("ConvLSTM1DCell", "ConvLSTM2DCell", "ConvLSTM3DCell"), ("kernel", "recurrent_kernel", "bias")),
    **dict.fromkeys(_SEPARABLE, ("depthwise_kernel", "pointwise_kernel", "bias")),
    "Embedding": ("embeddings",),
    "ReversibleEmbedding": ("embeddings", "reverse_embeddings"),
    "BatchNormalization": ("gamma", "beta", "moving_mean", "moving_variance"),
    **dict.fromkeys(("LayerNormalization", "GroupNormalization"), ("gamma", "beta")),
}
"""Class → its variables in Keras's order."""

_RECURRENT = ("LSTM", "GRU", "SimpleRNN", "ConvLSTM1D", "ConvLSTM2D", "ConvLSTM3D")
_CLASSES = {name.lower(): name for name in (*_VARIABLES, *_RECURRENT, "MultiHeadAttention", "GroupedQueryAttention")}
_ATTENTION = {
    **dict.fromkeys(("query_dense", "key_dense", "value_dense", "query", "key", "value"), "bic,chd->bihd"),
    **dict.fromkeys(("output_dense", "attention_output"), "bihd,hdc->bic"),
}
"""Attribute or name of a projection inside attention → its equation; the axes are the same in every number of them."""
_ORDER = ("forward_layer", "backward_layer", "query_dense", "key_dense", "value_dense", "output_dense")
"""Attributes of a layer in the order of computation, if that is not alphabetical."""


@dataclass(frozen=True)
class Place:
    """The layer that owns a variable, as far as known from the file."""

    class_name: str
    ancestors: tuple[str, ...] = ()
    groups: int = 1
    equation: str = ""
    mode: str = ""

    def is_a(self, *names: str) -> bool:
        """Whether the layer is of one of these classes; unknown for user-defined classes."""
        return self.class_name in names


def inspect_keras_file(path: Path, convolution: Convention = "matrix") -> list[LayerSpec]:
    """The layers of a Keras file, in the order of the model if the file contains it.

    Raises:
        ImportError: if ``h5py`` is not installed.
        ValueError: if the file is damaged, or an HDF5 file that Keras did not write.
        FileNotFoundError: if a part of a sharded file is not there.
    """
    configuration, layers = read_archive(path)
    known = dict(_configured(configuration))
    order = {name: i for i, name in enumerate(known)}

    def depth(layer: Layer) -> tuple[int, list[int]]:
        placed = next((order[step.name] for step in reversed(layer.steps) if step.name in order), len(order))
        return placed, [_ORDER.index(step.key) for step in layer.steps if step.key in _ORDER]

    layers.sort(key=depth)
    return [spec for layer in layers for spec in _layer_specs(layer, known, convolution)]


def _configured(value: Any) -> Iterator[tuple[str, tuple[str, Mapping[str, Any]]]]:
    """Name → class and settings of every layer in a configuration, in order, inner layers after outer ones."""
    if isinstance(value, list):
        for item in value:
            yield from _configured(item)
    elif isinstance(value, Mapping):
        settings = value.get("config")
        if isinstance(value.get("class_name"), str) and isinstance(settings, Mapping) and "name" in settings:
            yield str(settings["name"]), (value["class_name"], settings)
        for item in value.values():
            yield from _configured(item)


Known = Mapping[str, tuple[str, Mapping[str, Any]]]


def _placed(layer: Layer, known: Known) -> Place:
    """What is known about a layer: from its configuration, otherwise from Keras's default names."""
    place = Place("")
    for step in layer.steps:
        ancestors = (*place.ancestors, place.class_name) if place.class_name or place.ancestors else ()
        around = place.class_name
        if step.key == "cell" and around in _RECURRENT:
            place = Place(f"{around}Cell", ancestors)
        elif "Attention" in around and (equation := _ATTENTION.get(step.key, _ATTENTION.get(step.name, ""))):
            place = Place("EinsumDense", ancestors, equation=equation)
        else:
            name, settings = known.get(re.sub(r"^(forward|backward)_", "", step.name), ("", {}))
            name = name or _class_in(step.name) or _class_in(step.key)
            mode = _quantisation(settings)
            place = Place(name, ancestors, int(settings.get("groups") or 1), str(settings.get("equation") or ""), mode)
    return place if place.class_name else replace(place, class_name=_class_by_shapes(layer.variables))


def _class_in(name: str) -> str:
    """The class of a default name: ``conv2d_transpose_3`` is a ``Conv2DTranspose``."""
    bare = re.sub(r"^(forward|backward)_|_\d+$", "", name).replace("_", "")
    return _CLASSES.get(bare, "")


def _class_by_shapes(variables: Sequence[Variable]) -> str:
    """The class inferred from the shapes of a layer's variables."""
    shapes = [variable.shape for variable in variables]
    if len(shapes) >= 2 and len(shapes[0]) == len(shapes[1]) == 2 and shapes[0][1] == shapes[1][1]:
        units, outputs = shapes[1]
        rest = shapes[2:]
        cell = {4 * units: "LSTMCell", 3 * units: "GRUCell", units: "SimpleRNNCell"}.get(outputs, "")
        return cell if not rest or rest[0][-1:] == (outputs,) else ""
    if len(shapes) in (1, 2) and len(shapes[0]) in (2, 4, 5) and shapes[1:] in ([], [shapes[0][-1:]]):
        return {2: "Dense", 4: "Conv2D", 5: "Conv3D"}[len(shapes[0])]
    return ""


def _quantisation(settings: Mapping[str, Any]) -> str:
    """The quantisation of a layer's weights, such as ``int8``; empty without one."""
    policy = settings.get("dtype")
    inner = policy.get("config", {}) if isinstance(policy, Mapping) else {}
    before, word, _ = str(inner.get("name", "")).partition("_from_")
    return str(inner.get("mode") or (before if word else ""))


def _layer_specs(layer: Layer, known: Known, convolution: Convention) -> list[LayerSpec]:
    place = _placed(layer, known)
    variables = [replace(v, name=name) for v, name in zip(layer.variables, _names(layer, place), strict=True)]
    by_name = {variable.name: variable for variable in variables}
    prefix = "/".join(step.name for step in layer.steps)
    found = []
    for variable in variables:
        path = f"{prefix}/{variable.name}" if prefix else variable.name
        found += _variable_specs(path, variable, by_name, place, convolution, configured=bool(known))
    return found


def _names(layer: Layer, place: Place) -> list[str]:
    """The names of a layer's variables, which the newer layout only numbers."""
    given = [variable.name for variable in layer.variables]
    names = _VARIABLES.get(place.class_name, ())
    if not all(map(str.isdecimal, given)) or (len(names) == 4 and len(given) < 4):
        return given
    if place.mode:  # the scale comes last, the bias only if there is one
        bias = ["bias"] if len(given) > 2 else []
        names = (*names[:1], *bias, f"{names[0]}_scale") if names else ()
    return [*names[: len(given)], *given[len(names) :]]


def _variable_specs(
    path: str,
    variable: Variable,
    others: Mapping[str, Variable],
    place: Place,
    convolution: Convention,
    configured: bool,
) -> list[LayerSpec]:
    type_, shape, name = type_of(place), variable.shape, variable.name
    read, notes = variable.read, []
    read_part: Callable[[Index], np.ndarray] | None = variable.read
    parameters: tuple[str, ...] = (path,)
    scale = others.get(f"{name}_scale")
    if variable.dtype == "int8" and place.mode == "int8" and scale is not None:
        read, read_part = partial(_dequantised, variable, scale, place), None
        parameters, notes = (path, f"{path}_scale"), ["int8, measured as kernel/scale"]
    elif variable.dtype == "int8" and place.mode:
        left = skipped(path, f"{place.mode}: packed integers are not read", type=type_, shape=shape)
        return [replace(left, unread=math.prod(shape))]
    elif why := why_not_dtype(variable.dtype):
        return [skipped(path, why, kind=kind_of_vector(place, name), type=type_, shape=shape)]
    if place.is_a("EinsumDense") and not place.equation:  # with two axes a dense kernel; with more, unknown
        place = replace(place, class_name="Dense")
    kind, cut = classify(place, name, shape, convolution)
    if isinstance(cut, str):
        return [skipped(path, cut, kind=kind, type=type_, shape=shape)]
    if not configured:
        notes.append("class taken from names or shapes" + (", one group" if kind == "conv" else ""))
    note = "; ".join(notes)
    made = specs(
        path, cut, read, read_part=read_part, kind=kind, type=type_, shape=shape, parameters=parameters, note=note
    )
    return [replace(spec, stored_as="INT8, Keras" if len(parameters) > 1 else "") for spec in made]


def _dequantised(kernel: Variable, scale: Variable, place: Place) -> np.ndarray:
    divisor = divisor_as_kernel(
        scale.read(), kernel.shape, place.equation, place.is_a("Embedding", "ReversibleEmbedding")
    )
    values = kernel.read().astype(np.float32)
    values /= divisor
    return values
