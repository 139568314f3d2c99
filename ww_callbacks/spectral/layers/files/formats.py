"""Files of weights → layers: safetensors, torch checkpoints, ONNX, and Hugging Face folders.

Nothing read here executes code: torch checkpoints are loaded weights-only, everything else is data. A file that cannot
be read is refused with its name and what to do.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from ww_callbacks.spectral.layers.files.state_dict import inspect_mapping
from ww_callbacks.spectral.layers.files.stored_arrays import Stored, why_not_dtype
from ww_callbacks.spectral.layers.files.torch_checkpoint import read_checkpoint, unknown_classes
from ww_callbacks.spectral.layers.matrix_layouts import Convention
from ww_callbacks.spectral.layers.spec import LayerSpec

FORMATS = "a safetensors file, a torch checkpoint (.pt, .pth, .ckpt, .bin), an ONNX file or a Hugging Face folder"
_FOLDER_FILES = (
    "model.safetensors.index.json",
    "model.safetensors",
    "diffusion_pytorch_model.safetensors",
    "pytorch_model.bin.index.json",
    "pytorch_model.bin",
    "adapter_model.safetensors",
    "adapter_model.bin",
)
_SAFETENSORS_TYPES = {
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
    "F8_E4M3": "float8_e4m3fn",
    "F8_E5M2": "float8_e5m2",
    "C64": "complex64",
    "BOOL": "bool",
    **{f"{kind}{bits}": f"{name}{bits}" for kind, name in (("I", "int"), ("U", "uint")) for bits in (8, 16, 32, 64)},
}


def inspect_file(path: str | os.PathLike[str], convolution: Convention = "matrix") -> list[LayerSpec]:
    """The layers of a file or a folder of weights; values are read when a layer is measured.

    Raises:
        FileNotFoundError: if there is no such file.
        ImportError: if the package that reads it is not installed, naming the extra.
        ValueError: if the path is empty, or if the file is none of the known formats, is corrupt, or could be read only
            by executing code in it.
    """
    if not os.fspath(path):  # which `Path` takes for the current folder
        raise ValueError(f"Expected {FORMATS} but got an empty path.")
    path, choice = _chosen(Path(path))
    if not path.exists():
        raise FileNotFoundError(f"No such file or folder: {path}. Expected {FORMATS}.")
    if path.is_dir():
        return _inspect_folder(path, convolution)
    if path.suffix == ".onnx":
        from ww_callbacks.spectral.layers.files.onnx_graph import inspect_onnx

        return inspect_onnx(path, convolution)
    return _inspected(path, convolution, choice)


def _chosen(path: Path) -> tuple[Path, str]:
    """``file.pt:teacher`` as the file and what is chosen in it."""
    before, colon, after = str(path).rpartition(":")
    if not path.exists() and colon and after and Path(before).exists():
        return Path(before), after
    return path, ""


def entries(path: Path) -> Mapping[str, Any]:
    """Name → array, or what reads it later, of a safetensors file; what a torch checkpoint holds, as nested mappings.

    Raises:
        ValueError: if it is neither, or corrupt.
    """
    with path.open("rb") as file:
        start = file.read(9)
    if not start:
        raise ValueError(f"{path} is empty. Expected {FORMATS}.")
    if path.suffix == ".safetensors" or start[8:9] == b"{":
        return _safetensors(path)
    if start.startswith((b"PK", b"\x80")):
        return read_checkpoint(path)
    if path.suffix in (".keras", ".h5", ".hdf5"):
        raise ValueError(f"{path} is a Keras file, which names no weights: load it with Keras and pass the model.")
    raise ValueError(f"{path} is not a file of weights that can be read here. Expected {FORMATS}.")


def _safetensors(path: Path) -> dict[str, Stored]:
    import safetensors

    try:
        with safetensors.safe_open(path, framework="numpy"):  # checks the header and the offsets against the size
            pass
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            header = orjson.loads(file.read(length))
        header.pop("__metadata__", None)
        # safetensors stores tensors in the order of their names; numbers read as numbers come nearest to depth order.
        placed = sorted(header.items(), key=lambda item: _natural(item[0]))
        return {
            name: Stored(
                tuple(entry["shape"]),
                partial(_mapped, path, 8 + length + entry["data_offsets"][0], tuple(entry["shape"]), entry["dtype"]),
                why_not_dtype(_SAFETENSORS_TYPES.get(entry["dtype"], entry["dtype"])),
                dtype=_SAFETENSORS_TYPES.get(entry["dtype"], entry["dtype"]),
            )
            for name, entry in placed
        }
    except (safetensors.SafetensorError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} is not a readable safetensors file: {error}.") from error


def _natural(name: str) -> list[tuple[int, str]]:
    return [(int(part), "") if part.isdecimal() else (0, part) for part in re.split(r"(\d+)", name)]


def _mapped(path: Path, offset: int, shape: tuple[int, ...], dtype: str) -> np.ndarray:
    """A memory-mapped view of one tensor; a float32 copy of one in half precision."""
    stored_as = {"BF16": "<u2", "F16": "<f2", "F32": "<f4", "F64": "<f8"}[dtype]
    array = np.asarray(np.memmap(path, dtype=stored_as, mode="r", offset=offset, shape=(math.prod(shape),)))
    if dtype == "BF16":  # the upper half of a float32; NumPy has no type for it
        array = (array.astype("<u4") << 16).view("<f4")
    elif dtype == "F16":
        array = array.astype(np.float32)
    return array.reshape(shape)


def _inspected(
    path: Path,
    convolution: Convention,
    choice: str = "",
    lora_scaling: Callable[[str, int], float] | None = None,
) -> list[LayerSpec]:
    """The layers of one file.

    Raises:
        ValueError: if nothing in it is a weight, or what was chosen is not there.
    """
    tree = entries(path)
    try:
        found = inspect_mapping(tree, convolution, lora_scaling=lora_scaling, choice=choice)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    if tree and not any(spec.shape for spec in found):
        beside = "; ".join(
            f"{spec.name}: {spec.skipped}" for spec in found if not spec.skipped.startswith("not an array")
        )
        keys = ", ".join(map(repr, list(tree)[:8]))
        classes = ", ".join(unknown_classes(tree)[:5])
        raise ValueError(
            f"{path} holds no weights: {beside or f'it has {keys}'}. Expected a state dict among its values."
            + (f" Objects of {classes} are not loaded, as that could execute code." if classes else "")
        )
    return found


def _inspect_folder(path: Path, convolution: Convention) -> list[LayerSpec]:
    name = next((name for name in _FOLDER_FILES if (path / name).is_file()), None)
    if name is None:
        named = sorted(p.name for p in path.glob("*.safetensors")) or sorted(p.name for p in path.glob("*.onnx"))
        if len(named) != 1:
            expected = ", ".join(_FOLDER_FILES)
            found = f"several files of weights ({', '.join(named)}): name one" if named else "none"
            raise ValueError(f"{path} has {found}. Expected one of {expected}.")
        return inspect_file(path / named[0], convolution)
    if name.endswith(".index.json"):
        return inspect_mapping(_sharded(path, path / name), convolution)
    scaling = _adapter_scaling(path / "adapter_config.json") if name.startswith("adapter_") else None
    return inspect_mapping(entries(path / name), convolution, lora_scaling=scaling)


def _sharded(folder: Path, index: Path) -> dict[str, Any]:
    """The entries of all files that an index names."""
    try:
        placed: dict[str, str] = orjson.loads(index.read_bytes())["weight_map"]
        files = dict.fromkeys(placed.values())
        if any(Path(file).name != file for file in files):
            raise ValueError("it names files outside of its folder")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{index} is not a readable index of weights: {error}.") from error
    if missing := [file for file in files if not (folder / file).is_file()]:
        raise FileNotFoundError(f"{index} names files that are not there: {', '.join(missing)}.")
    held = {file: entries(folder / file) for file in files}
    if missing := [name for name, file in placed.items() if name not in held[file]]:
        raise ValueError(f"{index} names weights that its files do not hold: {', '.join(missing[:5])}.")
    return {name: held[file][name] for name, file in sorted(placed.items(), key=lambda item: _natural(item[0]))}


def _adapter_scaling(config: Path) -> Callable[[str, int], float] | None:
    """PEFT's scaling α/r (α/√r if rank-stabilised) of a layer, from the adapter's configuration."""
    if not config.is_file():
        return None
    try:
        settings = orjson.loads(config.read_bytes())
        alpha, patterns = float(settings["lora_alpha"]), dict(settings.get("alpha_pattern") or {})
        stabilised = bool(settings.get("use_rslora"))
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{config} is not a readable adapter configuration: {error}.") from error

    def scaling(layer: str, rank: int) -> float:
        own = next((float(a) for key, a in patterns.items() if layer == key or layer.endswith(f".{key}")), alpha)
        return own / (math.sqrt(rank) if stabilised else rank)

    return scaling
