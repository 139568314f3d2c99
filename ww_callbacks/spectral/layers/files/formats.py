"""Files of weights → layers: safetensors, torch checkpoints, ONNX, Keras files, and Hugging Face folders.

Reading never executes code: torch checkpoints are loaded weights-only, everything else is data. If a file cannot be
read, the error names it and says what to do.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from ww_callbacks.spectral.layers.files.adapter_folders import Scaling, on_base, scaling_of
from ww_callbacks.spectral.layers.files.folders import FOLDERS, Held, in_depth_order, is_folder_of_adapter, read_folder
from ww_callbacks.spectral.layers.files.gguf_files import read_gguf
from ww_callbacks.spectral.layers.files.keras_files.archive import is_keras
from ww_callbacks.spectral.layers.files.keras_files.layers import inspect_keras_file
from ww_callbacks.spectral.layers.files.state_dicts.checkpoint_tree import contents
from ww_callbacks.spectral.layers.files.state_dicts.layers import inspect_mapping
from ww_callbacks.spectral.layers.files.stored_arrays import Stored, float8_values, why_not_dtype
from ww_callbacks.spectral.layers.files.torch_checkpoint import read_checkpoint, unknown_classes
from ww_callbacks.spectral.layers.matrix_layouts import Convention
from ww_callbacks.spectral.layers.spec import Index, Layers
from ww_callbacks.spectral.linalg.half_precision import bfloat16_to_float32

FORMATS = (
    "a safetensors file, a torch checkpoint (.pt, .pth, .ckpt, .bin), a GGUF file, an ONNX file, a Keras file (.keras, "
    f".h5, .weights.json) or {FOLDERS}"
)
_SAFETENSORS_TYPES = {
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
    "F8_E4M3": "float8_e4m3fn",
    "F8_E5M2": "float8_e5m2",
    "F8_E8M0": "float8_e8m0fnu",
    "F8_E4M3FNUZ": "float8_e4m3fnuz",
    "F8_E5M2FNUZ": "float8_e5m2fnuz",
    "C64": "complex64",
    "BOOL": "bool",
    **{f"{kind}{bits}": f"{name}{bits}" for kind, name in (("I", "int"), ("U", "uint")) for bits in (8, 16, 32, 64)},
}


def inspect_file(path: str | os.PathLike[str], convolution: Convention = "matrix", *, base: Any = None) -> Layers:
    """The layers of a file or folder of weights; values are read when a layer is measured.

    Args:
        path: the file or folder; ``file.pt:teacher`` chooses one of several sets of weights by its path in the file,
            ``folder:unet`` a subfolder.
        convolution: how a convolution becomes matrices.
        base: for the folder of an adapter: the base weights, as a path or a mapping. The layers are then those of the
            base with the updates applied.

    Raises:
        FileNotFoundError: if there is no such file.
        ImportError: if a required package is not installed; the message names the extra.
        ValueError: if the path is empty, or if the file has an unknown format, is corrupt, or cannot be read without
            executing code in it.
    """
    path, choice = _located(path)
    _check_is_file(path)
    if path.suffix == ".onnx":
        from ww_callbacks.spectral.layers.files.onnx_files.graph import inspect_onnx

        return Layers(inspect_onnx(path, convolution))
    if is_keras(path):
        return Layers(inspect_keras_file(path, convolution))
    held = _held(path)
    scaling = None if held.adapter is None else scaling_of(held.adapter)
    if held.adapter is not None and (under := _flat(base)) is not None:
        try:
            tree = on_base(held.tree, under)
        except ValueError as error:
            raise ValueError(f"{held.file}: {error}") from error
        found = _inspected(held.file, tree, convolution, choice, scaling)
        merged = [spec for spec in found if ".lora_update[" not in spec.name]
        return Layers(merged, (*found.remarks, "the base with the updates of the adapter"))
    found = _inspected(held.file, held.tree, convolution, choice, scaling)
    return Layers(found, (held.remark, *found.remarks))


def _check_is_file(path: Path) -> None:
    """Raise for what a failed download leaves in place of a file.

    Raises:
        ValueError: if the file is a pointer of Git LFS or a web page.
    """
    if not path.is_file():
        return
    with path.open("rb") as file:
        start = file.read(64).lstrip().lower()
    if start.startswith(b"version https://git-lfs"):
        raise ValueError(f"{path} is a Git LFS pointer, not the file itself: fetch that with `git lfs pull`.")
    if start.startswith((b"<!doctype", b"<html")):
        raise ValueError(f"{path} is a web page, not a file of weights: download the file itself.")


def _located(path: str | os.PathLike[str]) -> tuple[Path, str]:
    """The file or folder at ``path``, and the set of weights chosen inside it.

    Raises:
        FileNotFoundError, ValueError: as :func:`inspect_file`.
    """
    if not os.fspath(path):  # `Path` would use the current folder
        raise ValueError(f"Expected {FORMATS} but got an empty path.")
    path, choice = _chosen(Path(path))
    if not path.exists():
        raise FileNotFoundError(f"No such file or folder: {path}. Expected {FORMATS}.")
    inside, _, rest = choice.partition(":")
    if path.is_dir() and inside not in ("", ".", "..") and Path(inside).name == inside and (path / inside).exists():
        path, choice = path / inside, rest
    if path.is_dir() and not any(path.glob("*.safetensors")):
        whole = [file for suffix in (".onnx", ".keras") for file in path.glob(f"*{suffix}")]
        if len(whole) == 1:
            return whole[0], choice
    return path, choice


def _held(path: Path) -> Held:
    """The arrays of a file or a folder."""
    if path.is_dir():
        return read_folder(path, entries)
    config = path.parent / "adapter_config.json"
    is_adapter = path.name.startswith("adapter_model.") and config.is_file()
    return Held(entries(path), path, adapter=config if is_adapter else None)


def _flat(base: Any) -> Mapping[str, Any] | None:
    """The arrays of an adapter's base by name; None if that is not a file, folder or mapping, or is itself an
    adapter.
    """
    if isinstance(base, str | os.PathLike):
        path, choice = _located(base)
        if path.suffix == ".onnx" or (path.is_dir() and is_folder_of_adapter(path)):
            return None
        return contents(_held(path).tree, choice).weights
    return contents(base).weights if isinstance(base, Mapping) else None


def _chosen(path: Path) -> tuple[Path, str]:
    """Split ``file.pt:teacher`` into the file and the choice inside it."""
    before, colon, after = str(path).rpartition(":")
    if not path.exists() and colon and after and Path(before).exists():
        return Path(before), after
    return path, ""


def entries(path: Path) -> Mapping[str, Any]:
    """For a safetensors file, name → array (read later); for a torch checkpoint, its contents as nested mappings.

    Raises:
        ValueError: if it is neither, or is corrupt.
    """
    _check_is_file(path)
    with path.open("rb") as file:
        start = file.read(9)
    if not start:
        raise ValueError(f"{path} is empty. Expected {FORMATS}.")
    if path.suffix == ".safetensors" or start[8:9] == b"{":
        return _safetensors(path)
    if start.startswith(b"GGUF"):
        return read_gguf(path)
    if start.startswith((b"PK", b"\x80")):
        return read_checkpoint(path)
    raise ValueError(f"{path} is not a file of weights that can be read here. Expected {FORMATS}.")


def _safetensors(path: Path) -> dict[str, Stored]:
    import safetensors

    try:
        with safetensors.safe_open(path, framework="numpy"):  # checks header and offsets against the file's size
            pass
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            header = orjson.loads(file.read(length))
        header.pop("__metadata__", None)
        # safetensors stores tensors in the order of their names; sorting numbers by value is the best guess of depth
        # order.
        placed = sorted(header.items(), key=lambda item: in_depth_order(item[0]))
        found = {}
        for name, entry in placed:
            shape, dtype = tuple(entry["shape"]), _SAFETENSORS_TYPES.get(entry["dtype"], entry["dtype"])
            read = partial(_mapped, path, 8 + length + entry["data_offsets"][0], shape, entry["dtype"])
            found[name] = Stored(shape, read, why_not_dtype(dtype), dtype=dtype, read_part=read)
        return found
    except (safetensors.SafetensorError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} is not a readable safetensors file: {error}.") from error


def _mapped(path: Path, offset: int, shape: tuple[int, ...], dtype: str, index: Index = ()) -> np.ndarray:
    """A memory-mapped view of a tensor or a slice of it; for half precision, a float32 copy."""
    stored_as = (
        "<u2"
        if dtype == "BF16"
        else "u1"
        if dtype.startswith(("F8", "BOOL"))
        else f"<{dtype[0].lower()}{int(dtype[1:]) // 8}"
    )
    flat = np.asarray(np.memmap(path, dtype=stored_as, mode="r", offset=offset, shape=(math.prod(shape),)))
    array = flat.reshape(shape)
    if index:
        array = array[index]
    if dtype == "BF16":
        return bfloat16_to_float32(array)
    if dtype.startswith("F8"):
        return float8_values(_SAFETENSORS_TYPES[dtype])[array]
    return array.astype(np.float32) if dtype == "F16" else array


def _quantisation(path: Path) -> Mapping[str, Any]:
    """``quantization_config`` of the ``config.json`` next to the weights; empty if there is none."""
    config = (path if path.is_dir() else path.parent) / "config.json"
    try:
        found = orjson.loads(config.read_bytes())["quantization_config"]
    except (OSError, ValueError, KeyError, TypeError):
        return {}
    return found if isinstance(found, dict) else {}


def _inspected(
    path: Path, tree: Mapping[str, Any], convolution: Convention, choice: str, lora_scaling: Scaling | None
) -> Layers:
    """The layers of a file or folder.

    Raises:
        ValueError: if nothing in it is a weight, or if the chosen set does not exist.
    """
    try:
        found = inspect_mapping(
            tree, convolution, lora_scaling=lora_scaling, choice=choice, quantisation=_quantisation(path)
        )
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    if tree and not any(spec.shape for spec in found):
        reasons = "; ".join(
            f"{spec.name}: {spec.skipped}" for spec in found if not spec.skipped.startswith("not an array")
        )
        keys = ", ".join(map(repr, list(tree)[:8]))
        classes = ", ".join(unknown_classes(tree)[:5])
        raise ValueError(
            f"{path} contains no weights: {reasons or f'it has {keys}'}. Expected a state dict among its values."
            + (f" Objects of {classes} are not loaded, because that could execute code." if classes else "")
        )
    return found
