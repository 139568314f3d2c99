"""An array stored in a mapping or file, described before its values are read."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import numpy as np

from ww_callbacks.spectral.layers.spec import Array, Index

FLOATS = ("float64", "float32", "float16", "bfloat16")
LARGEST_SPELT_OUT = 1 << 26
"""A tensor with more values than this, and far more than it stores, is not expanded."""


@dataclass(frozen=True)
class Stored:
    """An array that is read later.

    Attributes:
        shape: its shape.
        read: returns its values, in float32 if stored in half precision.
        skipped: why it cannot be measured; empty if it can.
        identity: equal for two names of the same memory; None if unknown.
        dtype: the name of its stored type; empty if unknown.
        read_part: returns the values of one slice, converted after slicing; None if slices cannot be read separately.
        stored_as: the stored format of a dequantised weight; empty for others.
    """

    shape: tuple[int, ...]
    read: Callable[[], Array]
    skipped: str = ""
    identity: object = None
    dtype: str = ""
    read_part: Callable[[Index], Array] | None = None
    stored_as: str = ""

    @property
    def count(self) -> int:
        """Number of its elements."""
        return math.prod(self.shape)

    @property
    def is_coded(self) -> bool:
        """Whether it contains 8-bit integers or floats, which need a scale."""
        return self.dtype in ("int8", "uint8") or self.dtype.startswith("float8")


def why_not_dtype(dtype: str) -> str:
    """Why values of the type ``dtype`` cannot be measured; empty if they can.

    >>> why_not_dtype("float32"), why_not_dtype("int8")
    ('', 'int8: integers without their scale are not the weights')
    """
    if dtype in FLOATS:
        return ""
    if "complex" in dtype:
        return "complex: the quantities are defined for real matrices"
    if "float8" in dtype:
        return f"{dtype}: 8-bit floats without their scale are not the weights"
    if "int" in dtype or dtype == "bool":
        return f"{dtype}: integers without their scale are not the weights"
    return f"{dtype}: not a numeric type of weights"


def widened(array: np.ndarray) -> np.ndarray:
    """``array`` in float32 if it has a floating-point type of 16 or 8 bits, otherwise unchanged."""
    name = array.dtype.name
    return array.astype(np.float32) if name in ("float16", "bfloat16") or name.startswith("float8") else array


@cache
def float8_values(dtype: str) -> np.ndarray:
    """The 256 values of a type of 8-bit floats, in float32.

    Raises:
        ValueError: if there is no such type.

    >>> float8_values("float8_e4m3fn")[[0x38, 0x7E]].tolist(), float8_values("float8_e5m2")[0x3C].item()
    ([1.0, 448.0], 1.0)
    """
    codes = np.arange(256, dtype=np.uint8)
    if dtype == "float8_e8m0fnu":
        return np.where(codes == 255, np.nan, np.ldexp(1.0, codes.astype(int) - 127)).astype(np.float32)
    if dtype == "float8_e5m2":  # the upper half of a float16
        return (codes.astype(np.uint16) << 8).view(np.float16).astype(np.float32)
    known = {"float8_e4m3fn": (3, 7), "float8_e4m3fnuz": (3, 8), "float8_e5m2fnuz": (2, 16)}
    if dtype not in known:
        raise ValueError(f"Expected a type of 8-bit floats but got {dtype!r}.")
    bits, bias = known[dtype]
    exponent, fraction = ((codes & 127) >> bits).astype(int), (codes & ((1 << bits) - 1)) / (1 << bits)
    value = np.where(exponent > 0, np.ldexp(1 + fraction, exponent - bias), np.ldexp(fraction, 1 - bias))
    nan = (codes & 127) == 127 if dtype == "float8_e4m3fn" else codes == 128
    return np.where(nan, np.nan, np.where(codes > 127, -value, value)).astype(np.float32)


def stored(value: Any) -> Stored:
    """Describe one value of a mapping: an array of any library, an entry of a file, or none of these."""
    if isinstance(value, Stored):
        return value
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(value, torch.Tensor):
        return _torch(value)
    if not hasattr(value, "shape") or not hasattr(value, "dtype"):
        return Stored((), lambda: value, f"not an array but {type(value).__name__}")
    name, shape = _type_name(value.dtype), tuple(value.shape)
    memory: object = id(value)
    if isinstance(value, np.ndarray):
        memory = (value.ctypes.data, shape, value.strides, name) if value.size else None

    def read_part(index: Index) -> Array:
        return widened(np.asarray(value[index]))

    return Stored(shape, lambda: widened(np.asarray(value)), why_not_dtype(name), memory, name, read_part)


def _type_name(dtype: Any) -> str:
    try:
        return np.dtype(dtype).name
    except TypeError:  # JAX's random keys
        return str(dtype)


def _torch(tensor: Any) -> Stored:
    from ww_callbacks.spectral.layers.frameworks import torch_tensors

    why = torch_tensors.why_not(tensor) or _why_not_spelt_out(tensor)
    shape = () if why.startswith("not initialised") else tuple(tensor.shape)
    dtype = str(tensor.dtype).removeprefix("torch.")
    read = partial(torch_tensors.to_array, tensor)
    if dtype.startswith("float8"):
        return Stored(shape, lambda: tensor.float().cpu().numpy(), why, torch_tensors.memory(tensor), dtype)
    return Stored(shape, read, why, torch_tensors.memory(tensor), dtype, read)


def _why_not_spelt_out(tensor: Any) -> str:
    """Why a sparse tensor, or a view that repeats its values, is not made dense; empty if it can be."""
    import torch

    if tensor.layout == torch.strided:
        held = tensor.untyped_storage().nbytes() // tensor.element_size()
    else:
        held = tensor._nnz()
    values = math.prod(tensor.shape)
    if values <= max(LARGEST_SPELT_OUT, 100 * held):
        return ""
    return f"{values:.1e} values, of which {held} are stored: too many to expand"
