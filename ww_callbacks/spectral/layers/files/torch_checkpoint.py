"""Torch checkpoints → trees of tensors, without executing anything in them.

A checkpoint is a pickle, which can call any function. torch's weights-only loader rejects unknown ones. If it does, the
file is read again by an unpickler that only knows the constructors of tensors and replaces every other class or
function by an inert :class:`Placeholder`, so that no code of the file runs.
"""

from __future__ import annotations

import pickle
import warnings
import zipfile
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any


class Placeholder:
    """Placeholder for an object whose class is not loaded; calling or filling it does nothing."""

    named = ""
    """The class or function in the file."""

    dump_patches = False
    """Prevents torch from printing how the source of a pickled module differs from the current one."""

    def __new__(cls, *_args: Any, **_kwargs: Any) -> Placeholder:
        """Create an empty placeholder from any arguments."""
        made = super().__new__(cls)
        made.__dict__.update(state={}, entries={})
        return made

    def __init__(self, *_args: Any, **_kwargs: Any) -> None:
        """Take any arguments."""

    def __call__(self, *_args: Any, **_kwargs: Any) -> Placeholder:
        """Do nothing and return another placeholder."""
        return Placeholder()

    def __setstate__(self, state: Any) -> None:
        for part in state if isinstance(state, tuple) else (state,):
            if isinstance(part, dict):
                self.__dict__["state"].update(part)

    def __setitem__(self, key: Any, value: Any) -> None:
        with suppress(TypeError):  # an unhashable key
            self.__dict__["entries"][key] = value

    def append(self, _value: Any) -> None:
        """Called by unpickling to fill a list."""

    def extend(self, _values: Any) -> None:
        """Called by unpickling to fill a list."""

    def add(self, _value: Any) -> None:
        """Called by unpickling to fill a set."""


def read_checkpoint(path: Path) -> Mapping[str, Any]:
    """The contents of the torch checkpoint ``path`` as nested mappings; tensors stay in the file until they are read.

    Raises:
        ImportError: if torch is not installed.
        ValueError: if it is not readable, or contains no named tensors.
    """
    try:
        import torch
    except ImportError as error:
        raise ImportError(
            f'{path} is a torch checkpoint, which only torch reads: pip install "ww-callbacks[lightning]".'
        ) from error
    stored_plainly, script = _records(path)
    unknown: set[str] = set()
    load = partial(torch.load, path, map_location="cpu", mmap=stored_plainly or None)
    try:
        if script:
            return _plain(_script(path, script), {})
        with warnings.catch_warnings(action="ignore"):  # about pickle protocols and old storages, which are readable
            try:
                loaded = load(weights_only=True)
            except Exception as error:  # a corrupt file can cause any exception
                # TorchScript must not get here: with `weights_only=False` torch would load its code.
                refused = "weights_only" in str(error) or "Weights only" in str(error)
                if not refused or "TorchScript" in str(error):
                    raise
                loaded = load(weights_only=False, pickle_module=_inert_pickle(unknown))
    except Exception as error:
        raise ValueError(
            f"{path} is not a readable torch checkpoint: it may be truncated, damaged or of another format"
            f"{_reason(error)}. Supported are safetensors, torch checkpoints and ONNX; load any other, such as "
            "a Keras model, yourself and pass the model."
        ) from error
    tree = _plain(loaded, {})
    if hasattr(tree, "shape"):
        return {"tensor": tree}
    if isinstance(tree, list | tuple) and any(isinstance(part, Mapping) for part in tree):
        return {str(i): part for i, part in enumerate(tree)}
    if isinstance(tree, Mapping) and (tree or not unknown):
        return tree
    raise ValueError(
        f"{path} contains {_what(loaded, unknown)}, not a state dict. If you trust it, load it yourself and pass the "
        "model, or save `safetensors.torch.save_file(model.state_dict(), …)`."
    )


def unknown_classes(tree: Any) -> list[str]:
    """The classes of objects in ``tree`` that were not loaded."""
    found: dict[str, None] = {}
    stack, seen = [tree], set()
    while stack:
        node = stack.pop()
        if id(node) in seen:
            continue
        seen.add(id(node))
        if isinstance(node, Placeholder):
            found[node.named] = None
        elif isinstance(node, Mapping):
            stack.extend(node.values())
        elif isinstance(node, list | tuple):
            stack.extend(node)
    return list(found)


def _records(path: Path) -> tuple[bool, str]:
    """Whether the records of a zip file are uncompressed and can be mapped; its folder, if TorchScript wrote it."""
    try:
        with zipfile.ZipFile(path) as archive:
            records = archive.infolist()
    except (OSError, zipfile.BadZipFile, ValueError, NotImplementedError):
        return False, ""  # torch's older format, or damaged, which torch reports
    script = next(
        (r.filename.removesuffix("constants.pkl") for r in records if r.filename.endswith("/constants.pkl")), ""
    )
    return all(record.compress_type == zipfile.ZIP_STORED for record in records), script


def _script(path: Path, folder: str) -> Any:
    """The contents of a TorchScript archive: placeholders of its modules, whose code is neither read nor run."""
    import torch

    types = {
        f"{name}Storage": dtype
        for name, dtype in (
            ("Float", torch.float32), ("Double", torch.float64), ("Half", torch.float16), ("BFloat16", torch.bfloat16),
            ("Long", torch.int64), ("Int", torch.int32), ("Short", torch.int16), ("Char", torch.int8),
            ("Byte", torch.uint8), ("Bool", torch.bool),
        )
    }  # fmt: skip
    known: dict[tuple[str, str], Any] = {("torch", name): dtype for name, dtype in types.items()}
    held: dict[str, torch.Tensor] = {}

    def rebuilt(storage: Any, offset: int, size: Any, stride: Any, *_: Any) -> Any:
        return storage.as_strided(size, stride, offset) if isinstance(storage, torch.Tensor) else storage

    known["torch._utils", "_rebuild_tensor_v2"] = rebuilt
    with zipfile.ZipFile(path) as archive:

        def storage_of(described: Any) -> Any:
            _, dtype, key, *_ = described
            if not isinstance(dtype, torch.dtype):
                return Placeholder()
            if key not in held:
                held[key] = torch.frombuffer(
                    bytearray(archive.read(f"{folder}data/{key}")) or bytearray(8), dtype=dtype
                )
            return held[key]

        with archive.open(f"{folder}data.pkl") as file:
            unpickler = _inert_pickle(set(), known).Unpickler(file)
            unpickler.persistent_load = storage_of
            return unpickler.load()


def _inert_pickle(unknown: set[str], also: Mapping[tuple[str, str], Any] | None = None) -> SimpleNamespace:
    """A pickle module for ``torch.load`` that only creates tensors.

    Args:
        unknown: collects the names of classes that are not created.
        also: further names → functions that create the objects.
    """
    import torch

    known: dict[tuple[str, str], Any] = {("collections", "OrderedDict"): OrderedDict, ("torch", "Size"): torch.Size}
    for name in (
        "_rebuild_tensor",
        "_rebuild_tensor_v2",
        "_rebuild_tensor_v3",
        "_rebuild_parameter",
        "_rebuild_qtensor",
    ):
        if (rebuild := getattr(torch._utils, name, None)) is not None:
            # A separate function per load, so that attributes set by the file do not persist.
            known["torch._utils", name] = lambda *given, _rebuild=rebuild: _rebuild(*given)
    known["torch._utils", "_rebuild_parameter_with_state"] = lambda data, *_: data
    known |= {("torch", str(t).removeprefix("torch.")): t for t in vars(torch).values() if isinstance(t, torch.dtype)}
    known |= {("torch", n): getattr(torch, n) for n in ("per_tensor_affine", "per_channel_affine")}
    for module in ("__builtin__", "builtins"):
        known |= {(module, kind.__name__): kind for kind in (set, frozenset, complex)}

    known |= also or {}

    class Unpickler(pickle.Unpickler):
        def find_class(self, module: str, name: str) -> Any:
            if (module, name) in known:
                return known[module, name]
            unknown.add(f"{module}.{name}")
            return type("Placeholder", (Placeholder,), {"named": f"{module}.{name}"})

    def load(file: Any, **settings: Any) -> Any:
        return Unpickler(file, **settings).load()

    return SimpleNamespace(
        __name__="inert", Unpickler=Unpickler, load=load, PickleError=pickle.PickleError,
        UnpicklingError=pickle.UnpicklingError,
    )  # fmt: skip


def _plain(node: Any, made: dict[int, Any]) -> Any:
    """``node`` with placeholders of modules as state dicts, and of other objects as mappings of their attributes."""
    if id(node) in made:
        return made[id(node)]
    if isinstance(node, Placeholder):
        state, entries = node.__dict__["state"], node.__dict__["entries"]
        inner: dict[str, Any] = {}
        made[id(node)] = inner
        if isinstance(state.get("_modules"), dict) and isinstance(state.get("_parameters"), dict):
            inner.update(_module_state(node, "", set()))
        else:
            inner.update({k: _plain(v, made) for k, v in {**state, **entries}.items() if not _is_hidden(k)})
        return inner or node
    if isinstance(node, tuple) and node and getattr(node[0], "is_quantized", False):
        return node[0]  # a packed weight of torch.ao, with its bias
    if isinstance(node, Mapping):
        mapping: dict[Any, Any] = {}
        made[id(node)] = mapping
        mapping.update({key: _plain(value, made) for key, value in node.items()})
        return mapping
    if isinstance(node, list | tuple) and any(isinstance(part, Placeholder | Mapping) for part in node):
        parts: list[Any] = []
        made[id(node)] = parts
        parts.extend(_plain(part, made) for part in node)
        return parts
    return node


def _is_hidden(key: Any) -> bool:
    return isinstance(key, str) and key.startswith("__")


def _module_state(module: Any, prefix: str, seen: set[int]) -> Iterator[tuple[str, Any]]:
    """The state dict of a pickled module."""
    if not isinstance(module, Placeholder) or id(module) in seen:
        return
    seen.add(id(module))
    state = module.__dict__["state"]
    for kind in ("_parameters", "_buffers"):
        for name, value in (state.get(kind) or {}).items():
            if hasattr(value, "shape"):
                yield f"{prefix}{name}", value
    for name, inner in (state.get("_modules") or {}).items():
        yield from _module_state(inner, f"{prefix}{name}.", seen)


def _what(loaded: Any, unknown: set[str]) -> str:
    if isinstance(loaded, Placeholder):
        classes = sorted(unknown)
        some = ", ".join(classes[:5]) + (", …" if len(classes) > 5 else "")
        return f"objects of {some}, not loaded because that could execute code"
    return f"a {type(loaded).__name__}"


def _reason(error: Exception) -> str:
    """The first line of ``error`` in brackets; empty for a system error, which does not describe the file."""
    text = "" if isinstance(error, OSError) else str(error).partition("\n")[0].rstrip(".")
    return f" ({text})" if text else ""
