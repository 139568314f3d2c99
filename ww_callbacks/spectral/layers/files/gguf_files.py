"""GGUF files (llama.cpp) → arrays; the package ``gguf`` dequantises them."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ww_callbacks.spectral.layers.files.stored_arrays import Stored, why_not_dtype
from ww_callbacks.spectral.layers.spec import Index

_ROWS = 256
"""Number of rows that are dequantised together."""

_NUMPY = {"F32": "float32", "F64": "float64", "I8": "int8", "I16": "int16", "I32": "int32", "I64": "int64"}


def read_gguf(path: Path) -> dict[str, Stored]:
    """Name → array, or function that reads it later, of the GGUF file ``path``.

    Raises:
        ImportError: if ``gguf`` is not installed.
        ValueError: if the file cannot be read.
    """
    try:
        import gguf
    except ImportError as error:
        raise ImportError(f'{path} needs the package gguf: pip install "ww-callbacks[gguf]".') from error
    try:
        tensors = gguf.GGUFReader(path).tensors
    except Exception as error:  # a damaged header can cause any exception
        raise ValueError(f"{path} is not a readable GGUF file: it may be truncated or damaged ({error}).") from error
    return {tensor.name: _stored(tensor, gguf) for tensor in tensors}


def _stored(tensor: Any, gguf: Any) -> Stored:
    # GGUF lists the fastest axis first; the data are stored as (out, in), as in torch.
    shape = tuple(int(n) for n in reversed(tensor.shape))
    kind = tensor.tensor_type.name
    if kind in _NUMPY:
        return Stored(shape, lambda: tensor.data, why_not_dtype(_NUMPY[kind]), dtype=_NUMPY[kind])
    read = partial(_read, tensor, shape, gguf)
    try:
        gguf.dequantize(tensor.data[:1], tensor.tensor_type)
    except NotImplementedError:
        return Stored(shape, read, f"{kind}: a quantisation that the package gguf does not support", dtype="uint8")
    stored_as = "" if kind in ("F16", "BF16") else f"{kind}, GGUF"
    return Stored(shape, read, stored_as=stored_as, dtype=kind, read_part=read)


def _read(tensor: Any, shape: tuple[int, ...], gguf: Any, index: Index = ()) -> np.ndarray:
    """The values, or a slice of them: it is cut before it is dequantised, but not within a row, whose values share
    blocks.
    """
    before, within = index[: len(shape) - 1], index[len(shape) - 1 :]
    data = tensor.data.reshape(*shape[:-1], -1)[before]
    rows = data.reshape(-1, data.shape[-1])
    values = np.empty((len(rows), shape[-1]), np.float32)
    # gguf needs another copy of what it is given.
    for start in range(0, len(rows), _ROWS):
        values[start : start + _ROWS] = gguf.dequantize(rows[start : start + _ROWS], tensor.tensor_type)
    values = values.reshape(*data.shape[:-1], shape[-1])
    return values[(..., *within)] if within else values
