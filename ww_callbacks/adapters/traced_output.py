"""Which layer produces the output: found in the graph that autograd has drawn of the first batch."""

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

    Nothing is hooked and nothing is run: the graph is read. What is opaque in it (a compiled model, a part that is
    checkpointed) is passed over.

    Args:
        loss: the loss of a batch, with its graph.
        model: a torch module.
        specs: its layers; the output is one of those that are not skipped.

    Returns:
        Its name, or None where the graph does not tell.
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
    """The parameters of the layers that have a matrix → the layer."""
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
    """The place of ``node`` in the order of the forward pass (``_sequence_nr``; 0 where torch does not tell)."""
    number = getattr(node, "_sequence_nr", None)
    return int(number()) if number is not None else 0


def _weight_of(product: Any, layers: dict[int, str]) -> str | None:
    """The layer whose parameter goes into ``product``, through no other product."""
    level = [product]
    for _ in range(_STEPS_FROM_A_PRODUCT):
        children = [child for node in level for child, _ in node.next_functions if child is not None]
        for child in children:
            name = layers.get(id(getattr(child, "variable", None)))
            if name is not None:
                return name
        level = [child for child in children if not _PRODUCT.search(type(child).__name__)]
    return None
