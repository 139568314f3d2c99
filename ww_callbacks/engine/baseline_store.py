"""W_0: the weights that distances are measured from, kept once, on disk, and memory-mapped."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import save_file

from ww_callbacks.engine.accelerator import to_host
from ww_callbacks.spectral.layers.spec import Array, LayerSpec

FILE_NAME = "w0.safetensors"

_DTYPES = {
    "F64": np.float64,
    "F32": np.float32,
    "F16": np.float16,
    "I64": np.int64,
    "I32": np.int32,
    "I16": np.int16,
    "I8": np.int8,
    "U8": np.uint8,
}


class Baseline:
    """The arrays of every layer at the baseline, by layer, in the framework's own layout.

    They lie in ``w0.safetensors``; where several processes share the layers, each writes those that it measures to a
    file of its own (``w0-1.safetensors``, …), and layers that appear during training go to further files.
    """

    def __init__(self, arrays: Mapping[str, np.ndarray], keys: Mapping[str, Sequence[str]]) -> None:
        self._arrays = dict(arrays)
        self._keys = dict(keys)

    def get(self, layer: str) -> list[np.ndarray] | None:
        """W_0 of one layer, or None where the layer was not there."""
        keys = self._keys.get(layer)
        return None if keys is None else [self._arrays[k] for k in keys]

    def extend(self, other: Baseline) -> None:
        """Take the layers of ``other`` too."""
        self._arrays |= other._arrays
        self._keys |= other._keys

    @classmethod
    def write(
        cls, folder: Path, captured: Mapping[str, Sequence[Array]], specs: Sequence[LayerSpec], part: str = ""
    ) -> Baseline:
        """Write the arrays of ``captured`` (layer → arrays) to ``folder`` once and map them back.

        Args:
            folder: the folder of the record.
            captured: the weights.
            specs: the layers; those that are not in ``captured`` are left out.
            part: tells the file from those of other processes and of layers that came later.

        Raises:
            OSError: if the file cannot be written, with the room that it needs.
        """
        tensors: dict[str, np.ndarray] = {}
        keys: dict[str, list[str]] = {}
        for spec in specs:
            if spec.name in captured:
                names = _storage_names(spec, len(captured[spec.name]))
                keys[spec.name] = names
                for name, array in zip(names, captured[spec.name], strict=True):
                    tensors[name] = np.ascontiguousarray(to_host(array))
        path = folder / (f"w0-{part}.safetensors" if part else FILE_NAME)
        partial = path.with_suffix(".partial")
        try:
            save_file(tensors, partial, metadata={"layers": json.dumps(keys)})
            os.replace(partial, path)
        except (OSError, SafetensorError) as error:
            with contextlib.suppress(OSError):
                partial.unlink()
            room = sum(tensor.nbytes for tensor in tensors.values())
            raise OSError(f"{error}; it needs {_bytes(room)}{_free(folder)}") from error
        return cls._map(path)

    @classmethod
    def open(cls, folder: Path) -> Baseline:
        """Map the files that :meth:`write` left in ``folder``.

        Raises:
            FileNotFoundError: if there is none.
            ValueError: if one is not such a file, naming it.
        """
        # Later files last: where a layer came back in another shape, its last W_0 counts.
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


def map_tensors(path: Path) -> tuple[dict[str, np.ndarray], dict[str, list[str]]]:
    """The tensors of a safetensors file of ours, memory-mapped, and which layers they make up.

    Raises:
        FileNotFoundError: if there is none.
        ValueError: if it is not such a file, naming it.
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
    # A part of a packed parameter reads only its slice, so it cannot go by the parameter's name.
    if spec.parameters == (spec.name,) and count == 1:
        return [spec.name]
    return [f"{spec.name}#{i}" for i in range(count)]


def _map(path: Path, start: int, size: int, entry: Mapping[str, Any]) -> np.ndarray:
    begin, end = (int(n) for n in entry["data_offsets"])
    shape = tuple(int(n) for n in entry["shape"])
    dtype: np.dtype[Any] = np.dtype(_DTYPES[str(entry["dtype"])])
    if not 0 <= begin <= end <= size - start or end - begin != dtype.itemsize * int(np.prod(shape, dtype=object)):
        raise ValueError("a tensor lies outside of the file")
    if begin == end:
        return np.empty(shape, dtype)
    return np.memmap(path, dtype=dtype, mode="r", offset=start + begin, shape=shape)
