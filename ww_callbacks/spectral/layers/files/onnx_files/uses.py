"""Determines which nodes of an ONNX graph apply an input as a matrix, and how.

Whether a tensor is a weight depends on its use: `MatMul` multiplies by it, `Gather` looks up its rows, `Add` adds it.
Its shape is irrelevant: a bias stored with the shape (1, N) is still a bias.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

from ww_callbacks.spectral.layers import matrix_layouts as layouts
from ww_callbacks.spectral.layers.files.onnx_files.constants import (
    Attributes,
    Constant,
    Inputs,
    dequantised,
    stacked,
    swapped,
    unpacked,
)
from ww_callbacks.spectral.layers.matrix_layouts import Convention, Index, Part

_GATES = {"LSTM": ("input", "output", "forget", "cell"), "GRU": ("update", "reset", "new"), "RNN": ("hidden",)}
"""ONNX's orders: iofc and zrh."""
_RECURRENT_INPUTS = {3: "a bias", 5: "an initial state", 6: "an initial state", 7: "peephole vectors"}

_ELEMENTWISE = {
    "Add": "a bias: `Add` adds it",
    "Sum": "a bias: `Sum` adds it",
    "Sub": "a shift: `Sub` subtracts it",
    "Mul": "a factor: `Mul` multiplies element by element",
    "Div": "a divisor: `Div` divides element by element",
    "PRelu": "the slopes of `PRelu`",
}

_QUANTISED = {
    "QLinearMatMul": ("MatMul", 3, 4, 5, -1),
    "MatMulIntegerToFloat": ("MatMul", 1, 3, 5, -1),
    "DynamicQuantizeMatMul": ("MatMul", 1, 2, 3, -1),
    "MatMulInteger": ("MatMul", 1, None, 3, -1),
    "QGemm": ("Gemm", 3, 4, 5, 1),
    "QLinearConv": ("Conv", 3, 4, 5, 0),
    "ConvInteger": ("Conv", 1, None, 3, 0),
    "QAttention": ("Attention", 1, 4, 7, -1),
}
"""Integer nodes: the equivalent node, the positions of weight, scale and zero point, and the axis."""

_PLAIN = {
    **dict.fromkeys(("FusedMatMul", "TransposeMatMul"), "MatMul"),
    "FusedGemm": "Gemm",
    **dict.fromkeys(("FusedConv", "DeformConv"), "Conv"),
}
"""Nodes that use their weight like another node."""

_EMBEDDINGS = {"Gather": (0,), "EmbedLayerNormalization": (2, 3, 4)}


@dataclass(frozen=True)
class Use:
    """How one node applies one constant.

    Attributes:
        weight: the constant as the node applies it, dequantised if the node has the scale.
        kind: the kind of layer.
        type: the node's operation.
        cut: how it splits into parts.
        transposed: whether it is a matrix that is stored (in, out).
    """

    weight: Constant
    kind: str
    type: str
    cut: Callable[[Convention], list[Part]]
    transposed: bool = False


def use(op: str, position: int, inputs: Inputs, attributes: Attributes, scale: Constant | None = None) -> Use | str:
    """How a node applies its input at ``position``, or the reason why that is not a weight.

    Args:
        op: the operation.
        position: position of the input.
        inputs: all inputs.
        attributes: the node's attributes.
        scale: the scale stored under the constant's name, for nodes without a scale input.

    Raises:
        ValueError: if the node is not applicable to the constant.
    """
    weight = inputs[position]
    assert weight is not None
    if op in _QUANTISED:
        return _integers(op, position, inputs, attributes, scale)
    if op == "MatMulNBits":
        return _bits(position, inputs, attributes)
    if op == "GatherBlockQuantized":
        return _coded_embedding(position, inputs, attributes)
    if op == "DynamicQuantizeLSTM":
        return _quantised_lstm(position, inputs, attributes)
    like = _PLAIN.get(op, op)
    if weight.skipped:
        return weight.skipped
    if len(weight.shape) < 2:
        return "a vector: it has no spectrum" if weight.shape else "a scalar"
    if 0 in weight.shape:
        return "empty"
    if like in _GATES and position in (1, 2) and len(weight.shape) == 3:
        return Use(weight, "recurrent", op, lambda c: _directions(weight.shape, _GATES[like]))
    if like in _GATES:
        return f"{_RECURRENT_INPUTS.get(position, 'an input')} of `{op}`"
    if like in ("MatMul", "Gemm") and position < 2:
        return _product(like, op, weight, position, attributes)
    if like in ("Conv", "ConvTranspose") and position == 1 and len(weight.shape) > 2:
        groups, layout = attributes.get("group", 1), "torch" if like == "Conv" else "torch transposed"
        return Use(weight, "conv", op, lambda c: layouts.convolution(weight.shape, c, groups=groups, layout=layout))  # type: ignore[arg-type]
    if position in _EMBEDDINGS.get(like, ()) and len(weight.shape) == 2:
        return _embedding(op, weight, attributes)
    if like == "Einsum" and len(inputs) == 2:
        equation = attributes["equation"] if position == 1 else swapped(attributes["equation"])
        parts = layouts.einsum(equation, weight.shape)
        return Use(weight, "dense", op, lambda c: parts)
    if like == "Attention" and position == 1 and len(weight.shape) == 2:
        sizes = attributes.get("qkv_hidden_sizes")
        packed = not sizes or len(set(sizes)) == 1
        return Use(weight, "attention", op, lambda c: _attention(weight.shape, packed))
    if like in ("MoE", "QMoE") and position in (2, 4, 6) and len(weight.shape) == 3:
        return Use(weight, "experts", op, lambda c: layouts.stack(weight.shape, "expert"))
    if (like, position) in (("Gemm", 2), ("Attention", 2)):
        return f"a bias: `{op}` adds it"
    return _ELEMENTWISE.get(like, f"`{op}` does not apply it as a matrix")


def _product(like: str, op: str, weight: Constant, position: int, attributes: Attributes) -> Use | str:
    """A factor of a matrix product: x·B is stored (in, out), A·x (out, in), unless the node transposes it."""
    swapped = bool(attributes.get("transA" if position == 0 else "transB"))
    transposed = (position == 1) != swapped
    if len(weight.shape) == 2:
        return Use(weight, "dense", op, lambda c: layouts.matrix(weight.shape, transposed=transposed), transposed)
    if like == "Gemm":
        return "a factor of `Gemm` with more than two axes"
    stack = stacked(weight)
    if stack.shape[0] == 1:
        one = stack.made(stack.shape[1:], lambda a: a[0])
        return Use(one, "dense", op, lambda c: layouts.matrix(one.shape, transposed=transposed))
    return Use(stack, "experts", op, lambda c: layouts.stack(stack.shape, "matrix", transposed=transposed))


def _embedding(op: str, weight: Constant, attributes: Attributes) -> Use:
    if attributes.get("axis", 0) % 2:
        return Use(weight, "embedding", op, lambda c: layouts.matrix(weight.shape, note="an embedding of columns"))
    return Use(weight, "embedding", op, lambda c: layouts.embedding(weight.shape))


def _attention(shape: tuple[int, ...], packed: bool) -> list[Part]:
    if packed and shape[1] % 3 == 0:
        return layouts.packed(shape, layouts.QKV, "packed q, k, v", transposed=True)
    return layouts.matrix(shape, transposed=True, note=layouts.UNKNOWN_PACKING)


def _integers(op: str, position: int, inputs: Inputs, attributes: Attributes, scale: Constant | None) -> Use | str:
    like, place, scale_place, zero_place, axis = _QUANTISED[op]
    given = (*inputs, *(None,) * 8)
    if position != place:
        return f"a scale, a zero point or a bias of `{op}`"
    factor = given[scale_place] if scale_place is not None else scale
    weight = given[place]
    if weight is None or factor is None:
        return f"integers whose scale is not an input of `{op}` are not the weights"
    if op == "QGemm" and attributes.get("transB"):
        axis = 0
    values = dequantised(weight, factor, given[zero_place], {"axis": axis})
    found = use(like, 1, (None, values), attributes)
    return replace(found, type=op) if isinstance(found, Use) else found


def _bits(position: int, inputs: Inputs, attributes: Attributes) -> Use | str:
    weight, scales, zeros, groups = (*inputs, None, None, None, None)[1:5]
    if position != 1 or weight is None:
        return "a scale, a zero point or a bias of `MatMulNBits`"
    if scales is None or groups is not None:
        return "reordered packed integers (`MatMulNBits` with `g_idx`) are not supported"
    values = unpacked(weight, scales, zeros, attributes)
    return Use(values, "dense", "MatMulNBits", lambda c: layouts.matrix(values.shape))


def _coded_embedding(position: int, inputs: Inputs, attributes: Attributes) -> Use | str:
    weight, _, scales, zeros = (*inputs, None, None, None)[:4]
    if position != 0 or weight is None:
        return "a scale or a zero point of `GatherBlockQuantized`"
    if scales is None or len(weight.shape) != 2 or attributes.get("quantize_axis", 1) % 2 != 1:
        return "integers whose scale is not an input of `GatherBlockQuantized` are not the weights"
    bits, block = attributes.get("bits", 4), attributes.get("block_size", 128)
    if weight.dtype == "uint8":  # several numbers per byte
        sizes = {"N": weight.shape[0], "K": weight.shape[1] * 8 // bits, "bits": bits, "block_size": block}
        values: Constant | None = unpacked(weight, scales, zeros, sizes)
    else:
        values = dequantised(weight, scales, zeros, {"axis": 1, "block_size": block})
    assert values is not None
    return _embedding("GatherBlockQuantized", values, {})


def _quantised_lstm(position: int, inputs: Inputs, attributes: Attributes) -> Use | str:
    """W and R are stored (directions, in, gates·hidden) here, with one scale per direction, or per output of it."""
    if position not in (1, 2):
        return "a scale, a zero point, a bias or a state of `DynamicQuantizeLSTM`"
    given = (*inputs, *(None,) * 12)
    weight, scale, zero = given[position], given[6 + 2 * position], given[7 + 2 * position]
    assert weight is not None
    if scale is None or len(weight.shape) != 3:
        return "integers without their scale are not the weights"
    shape = weight.shape

    def laid_out(given: Constant | None) -> Constant | None:
        if given is None:
            return None
        rows = (shape[0], 1, math.prod(given.shape) // shape[0])
        return given.made(rows, lambda a: a.reshape(rows))

    scale, zero = laid_out(scale), laid_out(zero)
    values = dequantised(weight, scale, zero, {})
    assert values is not None
    turned = values.made((shape[0], shape[2], shape[1]), lambda a: a.transpose(0, 2, 1))
    return Use(turned, "recurrent", "DynamicQuantizeLSTM", lambda c: _directions(turned.shape, _GATES["LSTM"]))


def _directions(shape: tuple[int, ...], gates: tuple[str, ...]) -> list[Part]:
    """Recurrent weights (directions, gates·hidden, in): one matrix for each gate and direction."""
    found = []
    for direction in range(shape[0]):
        way = ("forward", "backward")[direction] if shape[0] == 2 else ""
        for part in layouts.packed(shape[1:], gates, "gates"):
            index: Index = (direction, *part.index)
            label = ",".join(filter(None, (way, part.label)))
            found.append(replace(part, label=label, index=index))
    return found
