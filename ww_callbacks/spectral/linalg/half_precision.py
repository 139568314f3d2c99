"""Half precision in NumPy arrays: bfloat16, for which NumPy has no type, and float32 arrays that fit into 16 bits.

A bfloat16 is the upper half of a float32. Weights stored in half precision are converted to float32 for measurement;
:func:`narrowed` converts them back to 16 bits if that is exact.
"""

from __future__ import annotations

import sys
from typing import Literal, NamedTuple

import numpy as np

_BLOCK = 1 << 20
"""Elements checked together: usually the first block shows that float32 is needed."""

_FIRST = 64

_LOWER = 0 if sys.byteorder == "little" else 1
"""Which of the two 16-bit integers in a float32's memory is its lower half."""


class Narrowed(NamedTuple):
    """An array in the smallest type that represents all of its values exactly.

    Attributes:
        kind: ``bfloat16``, ``float16``, or empty if the array is unchanged.
        array: the values; those of ``bfloat16`` as unsigned 16-bit integers.
    """

    kind: Literal["", "bfloat16", "float16"]
    array: np.ndarray

    def widened(self) -> np.ndarray:
        """The array as it was: a float32 copy of one in half precision."""
        if self.kind == "bfloat16":
            return bfloat16_to_float32(self.array)
        return self.array.astype(np.float32) if self.kind == "float16" else self.array


def copied(array: np.ndarray, old: Narrowed | None = None) -> Narrowed:
    """A copy of ``array``, in 16 bits where it is exact; otherwise in the memory of ``old``, if it fits there.

    Where ``old``, an earlier copy of the same weights, was not exact in 16 bits, the new one is not checked for it.

    >>> copied(np.array([1.0, -0.5], np.float32)).kind
    'bfloat16'
    """
    if old is not None and not old.kind and old.array.shape == array.shape and old.array.dtype == array.dtype:
        np.copyto(old.array, array)
        return old
    new = narrowed(array)
    return new if new.kind else Narrowed("", np.array(array))


def bfloat16_to_float32(bits: np.ndarray) -> np.ndarray:
    """The float32 values of bfloat16 numbers given as unsigned 16-bit integers; one copy is made.

    >>> bfloat16_to_float32(np.array([0x3F80, 0xC000], np.uint16)).tolist()
    [1.0, -2.0]
    """
    wide = np.array(bits, dtype="<u4", order="C")
    wide <<= 16
    return wide.view("<f4")


def narrowed(array: np.ndarray) -> Narrowed:
    """``array`` in 16 bits if it is float32 and 16 bits represent all of its values exactly, including the bits of NaN.

    >>> narrowed(np.array([1.0, -0.5], np.float32)).kind, narrowed(np.array([0.1], np.float32)).kind
    ('bfloat16', '')
    """
    if array.dtype != np.float32 or array.size == 0:
        return Narrowed("", array)
    flat = np.ascontiguousarray(array).reshape(-1)
    # Values of 16 bits have zeros in the lower 13 bits of a float32: usually the first few elements decide.
    if (flat[:_FIRST].view(np.uint16)[_LOWER::2] & 0x1FFF).any():
        return Narrowed("", array)
    blocks = [slice(start, start + _BLOCK) for start in range(0, len(flat), _BLOCK)]
    if flat.any() and not any(flat[block].view(np.uint16)[_LOWER::2].any() for block in blocks):
        return Narrowed("bfloat16", flat.view(np.uint16)[1 - _LOWER :: 2].copy().reshape(array.shape))
    half = np.empty(flat.shape, np.float16)  # also for zeros: every version reads it in a stored W_0
    with np.errstate(all="ignore"):
        for block in blocks:
            half[block] = flat[block]
            if not np.array_equal(half[block].astype(np.float32).view(np.uint32), flat[block].view(np.uint32)):
                return Narrowed("", array)
    return Narrowed("float16", half.reshape(array.shape))
