"""W_0: the weights that distances are measured from, stored once on disk and memory-mapped."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np

from ww_callbacks.engine.accelerator import to_host
from ww_callbacks.spectral.layers.spec import Array, LayerSpec
from ww_callbacks.spectral.linalg.half_precision import Narrowed, narrowed

FILE_NAME = "w0.safetensors"

_DTYPES = {
    "F64": np.float64,
    "F32": np.float32,
    "F16": np.float16,
    "BF16": np.uint16,  # as its bits
    "I64": np.int64,
    "I32": np.int32,
    "I16": np.int16,
    "I8": np.int8,
    "U8": np.uint8,
}
_NAMES = {"float64": "F64", "float32": "F32", "float16": "F16", "bfloat16": "BF16"}
_ENTRY = 300
"""Maximum size in bytes of one array's entry in the header, without its names."""


class Baseline:
    """The arrays of every layer at the baseline, by layer, in the framework's layout.

    They are stored in ``w0.safetensors``. If several processes share the layers, each writes those that it measures to
    its own file (``w0-1.safetensors``, …). Layers that appear during training go to further files. Values that 16 bits
    represent exactly are stored in 16 bits.
    """

    def __init__(self, arrays: Mapping[str, Narrowed], keys: Mapping[str, Sequence[str]]) -> None:
        self._arrays = dict(arrays)
        self._keys = dict(keys)

    def get(self, layer: str) -> list[np.ndarray] | None:
        """W_0 of one layer, or None if the layer did not exist; a float32 copy of what is stored in 16 bits."""
        keys = self._keys.get(layer)
        return None if keys is None else [self._arrays[k].widened() for k in keys]

    def extend(self, other: Baseline) -> None:
        """Add the layers of ``other``."""
        self._arrays |= other._arrays
        self._keys |= other._keys

    @classmethod
    def write(
        cls,
        folder: Path,
        captured: Mapping[str, Sequence[Array]] | Iterable[tuple[str, Sequence[Array]]],
        specs: Sequence[LayerSpec],
        part: str = "",
    ) -> Baseline:
        """Write the arrays of ``captured`` to ``folder``, one layer after another, and map them back.

        Args:
            folder: the folder of the record.
            captured: layer → arrays, or an iterator over such pairs, which is read one pair at a time without keeping
                any.
            specs: the layers; arrays that belong to none of them are skipped.
            part: suffix that distinguishes the file from those of other processes and of layers added later.

        Raises:
            OSError: if the file cannot be written; the message says how much space it needs.
        """
        known = {spec.name: spec for spec in specs}
        path = folder / (f"w0-{part}.safetensors" if part else FILE_NAME)
        partial = path.with_suffix(".partial")
        widest = 4

        def met(pairs: Iterable[tuple[str, Sequence[Array]]]) -> Iterator[tuple[str, Sequence[Array]]]:
            nonlocal widest
            for layer, arrays in pairs:
                widest = max(widest, *(array.dtype.itemsize for array in arrays))
                yield layer, arrays
                del arrays  # before the next ones are made

        try:
            _write(partial, met(captured.items() if isinstance(captured, Mapping) else captured), known)
            os.replace(partial, path)
        except OSError as error:
            with contextlib.suppress(OSError):
                partial.unlink()
            elements = sum(rows * columns for spec in specs for rows, columns in spec.matrix_shapes)
            raise OSError(f"{error}; it needs up to {_bytes(widest * elements)}{_free(folder)}") from error
        return cls._map(path)

    @classmethod
    def open(cls, folder: Path) -> Baseline:
        """Memory-map the files that :meth:`write` wrote to ``folder``.

        Raises:
            FileNotFoundError: if there is none.
            ValueError: if a file has another format; the message names it.
        """
        # Later files last: if a layer came back with another shape, its last W_0 counts.
        paths = sorted(folder.glob("w0*.safetensors"), key=lambda path: ("later" in path.name, path.name))
        if not paths:
            raise FileNotFoundError(f"There is no {FILE_NAME} in {folder}.")
        baseline = cls({}, {})
        for path in paths:
            baseline.extend(cls._map(path))
        return baseline

    @classmethod
    def _map(cls, path: Path) -> Baseline:
        return cls(*map_tensors(path))


def _bytes(count: int) -> str:
    unit, name = next((u, n) for u, n in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB"), (0.0, "bytes")) if count >= u)
    return f"{count / unit:,.1f} {name}" if unit else f"{count} bytes"


def _free(folder: Path) -> str:
    try:
        return f", and {_bytes(shutil.disk_usage(folder).free)} are free in {folder}"
    except OSError:
        return f" in {folder}"


def _write(path: Path, captured: Iterable[tuple[str, Sequence[Array]]], known: Mapping[str, LayerSpec]) -> None:
    """Write the arrays of the ``known`` layers to a safetensors file, one layer after another."""
    header: dict[str, Any] = {}
    keys: dict[str, list[str]] = {}
    # The header comes first but is complete only at the end, so space is reserved for it and padded with blanks.
    room = _ENTRY + sum(_ENTRY + 8 * len(name.encode()) for name in known)
    room += -room % 8
    with path.open("wb") as file:
        file.seek(8 + room)
        end = 0
        for layer, arrays in captured:
            if layer not in known:
                continue
            keys[layer] = _storage_names(known[layer], len(arrays))
            for name, array in zip(keys[layer], arrays, strict=True):
                header[name] = _append(file, array, end)
                end = header[name]["data_offsets"][1]
                del array  # before the next one is made
            del arrays
        text = json.dumps({"__metadata__": {"layers": json.dumps(keys)}, **header}).encode()
        if len(text) > room:
            raise OSError(f"the header of {path} takes {len(text)} bytes, more than the {room} reserved for it")
        file.seek(0)
        file.write(room.to_bytes(8, "little") + text.ljust(room))


def _append(file: BinaryIO, array: Array, begin: int) -> dict[str, Any]:
    """Write an array in the smallest dtype that represents it exactly; returns its entry for the header."""
    kept = narrowed(np.ascontiguousarray(to_host(array)))
    file.write(kept.array.reshape(-1).view(np.uint8).data)
    dtype = _NAMES[kept.kind or kept.array.dtype.name]
    return {"dtype": dtype, "shape": list(kept.array.shape), "data_offsets": [begin, begin + kept.array.nbytes]}


def map_tensors(path: Path) -> tuple[dict[str, Narrowed], dict[str, list[str]]]:
    """The memory-mapped tensors of a safetensors file written by :meth:`BaselineStore.write`, and their layers.

    Raises:
        FileNotFoundError: if there is none.
        ValueError: if the file has another format; the message names it.
    """
    size = path.stat().st_size
    try:
        with open(path, "rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if not 0 < length <= size - 8:
                raise ValueError("its header is cut off")
            header = json.loads(file.read(length))
        keys = json.loads(header.pop("__metadata__")["layers"])
        arrays = {name: _map(path, 8 + length, size, entry) for name, entry in header.items()}
        for names in keys.values():
            for name in names:
                arrays[name]
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError, OverflowError) as error:
        raise ValueError(
            f"{path} is not a baseline written by ww-callbacks ({error}): remove it to start from the current weights."
        ) from error
    return arrays, keys


def _storage_names(spec: LayerSpec, count: int) -> list[str]:
    # A part of a packed parameter reads only its slice, so the parameter's name does not identify it.
    if spec.parameters == (spec.name,) and count == 1:
        return [spec.name]
    return [f"{spec.name}#{i}" for i in range(count)]


def _map(path: Path, start: int, size: int, entry: Mapping[str, Any]) -> Narrowed:
    begin, end = (int(n) for n in entry["data_offsets"])
    shape = tuple(int(n) for n in entry["shape"])
    name = str(entry["dtype"])
    dtype: np.dtype[Any] = np.dtype(_DTYPES[name])
    if not 0 <= begin <= end <= size - start or end - begin != dtype.itemsize * int(np.prod(shape, dtype=object)):
        raise ValueError("a tensor is outside the file")
    kind: Literal["", "bfloat16", "float16"] = "bfloat16" if name == "BF16" else "float16" if name == "F16" else ""
    if begin == end:
        return Narrowed(kind, np.empty(shape, dtype))
    return Narrowed(kind, np.memmap(path, dtype=dtype, mode="r", offset=start + begin, shape=shape))
