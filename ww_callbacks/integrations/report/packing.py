"""Serialises figures and tables for the page: JSON with binary arrays for plotly.js, or a more compact form for
files.
"""

from __future__ import annotations

import base64
from typing import Any

import numpy as np
import orjson

MANTISSA_BITS = 15
"""Mantissa bits that floats keep: an error of 1.5e-5 of the value, below a pixel and below the precision of hover
texts."""


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


def compact(value: Any, bits: int = MANTISSA_BITS) -> bytes:
    """``value`` for a compressed file: JSON, followed by the numbers of all float arrays.

    A float is stored with ``bits`` of its mantissa, at most 15, as an integer of three bytes. Each number is stored as
    the difference from the one before: first the low bytes of all numbers, then the middle ones, then the high ones.
    Smooth curves are then mostly zeros and compress to a third of their size. The JSON contains the start, length and
    number of rows of each array.

    Returns:
        The length of the JSON and the number of dropped bits, each as four bytes, then the JSON, then the numbers.
    """
    shift = 23 - bits
    parts: list[np.ndarray] = []
    count = 0

    def take(item: Any) -> Any:
        nonlocal count
        if not isinstance(item, np.ndarray) or item.dtype.kind != "f" or item.size == 0:
            return item.tolist() if isinstance(item, np.ndarray) else _pack(item)
        parts.append(item.ravel())
        found = {"floats": count, "count": item.size, **({"rows": len(item)} if item.ndim > 1 else {})}
        count += item.size
        return found

    text = orjson.dumps(value, default=take, option=orjson.OPT_NON_STR_KEYS)
    whole = rounded(np.concatenate([np.empty(0), *parts]), bits).view("<u4") >> np.uint32(shift)
    numbers = np.diff(whole, prepend=np.uint32(0)).astype("<u4")
    planes = numbers.view("u1").reshape(-1, 4)[:, :3].T
    return np.array([len(text), shift], dtype="<u4").tobytes() + text + planes.tobytes()


def rounded(values: np.ndarray, bits: int = MANTISSA_BITS) -> np.ndarray:
    """``values`` as little-endian float32 with the last bits of the mantissa rounded away, so that they compress.

    >>> rounded(np.array([1.0, np.pi, np.inf])).tolist()
    [1.0, 3.1416015625, inf]
    """
    with np.errstate(over="ignore"):
        single = values.astype("<f4")
    drop = 23 - bits
    whole = single.view("<u4")
    finite = np.isfinite(single)
    whole[finite] = (whole[finite] + np.uint32(1 << (drop - 1))) & np.uint32(~((1 << drop) - 1) & 0xFFFFFFFF)
    return single
