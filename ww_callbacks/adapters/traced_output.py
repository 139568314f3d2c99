"""Finds the output layer in autograd's graph of the first batch."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

from ww_callbacks.spectral.layers.spec import LayerSpec

_PRODUCT = re.compile(r"mm|linear|conv|rnn|lstm|gru|dot|embedding", re.IGNORECASE)
"""Nodes of the graph that multiply by a weight: ``AddmmBackward0``, ``ConvolutionBackward0``, …"""
_STEPS_FROM_A_PRODUCT = 12
"""Nodes between a product and its parameter: a transpose, a cast, a parametrisation."""


def traced_output(loss: Any, model: Any, specs: Sequence[LayerSpec]) -> str | None:
    """The layer whose weights take part in the last matrix product on the way to the loss.

    Only the graph is read: no hooks, no forward pass. Opaque parts (a compiled model, activation checkpointing) are
    skipped.

    Args:
        loss: the loss of a batch, with its graph.
        model: a torch module.
        specs: its layers; only those that are not skipped can be the output.

    Returns:
        The layer's name, or None if the graph does not show it.
    """
    root = getattr(loss, "grad_fn", None)
    if root is None:
        return None
    layers = _layers(model, specs)
    last, found = -1, None
    for node in graph_nodes(root):
        number = _number(node)
        if number <= last or not _PRODUCT.search(type(node).__name__):
            continue
        name = _weight_of(node, layers)
        if name is not None:
            last, found = number, name
    return found


def _layers(model: Any, specs: Sequence[LayerSpec]) -> dict[int, str]:
    """The parameters of layers with a matrix → the layer."""
    from ww_callbacks.spectral.layers.frameworks.torch_modules import owners

    names = {path: spec.name for spec in specs if not spec.skipped for path in spec.parameters}
    found = {}
    for path, (module, name) in owners(model):
        if path in names and (parameter := dict(module._parameters.items())[name]) is not None:
            found[id(parameter)] = names[path]
    return found


def graph_nodes(root: Any) -> Iterator[Any]:
    """Every node of autograd's graph under ``root``."""
    waiting, seen = [root], {root}
    while waiting:
        node = waiting.pop()
        yield node
        for child, _ in node.next_functions:
            if child is not None and child not in seen:
                seen.add(child)
                waiting.append(child)


def _number(node: Any) -> int:
    """The position of ``node`` in the forward pass (``_sequence_nr``; 0 if torch does not provide it)."""
    number = getattr(node, "_sequence_nr", None)
    return int(number()) if number is not None else 0


def _weight_of(product: Any, layers: dict[int, str]) -> str | None:
    """The layer whose parameter is an input of ``product``, not through another product."""
    level = [product]
    for _ in range(_STEPS_FROM_A_PRODUCT):
        children = [child for node in level for child, _ in node.next_functions if child is not None]
        for child in children:
            name = layers.get(id(getattr(child, "variable", None)))
            if name is not None:
                return name
        level = [child for child in children if not _PRODUCT.search(type(child).__name__)]
    return None
