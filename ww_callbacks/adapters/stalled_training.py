"""Why a model cannot learn: what a training loop shows of it before anything is measured."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ww_callbacks.adapters.traced_output import graph_nodes


def why_not_trained(model: Any, optimizers: Iterable[Any]) -> str:
    """What keeps the optimisers from changing a torch module; empty if nothing does.

    Args:
        model: the module.
        optimizers: those that step it, each with ``param_groups``.
    """
    held = {id(p) for o in optimizers for group in getattr(o, "param_groups", ()) for p in group["params"]}
    parameters = list(model.parameters())
    if not held:
        return "no optimiser has a parameter"
    if parameters and not any(id(p) in held for p in parameters):
        return "the optimiser has other parameters than the model's"
    if parameters and not any(p.requires_grad for p in parameters):
        return "all parameters are frozen"
    return ""


def why_no_gradient(loss: Any, model: Any) -> str:
    """What keeps the gradients of a torch ``loss`` from a module; empty if nothing does, or for a plain number."""
    if not getattr(loss, "requires_grad", False) or not hasattr(model, "parameters"):
        return ""
    parameters = {id(p) for p in model.parameters()}
    root = getattr(loss, "grad_fn", None)
    if root is not None and any(id(getattr(node, "variable", None)) in parameters for node in graph_nodes(root)):
        return ""
    return "the loss has no graph that leads to the model (it was made anew, or from a detached tensor)"
