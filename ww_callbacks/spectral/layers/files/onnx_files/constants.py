"""Evaluates the nodes of an ONNX graph between a stored tensor and its consumer: transposed, sliced, dequantised.

A node whose inputs are all stored in the file computes a constant. Its shape is known before any large tensor is read;
its values are computed when a layer is measured.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from ww_callbacks.spectral.layers.files.stored_arrays import why_not_dtype

SMALL = 1024
"""Maximum number of elements of a constant that is read to find a shape."""

_QUANTISER = re.compile(r"(_Transposed)?_quantized$|(_DQ)?_Q\d$")
"""Suffixes that ONNX Runtime's quantisers add to a weight's name; removed so that a model matches its original."""

Attributes = Mapping[str, Any]


@dataclass(frozen=True)
class Constant:
    """A stored tensor, or a tensor that nodes compute from stored tensors only.

    Attributes:
        name: the name of its stored tensor, with ``[i]`` for a part of one.
        shape: its shape.
        read: function that returns its values.
        dtype: the name of their type.
        identity: equal for the same weight in any layout: the stored tensor, and the part of it.
        parameters: the stored tensors from which it is computed.
        how: the applied operations, for the note.
        skipped: why its values are not those of a weight; empty if they are.
        stored_as: its stored format, if it was dequantised.
    """

    name: str
    shape: tuple[int, ...]
    read: Callable[[], np.ndarray]
    dtype: str
    identity: tuple[object, ...]
    parameters: tuple[str, ...]
    how: tuple[str, ...] = ()
    skipped: str = ""
    stored_as: str = ""

    def small(self) -> np.ndarray:
        """Its values, to find a shape.

        Raises:
            ValueError: if there are too many of them.
        """
        if math.prod(self.shape) > SMALL:
            raise ValueError(f"{self.name} of shape {self.shape} is no shape")
        return self.read()

    def made(self, shape: Sequence[int], function: Callable[[np.ndarray], np.ndarray]) -> Constant:
        """The same values in another layout."""
        read = self.read
        return replace(self, shape=tuple(shape), read=lambda: function(read()))

    def part(self, label: str, axis: int, start: int, stop: int) -> Constant:
        """A slice along one axis, as a separate weight."""
        index = (slice(None),) * axis + (slice(start, stop),)
        shape = (*self.shape[:axis], stop - start, *self.shape[axis + 1 :])
        found = self.made(shape, lambda a: a[index])
        return replace(found, name=f"{self.name}[{label}]", identity=(*self.identity, axis, start, stop))


Inputs = Sequence[Constant | None]
"""A node's inputs: None for an input that is missing or computed from the model's inputs."""


def outputs(op: str, inputs: Inputs, attributes: Attributes, count: int) -> list[Constant] | None:
    """The ``count`` outputs of a node that only rearranges constants; None for any other node.

    Raises:
        ValueError: if the node's arguments are invalid.
    """
    function = _PASSED_ON.get(op)
    needed = inputs[:1] if function is _same else inputs
    # A missing optional input is also None; a computed input means that the result is not constant.
    return function(inputs, attributes, count) if function and inputs and needed[0] is not None else None


def _same(inputs: Inputs, attributes: Attributes, count: int) -> list[Constant] | None:
    return [_first(inputs)]


def _cast(inputs: Inputs, attributes: Attributes, count: int) -> list[Constant] | None:
    found, target = _first(inputs), attributes.get("to")
    if why_not_dtype(found.dtype) and target is not None:  # multiplied by its scale later
        return [replace(found, read=lambda: found.read().astype(np.float32), skipped=why_not_dtype(found.dtype))]
    return [found]


def _transpose(inputs: Inputs, attributes: Attributes, count: int) -> list[Constant] | None:
    found = _first(inputs)
    axes = tuple(attributes.get("perm") or reversed(range(len(found.shape))))
    shape = [found.shape[axis] for axis in axes]
    return [found if axes == tuple(range(len(axes))) else found.made(shape, lambda a: a.transpose(axes))]


def _reshape(inputs: Inputs, attributes: Attributes, count: int) -> list[Constant] | None:
    found = _first(inputs)
    target = inputs[1].small().tolist() if len(inputs) > 1 and inputs[1] is not None else attributes.get("shape")
    if target is None:
        return None
    shape = [found.shape[i] if n == 0 and not attributes.get("allowzero") else int(n) for i, n in enumerate(target)]
    return [_reshaped(found, shape)]


def _reshaped(found: Constant, shape: Sequence[int]) -> Constant:
    known = math.prod(n for n in shape if n != -1)
    shape = tuple(math.prod(found.shape) // max(1, known) if n == -1 else n for n in shape)
    if math.prod(shape) != math.prod(found.shape):
        raise ValueError(f"{found.name} of shape {found.shape} cannot take the shape {shape}")
    return found if shape == found.shape else found.made(shape, lambda a: a.reshape(shape))


def _axes(inputs: Inputs, attributes: Attributes) -> list[int] | None:
    if len(inputs) > 1 and inputs[1] is not None:
        return [int(axis) for axis in inputs[1].small().reshape(-1)]
    return attributes.get("axes")


def _unsqueeze(inputs: Inputs, attributes: Attributes, count: int) -> list[Constant] | None:
    found, axes = _first(inputs), _axes(inputs, attributes)
    if axes is None:
        return None
    size = len(found.shape) + len(axes)
    places = {axis % size for axis in axes}
    rest = iter(found.shape)
    return [_reshaped(found, [1 if i in places else next(rest) for i in range(size)])]


def _squeeze(inputs: Inputs, attributes: Attributes, count: int) -> list[Constant] | None:
    found, axes = _first(inputs), _axes(inputs, attributes)
    places = {axis % len(found.shape) for axis in axes} if axes is not None else set(range(len(found.shape)))
    return [_reshaped(found, [n for i, n in enumerate(found.shape) if i not in places or n != 1])]


def _flatten(inputs: Inputs, attributes: Attributes, count: int) -> list[Constant] | None:
    found, axis = _first(inputs), attributes.get("axis", 1)
    return [_reshaped(found, (math.prod(found.shape[:axis]), math.prod(found.shape[axis:])))]


def _split(inputs: Inputs, attributes: Attributes, count: int) -> list[Constant] | None:
    found = _first(inputs)
    axis = attributes.get("axis", 0) % len(found.shape)
    sizes = inputs[1].small().tolist() if len(inputs) > 1 and inputs[1] is not None else attributes.get("split")
    if sizes is None:
        size = -(-found.shape[axis] // count)
        sizes = [min(size, found.shape[axis] - i * size) for i in range(count)]
    ends = np.cumsum([0, *sizes]).tolist()
    return [found.part(str(i), axis, ends[i], ends[i + 1]) for i in range(len(sizes))]


def _slice(inputs: Inputs, attributes: Attributes, count: int) -> list[Constant] | None:
    found, starts, ends, axes, steps = (*inputs, None, None, None, None)[:5]
    if found is None or starts is None or ends is None or (steps is not None and (steps.small() != 1).any()):
        return None
    places = range(len(found.shape)) if axes is None else axes.small().tolist()
    for start, end, axis in zip(starts.small().tolist(), ends.small().tolist(), places, strict=False):
        first, last, _ = slice(start, end).indices(found.shape[axis])
        if (first, last) != (0, found.shape[axis]):
            found = found.part(f"{first}:{last}", axis % len(found.shape), first, max(first, last))
    return [found]


def _concat(inputs: Inputs, attributes: Attributes, count: int) -> list[Constant] | None:
    parts = [part for part in inputs if part is not None]
    if len(parts) < len(inputs):
        return None
    first = parts[0]
    axis = attributes.get("axis", 0) % len(first.shape)
    size = sum(part.shape[axis] for part in parts)
    parameters = tuple(dict.fromkeys(name for part in parts for name in part.parameters))
    return [
        replace(
            first,
            # Reordered parts of one tensor, as when an exporter sorts gates, are that tensor.
            name=parameters[0] if len(parameters) == 1 else "+".join(part.name for part in parts),
            shape=(*first.shape[:axis], size, *first.shape[axis + 1 :]),
            read=partial(_joined, parts, axis),
            identity=tuple(part.identity for part in parts),
            parameters=parameters,
            how=(*first.how, f"{len(parts)} parts joined"),
            skipped=next((part.skipped for part in parts if part.skipped), ""),
        )
    ]


def _joined(parts: Sequence[Constant], axis: int) -> np.ndarray:
    """The parts along one axis, read one after another."""
    found, start = np.empty(0), 0
    for part in parts:
        values = part.read()
        if not start:
            total = sum(one.shape[axis] for one in parts)
            found = np.empty((*values.shape[:axis], total, *values.shape[axis + 1 :]), values.dtype)
        found[(slice(None),) * axis + (slice(start, start + values.shape[axis]),)] = values
        start += values.shape[axis]
    return found


def _quantise(inputs: Inputs, attributes: Attributes, count: int) -> list[Constant] | None:
    """``QuantizeLinear`` of a weight: q = saturate(round(w/s) + z)."""
    found, scale, zero = (*inputs, None)[:3]
    if found is None or scale is None:
        return None
    dtype = zero.dtype if zero is not None else "uint8"
    if dtype not in ("int8", "uint8", "int16", "uint16"):
        return None
    limits, w, spread = np.iinfo(dtype), found.read, _spread(found.shape, attributes)

    def read() -> np.ndarray:
        shift = spread(zero.read()).astype(np.float32) if zero is not None else 0.0
        return np.clip(np.rint(w() / spread(scale.read())) + shift, limits.min, limits.max)

    return [replace(found, read=read, dtype=dtype, skipped=why_not_dtype(dtype))]


def dequantised(
    found: Constant | None, scale: Constant | None, zero: Constant | None, attributes: Attributes
) -> Constant | None:
    """The real values (q − z)·s, with one scale and zero point for all values, for each index along ``axis``, or for
    each block of it.
    """
    if found is None or scale is None:
        return None
    q, s, z, spread = found.read, scale.read, zero.read if zero is not None else None, _spread(found.shape, attributes)
    block, axis = attributes.get("block_size", 0), attributes.get("axis", 1) % max(1, len(found.shape))

    def read() -> np.ndarray:
        values = q().astype(np.float32, order="C")
        for function, given in ((np.subtract, z), (np.multiply, s)):
            if given is None:
                continue
            of_blocks = given().astype(np.float32)
            if block and of_blocks.ndim == values.ndim and of_blocks.shape[axis] * block == values.shape[axis]:
                blocks = values.reshape(*values.shape[:axis], -1, block, *values.shape[axis + 1 :])
                function(blocks, np.expand_dims(of_blocks, axis + 1), out=blocks)
            else:
                function(values, spread(of_blocks), out=values)
        return values

    blocks = "" if len(scale.shape) == 0 or math.prod(scale.shape) == 1 else f" by {math.prod(scale.shape)} scales"
    given = [constant.name for constant in (scale, zero) if constant is not None]
    return replace(
        found,
        name=_QUANTISER.sub("", found.name),
        read=read,
        dtype="float32",
        parameters=tuple(dict.fromkeys((*found.parameters, *given))),
        how=(*found.how, f"dequantised from {found.dtype}{blocks}: (q − z)·s"),
        skipped="",
        stored_as=f"{found.dtype.upper()}, ONNX",
    )


def _spread(shape: Sequence[int], attributes: Attributes) -> Callable[[np.ndarray], np.ndarray]:
    """The function that broadcasts scales to the values of ``shape``."""
    block = attributes.get("block_size", 0)

    def spread(scale: np.ndarray) -> np.ndarray:
        axis = attributes.get("axis", 1) % max(1, len(shape))
        if scale.size == 1:
            return scale.reshape(())
        if scale.ndim == len(shape):
            return np.repeat(scale, block, axis=axis).take(range(shape[axis]), axis=axis) if block else scale
        return scale.reshape([-1 if i == axis else 1 for i in range(len(shape))])

    return spread


def _dequantise(inputs: Inputs, attributes: Attributes, count: int) -> list[Constant] | None:
    q, scale, zero = (*inputs, None, None)[:3]
    found = dequantised(q, scale, zero, attributes)
    return None if found is None else [found]


def _elementwise(function: Callable[..., np.ndarray], a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """``function(a, b)``, in the memory of one of them if nothing else uses it: stored values are read-only."""
    shape, dtype = np.broadcast_shapes(a.shape, b.shape), np.result_type(a, b)
    for own in (a, b):
        if (
            own.flags.owndata
            and own.flags.writeable
            and own.shape == shape
            and own.dtype == dtype
            and dtype.kind == "f"
        ):
            return function(a, b, out=own)
    return function(a, b)


def _arithmetic(function: Callable[[np.ndarray, np.ndarray], np.ndarray], word: str) -> Callable[..., Any]:
    """A node that computes a weight from two stored tensors; the name is that of the larger one."""

    def node(inputs: Inputs, attributes: Attributes, count: int) -> list[Constant] | None:
        if len(inputs) != 2 or inputs[0] is None or inputs[1] is None:
            return None
        a, b = inputs[0], inputs[1]
        main = a if math.prod(a.shape) >= math.prod(b.shape) else b
        # Integers become real values when multiplied by their scale, with or without a zero point.
        scaled = word == "·" and bool(main.skipped) and not (a.skipped and b.skipped)
        return [
            replace(
                main,
                shape=np.broadcast_shapes(a.shape, b.shape),
                read=lambda: _elementwise(function, a.read(), b.read()),
                identity=(*a.identity, word, *b.identity),
                parameters=tuple(dict.fromkeys((*main.parameters, *a.parameters, *b.parameters))),
                how=(*main.how, f"{a.name} {word} {b.name}"),
                skipped="" if scaled else main.skipped,
                stored_as=f"{main.dtype.upper()}, ONNX" if scaled else main.stored_as,
            )
        ]

    return node


def _first(inputs: Inputs) -> Constant:
    assert inputs[0] is not None
    return inputs[0]


_PASSED_ON: dict[str, Callable[[Inputs, Attributes, int], list[Constant] | None]] = {
    **dict.fromkeys(("Identity", "Dropout", "CastLike"), _same),
    "Cast": _cast,
    "Transpose": _transpose,
    "Reshape": _reshape,
    "Unsqueeze": _unsqueeze,
    "Squeeze": _squeeze,
    "Flatten": _flatten,
    "Concat": _concat,
    "Split": _split,
    "Slice": _slice,
    "QuantizeLinear": _quantise,
    "DequantizeLinear": _dequantise,
    "Mul": _arithmetic(np.multiply, "·"),
    "Div": _arithmetic(np.divide, "/"),
    "Add": _arithmetic(np.add, "+"),
    "Sub": _arithmetic(np.subtract, "−"),
}


_NBITS = {"N": 0, "K": 0, "bits": 4, "block_size": 0}


def unpacked(found: Constant, scales: Constant, zeros: Constant | None, attributes: Attributes) -> Constant:
    """The (outputs, inputs) weight of ``MatMulNBits``: blocks of ``block_size`` inputs, ``bits`` each, low bits first.

    Raises:
        ValueError: if the stored bytes do not fit such a weight.
    """
    n, k, bits, block = (int(attributes.get(name, default)) for name, default in _NBITS.items())
    blocks = -(-k // max(1, block))
    if bits not in (2, 4, 8) or math.prod(found.shape) != n * blocks * block * bits // 8:
        raise ValueError(f"{found.name} of shape {found.shape} does not contain {n}×{k} numbers of {bits} bits")

    def numbers(stored: np.ndarray) -> np.ndarray:
        found = np.empty((*stored.shape, 8 // bits), np.float32)
        for place in range(8 // bits):
            found[..., place] = (stored >> (bits * place)) & (2**bits - 1)
        return found.reshape(*stored.shape[:-1], -1)

    def read() -> np.ndarray:
        q = numbers(found.read().reshape(n, blocks, -1))
        if zeros is None:
            z = np.full(1, 2 ** (bits - 1), np.float32)
        else:
            stored = zeros.read().reshape(n, -1)
            z = (numbers(stored) if zeros.dtype == "uint8" else stored.astype(np.float32))[:, :blocks, None]
        q -= z
        q *= scales.read().astype(np.float32).reshape(n, blocks, 1)
        return q.reshape(n, blocks * block)[:, :k]

    given = [constant.name for constant in (scales, zeros) if constant is not None]
    return replace(
        found,
        name=_QUANTISER.sub("", found.name),
        shape=(n, k),
        read=read,
        dtype="float32",
        parameters=(*found.parameters, *given),
        how=(*found.how, f"dequantised from {bits} bits by blocks of {block}: (q − z)·s"),
        skipped="",
        stored_as=f"{bits} bits, ONNX Runtime",
    )


def squeezed(constant: Constant, axis: int) -> Constant:
    """``constant`` without an axis of length one."""
    return _reshaped(constant, (*constant.shape[:axis], *constant.shape[axis + 1 :]))


def stacked(constant: Constant) -> Constant:
    """``constant`` with all axes before the last two in one."""
    return _reshaped(constant, (math.prod(constant.shape[:-2]), *constant.shape[-2:]))


def swapped(equation: str) -> str:
    """An einsum's equation with the operands ``kernel, inputs`` swapped.

    >>> swapped("oi,bi->bo")
    'bi,oi->bo'
    """
    left, arrow, right = equation.replace(" ", "").partition("->")
    kernel, _, inputs = left.partition(",")
    return f"{inputs},{kernel}{arrow}{right}"
