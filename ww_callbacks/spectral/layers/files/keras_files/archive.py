"""Reads the configuration, layers and variables in a Keras file.

A ``.keras`` file is a zip of the model's configuration (JSON) and its weights (HDF5). The newer HDF5 layout stores each
layer's variables by number under ``vars``, the older one under their names. Links out of a file are not followed.
"""

from __future__ import annotations

import io
import math
import re
import struct
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count, takewhile
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from ww_callbacks.spectral.layers.files.stored_arrays import widened
from ww_callbacks.spectral.layers.spec import Index
from ww_callbacks.spectral.linalg.half_precision import bfloat16_to_float32

_MAGIC = b"\x89HDF\r\n\x1a\n"
LARGEST_CONFIGURATION = 1 << 28
"""Maximum size of a configuration in bytes."""

_WEIGHTS, _SHARDS = "model.weights.h5", "model.weights.json"


@dataclass(frozen=True)
class Variable:
    """One variable of a layer.

    Attributes:
        name: its name inside the layer.
        shape: its shape.
        dtype: its type.
        read: function that returns its values, or those of a slice.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    read: Callable[..., np.ndarray]


@dataclass(frozen=True)
class Step:
    """One step on the path to a layer: an attribute, and the name of the layer there."""

    key: str
    name: str


@dataclass(frozen=True)
class Layer:
    """A layer of a file: the path to it, including itself, and its variables."""

    steps: tuple[Step, ...]
    variables: list[Variable]


def read_archive(path: Path) -> tuple[Any, list[Layer]]:
    """The model's configuration, or None, and its layers.

    Raises:
        ImportError: if ``h5py`` is not installed.
        ValueError: if the file is damaged, or is an HDF5 file not written by Keras.
        FileNotFoundError: if a part of a sharded file does not exist.
    """
    try:
        import h5py  # noqa: F401
    except ImportError as error:
        raise ImportError(f'{path} is a Keras file, which needs h5py: pip install "ww-callbacks[h5]".') from error
    try:
        configuration, stores = _contents(path)
        layers = _layers(stores)
        configuration = configuration or next(filter(None, map(_own_configuration, stores)), None)
    except FileNotFoundError:
        raise
    except Exception as error:  # h5py can raise any exception for a damaged file
        why = str(error).partition("\n")[0].rstrip(".")
        raise ValueError(
            f"{path} is not a readable Keras file: it may be truncated, damaged or of another format ({why}). "
            "Save the model again with `model.save(…)`."
        ) from error
    if not layers:
        raise ValueError(
            f"{path} is an HDF5 file without weights written by Keras. Save them with `model.save(…)` or "
            "`model.save_weights(…)`."
        )
    return configuration, layers


def is_keras(path: Path) -> bool:
    """Whether a file is a Keras file, by its name or contents."""
    if not path.is_file():
        return False
    if path.name.endswith((".keras", ".weights.json")):
        return True
    with path.open("rb") as file:
        start = file.read(len(_MAGIC))
    if start.startswith(b"PK"):
        try:
            with zipfile.ZipFile(path) as archive:
                return not {_WEIGHTS, _SHARDS}.isdisjoint(archive.namelist())
        except zipfile.BadZipFile:
            return False
    return start == _MAGIC


@dataclass(frozen=True)
class Store:
    """An HDF5 file, or an HDF5 member of a zip file."""

    path: Path
    member: str = ""

    @contextmanager
    def opened(self) -> Iterator[Any]:
        """The file, open for reading."""
        import h5py

        if not self.member:
            with h5py.File(self.path, "r") as file:
                yield file
            return
        with zipfile.ZipFile(self.path) as archive:
            info = archive.getinfo(self.member)
            # A compressed member does not support random access, so it is unpacked first.
            packed = info.compress_type != zipfile.ZIP_STORED
            with (
                io.BytesIO(archive.read(info)) if packed else StoredMember(self.path, info) as stream,
                h5py.File(stream, "r") as file,
            ):
                yield file


class StoredMember(io.RawIOBase):
    """An uncompressed member of a zip file, with random access.

    The one of ``zipfile`` reads everything before the place that it is moved to.
    """

    def __init__(self, path: Path, info: zipfile.ZipInfo) -> None:
        self._file = path.open("rb", buffering=0)
        self._file.seek(info.header_offset + _LOCAL_HEADER - 4)
        lengths = struct.unpack("<HH", self._file.read(4))  # of the name and the extra field that follow
        self._start, self._size, self._place = info.header_offset + _LOCAL_HEADER + sum(lengths), info.file_size, 0

    def readable(self) -> bool:
        """True."""
        return True

    def seekable(self) -> bool:
        """True."""
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move to a place in the member."""
        self._place = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._place, io.SEEK_END: self._size}[whence]
        return self._place

    def tell(self) -> int:
        """The current place."""
        return self._place

    def readinto(self, buffer: Any) -> int:
        """Read into ``buffer``; the number of bytes, fewer at the member's end."""
        view = memoryview(buffer).cast("B")[: max(self._size - self._place, 0)]
        self._file.seek(self._start + self._place)
        count = self._file.readinto(view) or 0
        self._place += count
        return count

    def close(self) -> None:
        """Close the file."""
        self._file.close()
        super().close()


_LOCAL_HEADER = 30
"""Bytes of a zip member's header before its name; the last four are two lengths."""


def _contents(path: Path) -> tuple[Any, list[Store]]:
    """The model's configuration, if the file has one, and its HDF5 files."""
    if path.name.endswith(".json"):
        files = _shards(path.read_bytes())
        if missing := [file for file in files if not (path.parent / file).is_file()]:
            raise FileNotFoundError(f"{path} names files that do not exist: {', '.join(missing)}.")
        return None, [Store(path.parent / file) for file in files]
    with path.open("rb") as file:
        if file.read(2) != b"PK":
            return None, [Store(path)]
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        configuration = None
        if "config.json" in names and archive.getinfo("config.json").file_size <= LARGEST_CONFIGURATION:
            configuration = orjson.loads(archive.read("config.json"))
        if _WEIGHTS in names:
            return configuration, [Store(path, _WEIGHTS)]
        if _SHARDS in names:
            return configuration, [Store(path, file) for file in _shards(archive.read(_SHARDS))]
        raise ValueError(f"it contains {', '.join(names[:5])} but no {_WEIGHTS}")


def _shards(index: bytes) -> list[str]:
    """The files in an index of shards."""
    placed: Mapping[str, str | list[str]] = orjson.loads(index)["weight_map"]
    named = [file for files in placed.values() for file in ([files] if isinstance(files, str) else files)]
    if any(Path(file).name != file for file in named):
        raise ValueError("its index names files outside of its folder")
    return list(dict.fromkeys(named))


def _own_configuration(store: Store) -> Any:
    with store.opened() as file:
        text = file.attrs.get("model_config")
        return None if text is None else orjson.loads(text)


def _layers(stores: Sequence[Store]) -> list[Layer]:
    numbered = Numbered()
    for store in stores:
        with store.opened() as file:
            held = _member(file, "model_weights")
            named = held if held is not None else file
            if "layer_names" in named.attrs or "layer_names0" in named.attrs:
                return list(_by_name(store, named))
            numbered.add(store, file, ())
    return list(numbered.layers())


def _member(group: Any, key: str) -> Any:
    """A member of a group if it is stored in this file; None if it is missing or stored elsewhere."""
    import h5py

    inside = key in group and isinstance(group.get(key, getlink=True), h5py.HardLink)
    return group[key] if inside else None


@dataclass
class Numbered:
    """The newer layout: each layer has a group ``vars`` in one file or in several; groups without one are containers.

    Attributes:
        names: the keys that lead to a layer → its name.
        variables: the same keys → its variables.
        functional: the keys of functional models, whose layers were built before them, so that no variable contains
            their name.
    """

    names: dict[tuple[str, ...], str] = field(default_factory=dict)
    variables: dict[tuple[str, ...], list[Variable]] = field(default_factory=dict)
    functional: set[tuple[str, ...]] = field(default_factory=set)

    def add(self, store: Store, group: Any, keys: tuple[str, ...]) -> None:
        """Collect the contents of a group and its subgroups."""
        import h5py

        for key in _natural(group):
            child = _member(group, key)
            if key == "vars" and isinstance(child, h5py.Group):
                name = _text(child.attrs.get("name", ""))
                self.names[keys] = name or self.names.get(keys) or (keys[-1] if keys else "")
                held = [(number, _member(child, number)) for number in _natural(child)]
                found = [_variable(store, dataset, number) for number, dataset in held if dataset is not None]
                self.variables.setdefault(keys, []).extend(found)
            elif isinstance(child, h5py.Group) and (keys or key != "optimizer"):
                if key.startswith("input_layer") and keys[-1:] == ("layers",):
                    self.functional.add(keys[:-1])
                self.add(store, child, (*keys, key))

    def layers(self) -> Iterator[Layer]:
        """Every layer with its own variables."""
        for keys, variables in self.variables.items():
            before = [keys[:i] for i in range(len(keys) + 1)]
            named = [place for place in before if place in self.names and place not in self.functional]
            steps = tuple(Step(place[-1] if place else "", self.names[place]) for place in named)
            if variables:
                yield Layer(steps, sorted(variables, key=lambda variable: int(variable.name)))


def _by_name(store: Store, group: Any) -> Iterator[Layer]:
    """The layers of the older layout: each layer's variables by the names that ``weight_names`` lists."""
    found: dict[tuple[str, ...], Layer] = {}
    for layer in _listed(group, "layer_names"):
        inside = _member(group, layer)
        for weight in () if inside is None else _listed(inside, "weight_names"):
            *around, name = weight.removesuffix(":0").split("/")
            dataset = _nested(inside, weight)
            if dataset is not None:
                steps = tuple(Step(part, part) for part in around)
                found.setdefault(tuple(around), Layer(steps, [])).variables.append(_variable(store, dataset, name))
    yield from found.values()


def _nested(group: Any, path: str) -> Any:
    for key in path.split("/"):
        group = None if group is None else _member(group, key)
    return group


def _listed(group: Any, name: str) -> list[str]:
    """A list of names; Keras splits a long one into several attributes."""
    whole = group.attrs.get(name)
    if whole is not None:
        return [_text(item) for item in whole]
    parts = takewhile(lambda part: part is not None, (group.attrs.get(f"{name}{i}") for i in count()))
    return [_text(item) for part in parts for item in part]


def _text(value: Any) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)


def _natural(group: Any) -> list[str]:
    """The keys of a group, numbers in them by their value."""
    return sorted(group, key=lambda key: [(int(p), "") if p.isdecimal() else (0, p) for p in re.split(r"(\d+)", key)])


def _variable(store: Store, dataset: Any, name: str) -> Variable:
    where, shape = dataset.name, tuple(dataset.shape)
    dtype = _text(dataset.attrs.get("dtype", dataset.dtype.name))

    def read(index: Index = ()) -> np.ndarray:
        with store.opened() as file:
            array = np.asarray(file[where][index])
        if dtype == "bfloat16":  # HDF5 has no such type
            return bfloat16_to_float32(array.view("<u2"))
        return widened(array)

    if dataset.external or dataset.is_virtual or _is_hollow(dataset):
        dtype = "not in the file itself"
    return Variable(name, shape, dtype, read)


def _is_hollow(dataset: Any) -> bool:
    """Whether a file declares far more numbers than it contains."""
    return math.prod(dataset.shape) > 1 << 20 and dataset.id.get_storage_size() * 1000 < dataset.nbytes
