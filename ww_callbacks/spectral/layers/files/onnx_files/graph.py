"""An ONNX file → layers: each stored tensor is followed to the node that applies it.

The traversal covers every subgraph (``If``, ``Loop``, ``Scan``) and every local function. A tensor may be an
initialiser or be stored in a ``Constant`` node. Nodes that only rearrange it are evaluated (see ``constants``); the
node that consumes it determines whether it is a weight, and the meaning of its axes (see ``uses``).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ww_callbacks.spectral.layers import matrix_layouts as layouts
from ww_callbacks.spectral.layers.files.onnx_files.constants import Attributes, Constant, outputs, squeezed
from ww_callbacks.spectral.layers.files.onnx_files.uses import Use, use
from ww_callbacks.spectral.layers.files.stored_arrays import why_not_dtype, widened
from ww_callbacks.spectral.layers.matrix_layouts import Convention, skipped, specs
from ww_callbacks.spectral.layers.spec import LayerSpec

Identity = tuple[object, ...]
Where = tuple[str, ...]
Scope = Mapping[str, Constant]
"""Name → constant known at one place of the graph."""


def inspect_onnx(path: Path, convolution: Convention = "matrix") -> list[LayerSpec]:
    """The layers of an ONNX file, in the order in which the graph uses its tensors.

    Raises:
        ImportError: if ``onnx`` is not installed.
        ValueError: if the file is not readable, or if a file with its external weights does not exist.
    """
    try:
        import onnx
    except ImportError as error:
        raise ImportError(f'{path} needs the package onnx: pip install "ww-callbacks[onnx]".') from error
    try:
        model = onnx.load(str(path), load_external_data=False)
    except Exception as error:  # protobuf's exception classes depend on its implementation
        raise _unreadable(path, str(error)) from error
    if not model.graph.node and not model.graph.initializer:
        raise _unreadable(path, "it has no graph")
    walk = Walk(model, path.parent)
    # Initialisers are listed even if they are not weights.
    initialisers = {tensor.name for tensor in model.graph.initializer}
    try:
        walk.graph(model.graph, {})
    except Exception as error:  # a damaged file may contain missing names and invalid inputs
        raise _unreadable(path, str(error)) from error
    if walk.missing:
        raise ValueError(
            f"{path} stores weights in files that do not exist: {', '.join(walk.missing)}. Put them into its folder."
        )
    return _layers(walk, initialisers, convolution)


def _unreadable(path: Path, why: str) -> ValueError:
    return ValueError(
        f"{path} is not a readable ONNX file: it may be truncated, damaged or of another format ({why.rstrip('.')}). "
        "Export or download it again."
    )


@dataclass
class Walk:
    """The results of the traversal of a model.

    Attributes:
        model: the model.
        folder: the folder of the files with its external data.
        stored: every initialiser, and every tensor of a ``Constant`` node that could be a weight, by its identity.
        uses: the identity of a constant → each node that consumes it, with how it applies it or why it is not a weight.
        consumed: the constants that nodes consume, by their identity.
        missing: external files that do not exist.
        calling: the local functions in progress.
    """

    model: Any
    folder: Path
    stored: dict[Identity, Constant] = field(default_factory=dict)
    uses: dict[Identity, list[tuple[str, Use | str]]] = field(default_factory=dict)
    consumed: dict[Identity, Constant] = field(default_factory=dict)
    missing: dict[str, None] = field(default_factory=dict)
    calling: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.functions = {(f.domain, f.name): f for f in self.model.functions}

    def graph(self, graph: Any, scope: Scope, where: tuple[str, ...] = ()) -> None:
        """Traverse a graph.

        Args:
            graph: the model's graph or a subgraph.
            scope: the constants known around it, and those passed to it.
            where: the enclosing nodes.
        """
        here = dict(scope)
        for tensor in graph.initializer:
            here[tensor.name] = self._store(tensor, tensor.name, where)
        for tensor in graph.sparse_initializer:
            self._sparse(tensor, tensor.values.name, where)
        self._nodes(graph.node, here, {}, where)

    def _nodes(self, nodes: Sequence[Any], scope: dict[str, Constant], arguments: Attributes, where: Where) -> None:
        """Traverse nodes in order, adding the constants that they compute to ``scope``.

        Args:
            nodes: the nodes of a graph or of a local function.
            scope: the constants known before.
            arguments: the attributes that a local function was called with.
            where: the enclosing nodes.
        """
        for i, node in enumerate(nodes):
            attributes, graphs = _attributes(node.attribute, arguments)
            function = self.functions.get((node.domain, node.op_type))
            if node.op_type == "Constant" and node.domain in _ONNX:
                made = self._constant(node.output[0], attributes, where)
            elif function is not None:
                made = self._call(node, function, scope, attributes)
            elif graphs:
                made = {}
                for name, body in graphs:
                    inner = (*where, f"{node.name or node.op_type}#{i}", name)
                    for turn in _entering(node, body, scope, attributes):
                        self.graph(body, turn, inner)
            else:
                made = self._node(node, scope, attributes)
            scope |= made

    def _constant(self, name: str, attributes: Attributes, where: Where) -> Scope:
        if "value" in attributes:
            return {name: self._store(attributes["value"], name, where)}
        if "sparse_value" in attributes:
            self._sparse(attributes["sparse_value"], name, where)
            return {}
        values = next((v for key, v in attributes.items() if key.startswith(("value_float", "value_int"))), None)
        if values is None:
            return {}
        array = np.asarray(values, np.int64 if np.asarray(values).dtype.kind == "i" else np.float32)
        array.flags.writeable = False
        return {name: Constant(name, array.shape, lambda: array, array.dtype.name, ((*where, name),), (name,))}

    def _call(self, node: Any, function: Any, scope: Scope, attributes: Attributes) -> Scope:
        """A local function, with the constants that it is called with."""
        name = f"{function.domain}.{function.name}"
        if name in self.calling:
            raise ValueError(f"the function {name} calls itself")
        pairs = zip(function.input, node.input, strict=False)
        inside = {inner: scope[given] for inner, given in pairs if given in scope}
        defaults, _ = _attributes(function.attribute_proto, {})
        self.calling.append(name)
        self._nodes(function.node, inside, {**defaults, **attributes}, (name,))  # the same tensors for every caller
        self.calling.pop()
        pairs = zip(node.output, function.output, strict=False)
        return {given: inside[inner] for given, inner in pairs if inner in inside}

    def _node(self, node: Any, scope: Scope, attributes: Attributes) -> Scope:
        given = [scope.get(name) for name in node.input]
        if node.domain not in _KNOWN:
            return self._consume(node, given, lambda _: f"`{node.domain}.{node.op_type}` is not known here")
        try:
            computed = any(name and name not in scope for name in node.input[: 1 if node.op_type in _ONE else None])
            made = None if computed else outputs(node.op_type, given, attributes, len(node.output))
        except Exception as error:  # a damaged node only affects its inputs, not the file
            why = f"`{node.op_type}` cannot be followed: {error}"
            return self._consume(node, given, lambda _: why)
        if made is not None:
            return dict(zip(node.output, made, strict=False))

        def applied(position: int) -> Use | str:
            weight = given[position]
            scale = scope.get(f"{weight.name.removesuffix('_quantized')}_scale") if weight is not None else None
            try:
                return use(node.op_type, position, given, attributes, scale)
            except Exception as error:
                return f"`{node.op_type}` cannot be read: {error}"

        return self._consume(node, given, applied)

    def _consume(self, node: Any, given: Sequence[Constant | None], applied: Callable[[int], Use | str]) -> Scope:
        """Record how a node uses its inputs; its outputs are not constant."""
        for position, constant in enumerate(given):
            if constant is not None:
                self.uses.setdefault(constant.identity, []).append((node.name or node.op_type, applied(position)))
                self.consumed.setdefault(constant.identity, constant)
        return {}

    def _store(self, tensor: Any, name: str, where: Where) -> Constant:
        import onnx

        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            file = next((entry.value for entry in tensor.external_data if entry.key == "location"), "")
            if not _is_inside(self.folder, file):
                self.missing[file] = None
        dtype = onnx.TensorProto.DataType.Name(tensor.data_type).lower()
        dtype = {"float": "float32", "double": "float64"}.get(dtype, dtype)
        read = partial(_read, tensor, str(self.folder))
        identity = ((*where, name),)
        constant = Constant(name, tuple(tensor.dims), read, dtype, identity, (name,), skipped=why_not_dtype(dtype))
        self.stored.setdefault(identity, constant)
        return constant

    def _sparse(self, tensor: Any, name: str, where: Where) -> None:
        why, identity = "sparse: only dense tensors are read", ((*where, name),)
        shape = tuple(tensor.dims)
        self.stored[identity] = Constant(name, shape, lambda: np.empty(0), "", identity, (name,), skipped=why)


_ONNX = ("", "ai.onnx")
_KNOWN = (*_ONNX, "com.microsoft", "com.ms.internal.nhwc")
_CODED = ("int8", "uint8", "int4", "uint4", "int2", "uint2")
"""Types in which a matrix is a weight that was quantised."""
_PACKED = ("int4", "int2", "float4e2m1", "float6e2m3", "float6e3m2")
"""Types of which several values share a byte."""
_ONE = ("CastLike", "Dropout")
"""Nodes that pass on their first input regardless of the others."""


def _attributes(given: Sequence[Any], arguments: Attributes) -> tuple[dict[str, Any], list[tuple[str, Any]]]:
    """A node's attributes, and its subgraphs with their names."""
    import onnx

    found: dict[str, Any] = {}
    graphs = []
    for attribute in given:
        if attribute.ref_attr_name:
            if attribute.ref_attr_name in arguments:
                found[attribute.name] = arguments[attribute.ref_attr_name]
        elif attribute.type == onnx.AttributeProto.GRAPH:
            graphs.append((attribute.name, attribute.g))
        elif attribute.type == onnx.AttributeProto.GRAPHS:
            graphs += [(f"{attribute.name}{i}", graph) for i, graph in enumerate(attribute.graphs)]
        else:
            value = onnx.helper.get_attribute_value(attribute)
            found[attribute.name] = value.decode(errors="replace") if isinstance(value, bytes) else value
    return found, graphs


def _entering(node: Any, body: Any, scope: Scope, attributes: Attributes) -> Iterator[dict[str, Constant]]:
    """The constants known inside a subgraph: those known around it, and each state that it passes on unchanged.

    A ``Scan`` over stored weights is traversed once for each of them.
    """
    hidden = {given.name for given in body.input}
    inside = {name: constant for name, constant in scope.items() if name not in hidden}
    # A loop has its number and condition before its states, and its body the condition before its outputs.
    before, first = (2, 1) if node.op_type == "Loop" else (0, 0)
    passed = {n.output[0]: n.input[0] for n in body.node if n.op_type == "Identity"}
    handed = [passed.get(result.name, result.name) for result in body.output[first:]]
    for outer, inner, result in zip(node.input[before:], body.input[before:], handed, strict=False):
        if inner.name == result and outer in scope:
            inside[inner.name] = scope[outer]
    count = attributes.get("num_scan_inputs", 0)
    first = len(node.input) - count
    axes = attributes.get("scan_input_axes") or [0] * count
    scanned = [
        (inner.name, scope[outer], axis % len(scope[outer].shape))
        for outer, inner, axis in zip(node.input[first:], body.input[first:], axes, strict=True)
        if outer in scope and len(scope[outer].shape) > 2
    ]
    if not count or not scanned:
        yield inside
        return
    for i in range(min(weight.shape[axis] for _, weight, axis in scanned)):
        slices = {name: squeezed(weight.part(str(i), axis, i, i + 1), axis) for name, weight, axis in scanned}
        yield {**inside, **slices}


def _is_inside(folder: Path, file: str) -> bool:
    """Whether ``file`` exists in ``folder`` or below."""
    place = Path(file)
    return bool(file) and not place.is_absolute() and ".." not in place.parts and (folder / place).is_file()


def _read(tensor: Any, folder: str) -> np.ndarray:
    """The values of a tensor; those in another file as a view of it, because onnx would keep them in the model."""
    import onnx

    if tensor.data_location != onnx.TensorProto.EXTERNAL:
        return onnx.numpy_helper.to_array(tensor)
    if onnx.TensorProto.DataType.Name(tensor.data_type).lower().endswith(_PACKED):
        loaded = onnx.TensorProto()
        loaded.CopyFrom(tensor)
        return onnx.numpy_helper.to_array(loaded, base_dir=folder)
    place = {entry.key: entry.value for entry in tensor.external_data}
    dtype, shape = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type), tuple(tensor.dims)
    if 0 in shape:
        return np.empty(shape, dtype)
    file = Path(folder, place["location"])
    return np.asarray(np.memmap(file, dtype, "r", offset=int(place.get("offset", 0)), shape=shape))


def _layers(walk: Walk, initialisers: set[str], convolution: Convention) -> list[LayerSpec]:
    """The measured weights in the order of their use, and the other tensors with the reason."""
    found: list[LayerSpec] = []
    for identity, uses in walk.uses.items():
        applied = next(((node, use) for node, use in uses if isinstance(use, Use)), None)
        if applied is not None:
            others = [node for node, _ in uses if node != applied[0]]
            found += _measured(*applied, others, convolution)
        else:
            found.append(_left_out(walk.consumed[identity], str(uses[0][1])))
    spoken = {name for spec in found for name in spec.parameters}
    found += [
        _left_out(constant, constant.skipped or "no node uses it as a weight")
        for constant in walk.stored.values()
        if constant.name not in spoken
    ]
    weights = {name for spec in found if not spec.skipped for name in spec.parameters}
    # A scale is part of its weight, and a number in the graph is not a parameter.
    return [
        spec
        for spec in found
        if not spec.skipped or (spec.name not in weights and (spec.name in initialisers or len(spec.shape) > 1))
    ]


def _measured(node: str, use: Use, others: list[str], convolution: Convention) -> list[LayerSpec]:
    use = _as_in_the_network(node, use)
    weight = use.weight
    try:
        parts = use.cut(convolution)
    except ValueError as error:
        return [_left_out(weight, str(error))]
    by = use.type if node in (use.type, "") else f"{use.type} {node}"
    also = f", also by {', '.join(dict.fromkeys(others))}" if others else ""
    made = specs(
        weight.name,
        parts,
        lambda: widened(weight.read()),
        read_part=lambda index: widened(np.array(weight.read()[index])),  # a view would keep the whole array alive
        kind=use.kind,
        type=use.type,
        shape=weight.shape,
        parameters=weight.parameters,
        note="; ".join((f"used by {by}{also}", *weight.how)),
    )
    return [replace(spec, stored_as=weight.stored_as) for spec in made]


def _as_in_the_network(node: str, use: Use) -> Use:
    """A dense weight with its original name and layout, if a tool changed them.

    The exporter of torch transposes the weight of a ``Linear`` without a bias and calls it ``onnx::MatMul_12``; the
    node is ``/encoder/fc/MatMul``. ONNX Runtime's quantiser makes ``fc.weight_Transposed_quantized`` of ``fc.weight``.
    In torch's layout, it can be compared with the network and its other files.
    """
    weight, name = use.weight, use.weight.name
    path = node.strip("/").split("/")[:-1]
    if name.startswith("onnx::MatMul_") and node.startswith("/") and path:
        # A module in a list repeats the list: /layers/layers.0/fc.
        kept = [part for part, after in zip(path, (*path[1:], ""), strict=True) if not after.startswith(f"{part}.")]
        name = ".".join((*kept, "weight"))
    elif not weight.parameters[0].endswith("_Transposed_quantized"):
        return use
    if not use.transposed:
        return use
    turned = weight.made(weight.shape[::-1], lambda a: a.T)
    turned = replace(turned, name=name, how=(*weight.how, f"stored as {weight.parameters[0]}, (in, out)"))
    return replace(use, weight=turned, cut=lambda c: layouts.matrix(turned.shape), transposed=False)


def _left_out(constant: Constant, why: str) -> LayerSpec:
    if len(constant.shape) < 2 and not constant.skipped:
        why = "a vector: it has no spectrum" if constant.shape else "a scalar"
    kind = "bias" if "bias" in why or constant.name.endswith("bias") else "other"
    coded = constant.dtype in _CODED or constant.dtype.startswith("float8")
    unread = math.prod(constant.shape) if coded and len(constant.shape) > 1 else 0
    left = skipped(constant.name, why, kind=kind, shape=constant.shape)
    return replace(left, parameters=constant.parameters, unread=unread)
