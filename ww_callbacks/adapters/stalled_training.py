"""Reasons why a model cannot learn that are visible before the first measurement."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ww_callbacks.adapters.traced_output import graph_nodes


def why_not_trained(model: Any, optimizers: Iterable[Any]) -> str:
    """Why the optimisers cannot change a torch module; empty if they can.

    Args:
        model: the module.
        optimizers: its optimisers, each with ``param_groups``.
    """
    held = {id(p) for o in optimizers for group in getattr(o, "param_groups", ()) for p in group["params"]}
    parameters = list(model.parameters())
    if not held:
        return "no optimiser has parameters"
    if parameters and not any(id(p) in held for p in parameters):
        return "the optimiser has other parameters than the model's"
    if parameters and not any(p.requires_grad for p in parameters):
        return "all parameters are frozen"
    return ""


def why_no_gradient(loss: Any, model: Any) -> str:
    """Why the gradients of a torch ``loss`` do not reach a module; empty if they do, or for a plain number."""
    if not getattr(loss, "requires_grad", False) or not hasattr(model, "parameters"):
        return ""
    parameters = {id(p) for p in model.parameters()}
    root = getattr(loss, "grad_fn", None)
    if root is not None and any(id(getattr(node, "variable", None)) in parameters for node in graph_nodes(root)):
        return ""
    return "the loss has no graph that leads to the model (it is a new or a detached tensor)"
