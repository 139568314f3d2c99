"""An ONNX file's initialisers → layers; the nodes that use them say which axis is what."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ww_callbacks.spectral.layers import matrix_layouts as layouts
from ww_callbacks.spectral.layers.files.state_dict import Names, guess
from ww_callbacks.spectral.layers.files.stored_arrays import Stored, why_not_dtype, widened
from ww_callbacks.spectral.layers.matrix_layouts import Convention, Index, Part, skipped, specs
from ww_callbacks.spectral.layers.spec import LayerSpec

_GATES = {"LSTM": ("input", "output", "forget", "cell"), "GRU": ("update", "reset", "new"), "RNN": ("hidden",)}
"""ONNX's own orders: iofc and zrh."""
_PASSED_ON = ("Identity", "Cast", "Transpose")


@dataclass(frozen=True)
class Use:
    """Where an initialiser enters the computation."""

    node: Any
    position: int
    transposed: bool


def inspect_onnx(path: Path, convolution: Convention = "matrix") -> list[LayerSpec]:
    """The layers of an ONNX file, in the order in which the graph uses its initialisers.

    Raises:
        ImportError: if ``onnx`` is not installed.
        ValueError: if the file cannot be read, or a file beside it that holds its weights is not there.
    """
    try:
        import onnx
        from onnx import numpy_helper
    except ImportError as error:
        raise ImportError(f'{path} needs the package onnx: pip install "ww-callbacks[onnx]".') from error
    try:
        model = onnx.load(str(path), load_external_data=False)
    except Exception as error:  # protobuf raises classes of its own, by implementation
        raise ValueError(f"{path} is not a readable ONNX file: {error}.") from error
    if not model.graph.node and not model.graph.initializer:
        raise ValueError(f"{path} is not a readable ONNX file: it has no graph.")
    external = [t for t in model.graph.initializer if t.data_location == onnx.TensorProto.EXTERNAL]
    files = dict.fromkeys(entry.value for t in external for entry in t.external_data if entry.key == "location")
    if missing := [file for file in files if not (path.parent / file).is_file()]:
        raise ValueError(
            f"{path} keeps weights in files beside it that are not there: {', '.join(missing)}. "
            "Put them into its folder."
        )
    entries = {
        tensor.name: Stored(
            tuple(tensor.dims),
            partial(_read, tensor, str(path.parent), numpy_helper.to_array),
            _why_not(tensor.data_type, onnx),
        )
        for tensor in model.graph.initializer
    }
    uses = _uses(model.graph, entries)
    order = {name: i for i, name in enumerate(uses)}
    found: list[LayerSpec] = []
    for name in sorted(entries, key=lambda name: order.get(name, len(order))):
        found.extend(_entry_specs(name, entries, uses.get(name), convolution))
    return found


def _read(tensor: Any, folder: str, to_array: Callable[..., np.ndarray]) -> np.ndarray:
    return widened(to_array(tensor, base_dir=folder))


def _why_not(data_type: int, onnx: Any) -> str:
    name = onnx.TensorProto.DataType.Name(data_type).lower()
    return why_not_dtype({"float": "float32", "double": "float64"}.get(name, name))


def _uses(graph: Any, entries: dict[str, Stored]) -> dict[str, list[Use]]:
    """Initialiser → the nodes that compute with it, looking through nodes that only pass it on."""
    origin: dict[str, tuple[str, bool]] = {name: (name, False) for name in entries}
    uses: dict[str, list[Use]] = {}
    for node in graph.node:
        known = [(i, *origin[name]) for i, name in enumerate(node.input) if name in origin]
        if node.op_type in _PASSED_ON and known:
            _, name, transposed = known[0]
            swaps = node.op_type == "Transpose" and len(entries[name].shape) == 2
            if node.op_type != "Transpose" or swaps:
                origin[node.output[0]] = (name, transposed != swaps)
                continue
        for position, name, transposed in known:
            uses.setdefault(name, []).append(Use(node, position, transposed))
    return uses


def _entry_specs(
    name: str, entries: dict[str, Stored], uses: list[Use] | None, convolution: Convention
) -> list[LayerSpec]:
    entry = entries[name]
    if entry.skipped:
        return [skipped(name, entry.skipped, shape=entry.shape)]
    for use in uses or ():
        if (result := _by_node(use, entry.shape, convolution)) is not None:
            kind, cut = result
            also = [u.node.name or u.node.op_type for u in uses or () if u is not use]
            note = f"used by {use.node.op_type}" + (f", also by {', '.join(also)}" if also else "")
            type_ = use.node.op_type
            return specs(name, cut, entry.read, kind=kind, type=type_, shape=entry.shape, note=note)
    kind, guessed = guess(name, entry.shape, Names(entries), convolution)
    if isinstance(guessed, str):
        return [skipped(name, guessed, kind=kind, shape=entry.shape)]
    if uses is None or kind in ("conv", "other"):
        return [skipped(name, "no node uses it as a weight", kind="other", shape=entry.shape)]
    return specs(name, guessed, entry.read, kind=kind, type="", shape=entry.shape, note="guessed from name and shape")


def _by_node(use: Use, shape: tuple[int, ...], convolution: Convention) -> tuple[str, list[Part]] | None:
    """The kind and the parts of an initialiser as this use has it; None where the use tells nothing."""
    node, position, swapped = use.node, use.position, use.transposed
    attributes = {a.name: a.i for a in node.attribute}
    if node.op_type == "Gemm" and position == 1 and len(shape) == 2:
        return "dense", layouts.matrix(shape, transposed=bool(attributes.get("transB")) == swapped)
    if node.op_type == "MatMul" and position < 2 and len(shape) == 2:
        return "dense", layouts.matrix(shape, transposed=(position == 1) != swapped)
    if node.op_type == "MatMul" and position < 2 and len(shape) == 3:
        return "experts", layouts.stack(shape, "matrix", transposed=position == 1)
    if node.op_type in ("Conv", "ConvTranspose") and position == 1 and len(shape) > 2:
        layout: layouts.KernelLayout = "torch" if node.op_type == "Conv" else "torch transposed"
        return "conv", layouts.convolution(shape, convolution, groups=attributes.get("group", 1), layout=layout)
    if node.op_type == "Gather" and position == 0 and len(shape) == 2:
        return "embedding", layouts.embedding(shape)
    if node.op_type in _GATES and position in (1, 2) and len(shape) == 3:
        return "recurrent", _directions(shape, _GATES[node.op_type])
    return None


def _directions(shape: tuple[int, ...], gates: tuple[str, ...]) -> list[Part]:
    """Recurrent weights (directions, gates·hidden, in): one matrix for each gate and direction."""
    found = []
    for direction in range(shape[0]):
        way = ("forward", "backward")[direction] if shape[0] == 2 else ""
        for part in layouts.packed(shape[1:], gates, "gates"):
            index: Index = (direction, *part.index)
            label = ",".join(filter(None, (way, part.label)))
            found.append(replace(part, label=label, index=index))
    return found
