"""Keras's layouts: which variable of which layer becomes which matrices, for live models and files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol

from ww_callbacks.spectral.layers import matrix_layouts as layouts
from ww_callbacks.spectral.layers.matrix_layouts import Convention, Part
from ww_callbacks.spectral.layers.spec import Array

_CONV = ("Conv1D", "Conv2D", "Conv3D")
_TRANSPOSED = ("Conv1DTranspose", "Conv2DTranspose", "Conv3DTranspose")
_DEPTHWISE = ("DepthwiseConv1D", "DepthwiseConv2D", "SeparableConv1D", "SeparableConv2D")
_GATES = {"LSTMCell": layouts.LSTM_GATES, "GRUCell": layouts.GRU_GATES_KERAS}


class Owner(Protocol):
    """The required information on the layer that owns a variable."""

    @property
    def class_name(self) -> str:
        """The layer's own class."""

    @property
    def ancestors(self) -> tuple[str, ...]:
        """The classes of the layers around it, the outermost first."""

    @property
    def groups(self) -> int:
        """The number of groups of a convolution."""

    @property
    def equation(self) -> str:
        """The equation of an ``EinsumDense``."""

    def is_a(self, *names: str) -> bool:
        """Whether the layer is of one of these classes of ``keras.layers``."""


def type_of(place: Owner) -> str:
    """The class name; for a recurrent layer's cell that of the layer."""
    name, parent = place.class_name, place.ancestors[-1] if place.ancestors else ""
    return parent if parent and name in (f"{parent}Cell", f"{parent.removesuffix('Cell')}Cell") else name


def divisor_as_kernel(divisor: Array, shape: Sequence[int], equation: str, embedding: bool) -> Array:
    """The scale of an int8 kernel of this shape, laid out to divide it.

    Args:
        divisor: the scale as stored: one number an output, of an embedding one a token.
        shape: the kernel's shape.
        equation: the layer's equation if it is an ``EinsumDense``.
        embedding: whether it is an embedding.
    """
    if embedding:
        return divisor.reshape(-1, 1)
    if not equation:
        return divisor
    letters, _, outputs = equation.replace(" ", "").partition(",")[2].partition("->")
    # The scale has the axes of the outputs, of length one where the kernel has none of them.
    kept = [axis for axis in outputs if axis in letters]
    sizes = dict(zip(letters, shape, strict=True))
    divisor = divisor.reshape([sizes[axis] for axis in kept])
    divisor = layouts.permuted(divisor, [kept.index(axis) for axis in letters if axis in kept])
    return divisor.reshape([sizes[axis] if axis in kept else 1 for axis in letters])


def kind_of_vector(place: Owner, name: str) -> str:
    """The kind of a variable that is no map: a normalisation's, a bias, or any other."""
    if "norm" in place.class_name.lower():
        return "norm"
    return "bias" if "bias" in name else "other"


def classify(place: Owner, name: str, shape: tuple[int, ...], convolution: Convention) -> tuple[str, list[Part] | str]:
    """The kind of a variable, with its parts or the reason why it has none."""
    kind = kind_of_vector(place, name)
    if 0 in shape:
        return kind, "empty"
    if len(shape) < 2:
        return kind, "a scalar" if not shape else "a vector: it has no spectrum"
    if name.endswith(("_scale", "_zero")):
        return kind, "a scale or zero point of quantised weights"
    if kind != "other":
        return kind, f"a {kind}: not a map from inputs to outputs"
    attention = "attention" if any("Attention" in a for a in place.ancestors) else "dense"
    if place.is_a(*_DEPTHWISE) and name != "pointwise_kernel":
        return "conv", layouts.convolution(shape, convolution, layout="keras depthwise")
    if place.is_a(*_CONV) or name == "pointwise_kernel":
        groups = place.groups if name == "kernel" else 1
        return "conv", layouts.convolution(shape, convolution, groups=groups, layout="keras")
    if place.is_a(*_TRANSPOSED):
        return "conv", layouts.convolution(shape, convolution, layout="keras transposed")
    if place.class_name.startswith("ConvLSTM") and name in ("kernel", "recurrent_kernel"):
        return "recurrent", _convolutional_gates(shape, convolution)
    if name in ("kernel", "recurrent_kernel") and (gates := _GATES.get(place.class_name)):
        return "recurrent", layouts.packed(shape, gates, "gates", transposed=True)
    if place.is_a("EinsumDense"):
        try:
            return attention, layouts.einsum(place.equation, shape)
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
