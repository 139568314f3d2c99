"""Arrays in nested containers: dictionaries, lists, dataclasses, and registered JAX pytrees.

This module never imports JAX: it only gets a JAX node if the caller has imported JAX.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

_WRAPPED = ("value", "raw_value")
"""The attribute of a Flax NNX variable with its array; it is not part of the name."""


def leaves(tree: Any) -> dict[str, Any]:
    """The arrays of ``tree`` by path, joined with ``/``; other values are skipped.

    Args:
        tree: nested mappings, sequences, dataclasses, modules of Flax NNX or Equinox, or any other pytree of JAX.

    Examples:
        >>> import numpy as np
        >>> list(leaves({"layers": [(np.eye(3), np.ones(3)), (np.eye(2), np.ones(2))], "rate": 0.1}))
        ['layers/0/0', 'layers/0/1', 'layers/1/0', 'layers/1/1']
    """
    nnx = sys.modules.get("flax.nnx")
    if nnx is not None and isinstance(tree, nnx.Module):
        tree = nnx.state(tree)
    found: dict[str, Any] = {}
    for path, value in _walk(tree, ()):
        if len(path) > 1 and path[-1] in _WRAPPED:
            path = path[:-1]
        found["/".join(path)] = value
    return found


def has_arrays(model: Any) -> bool:
    """Whether :func:`leaves` finds any in ``model``."""
    return not _is_array(model) and bool(leaves(model))


def _is_array(value: Any) -> bool:
    return hasattr(value, "shape") and hasattr(value, "dtype") and not isinstance(value, type)


def _walk(node: Any, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    children = None if isinstance(node, str | bytes) else _children(node)
    if children is not None:
        for name, child in children:
            yield from _walk(child, (*path, name))
    elif _is_array(node):
        yield path, node


def _children(node: Any) -> list[tuple[str, Any]] | None:
    """The named children of a container; None for a leaf."""
    if isinstance(node, Mapping):
        return [(str(key), child) for key, child in node.items()]
    jax = sys.modules.get("jax")
    if jax is not None and not isinstance(node, Sequence) and not _is_plain_array(node):
        pairs = jax.tree_util.tree_flatten_with_path(node, is_leaf=lambda child: child is not node)[0]
        if not any(child is node for _, child in pairs):
            return [("/".join(map(_key, path)), child) for path, child in pairs]
    if isinstance(node, Sequence):
        names = getattr(node, "_fields", None) or map(str, range(len(node)))
        return list(zip(names, node, strict=True))
    if dataclasses.is_dataclass(node) and not isinstance(node, type):
        return [(field.name, getattr(node, field.name)) for field in dataclasses.fields(node)]
    return None


def _is_plain_array(node: Any) -> bool:
    return type(node).__module__.partition(".")[0] in ("numpy", "jaxlib", "torch")


def _key(entry: Any) -> str:
    """One key of a JAX path: of a dictionary, a sequence, an attribute, or of none of them."""
    for name in ("key", "idx", "name"):
        if hasattr(entry, name):
            return str(getattr(entry, name))
    return str(entry)
