"""Figures and tables as JSON for the page: arrays in binary, as plotly.js reads them, and rounded for display."""

from __future__ import annotations

import base64
from typing import Any

import numpy as np
import orjson

MANTISSA_BITS = 15
"""Bits that floats keep after the point: 1.5e-5 of the value, below a pixel and below what hover texts show."""


def pack(value: Any) -> bytes:
    """``value`` as JSON; NaN and infinities become null, NumPy arrays ``{"dtype", "bdata", "shape"}``."""
    return orjson.dumps(value, default=_pack, option=orjson.OPT_NON_STR_KEYS)


def _pack(value: Any) -> Any:
    if isinstance(value, np.generic):
        return value.item()
    if not isinstance(value, np.ndarray):
        raise TypeError(f"cannot pack {type(value).__name__}")
    if value.dtype.kind in "OUSb" or value.size == 0:
        return value.tolist()
    if value.dtype.kind == "f":
        packed = rounded(value)
        name = "f4"
    else:
        packed, name = value.astype("<i4"), "i4"
    array = {"dtype": name, "bdata": base64.b64encode(packed.tobytes()).decode("ascii")}
    return array if value.ndim == 1 else {**array, "shape": ", ".join(map(str, value.shape))}


def rounded(values: np.ndarray) -> np.ndarray:
    """``values`` as little-endian float32 with the last bits of the mantissa rounded away, so that they compress.

    >>> rounded(np.array([1.0, np.pi, np.inf])).tolist()
    [1.0, 3.1416015625, inf]
    """
    with np.errstate(over="ignore"):
        single = values.astype("<f4")
    drop = 23 - MANTISSA_BITS
    bits = single.view("<u4")
    finite = np.isfinite(single)
    bits[finite] = (bits[finite] + np.uint32(1 << (drop - 1))) & np.uint32(~((1 << drop) - 1) & 0xFFFFFFFF)
    return single
