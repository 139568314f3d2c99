"""Low-rank adapters (PEFT's LoRA) → layers: the update B·A with its scaling, and the weight with the updates merged.

For a layer at ``path``, ``path.lora_update[adapter]`` is scaling·B·A and ``path.merged_weight`` is W + Σ scaling·B·A
over the adapters in use; the frozen W under it is not measured on its own, being the merged weight's baseline.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import nn

from ww_callbacks.spectral.layers.frameworks.torch_tensors import effective, gather, to_array, whole_shape, why_not
from ww_callbacks.spectral.layers.matrix_layouts import Part, skipped, specs
from ww_callbacks.spectral.layers.spec import Array, LayerSpec


def is_lora(module: nn.Module) -> bool:
    """Whether ``module`` is one of PEFT's LoRA layers (known by what it holds, so that PEFT is not imported)."""
    return (
        isinstance(getattr(module, "lora_A", None), nn.ModuleDict)
        and isinstance(getattr(module, "scaling", None), dict)
        and isinstance(getattr(module, "base_layer", None), nn.Module)
    )


def _factors(module: Any, adapter: str) -> tuple[torch.Tensor, torch.Tensor]:
    """A and B of one adapter, as its parameters."""
    if adapter in module.lora_A:
        return module.lora_A[adapter].weight, module.lora_B[adapter].weight
    return module.lora_embedding_A[adapter], module.lora_embedding_B[adapter]


def _factor_names(module: Any, path: str, adapter: str) -> tuple[str, str]:
    if adapter in module.lora_A:
        return f"{path}.lora_A.{adapter}.weight", f"{path}.lora_B.{adapter}.weight"
    return f"{path}.lora_embedding_A.{adapter}", f"{path}.lora_embedding_B.{adapter}"


def update(module: Any, adapter: str) -> torch.Tensor:
    """scaling·B·A of one adapter, in float32 at least, laid out as the weight that it is added to."""
    with torch.no_grad():
        a, b = (gather(factor).detach() for factor in _factors(module, adapter))
        if a.element_size() < 4:
            a, b = a.float(), b.float()
        rank = a.shape[0]
        product = (b.reshape(b.shape[0], rank) @ a.reshape(rank, -1)).reshape(b.shape[0], *a.shape[1:])
        stored_in_out = bool(getattr(module, "fan_in_fan_out", False)) or adapter not in module.lora_A
        return (product.T if stored_in_out else product) * module.scaling[adapter]


def merged(module: Any) -> torch.Tensor:
    """The weight that the layer amounts to now: its base with the updates of the adapters in use."""
    with torch.no_grad():
        weight = gather(effective(module.base_layer, "weight"))
        if weight.element_size() < 4:
            weight = weight.float()
        for adapter in _in_use(module):
            weight = weight + update(module, adapter)
            if _is_dora(module, adapter):
                # DoRA (Liu et al. 2024): each output's weights keep a learned length, m·V/‖V‖.
                inputs = 0 if getattr(module, "fan_in_fan_out", False) else 1
                length = weight.norm(dim=inputs, keepdim=True)
                magnitude = gather(module.lora_magnitude_vector[adapter].weight).detach().to(weight.dtype)
                weight = weight * (magnitude.reshape(length.shape) / length)
        return weight


def _read_update(module: Any, adapter: str) -> Array:
    return to_array(update(module, adapter))


def _is_dora(module: Any, adapter: str) -> bool:
    return adapter in getattr(module, "lora_magnitude_vector", {})


def _in_use(module: Any) -> list[str]:
    if module.merged or module.disable_adapters:
        return []
    return [adapter for adapter in module.active_adapters if adapter in _adapters(module)]


def _adapters(module: Any) -> list[str]:
    return [*module.lora_A, *getattr(module, "lora_embedding_A", {})]


def lora_specs(
    path: str,
    module: Any,
    base: Sequence[LayerSpec],
    cut: Callable[[tuple[int, ...]], tuple[str, list[Part] | str]],
) -> list[LayerSpec]:
    """The layers of one LoRA layer, and its parameters that are none.

    Args:
        path: where the layer is.
        module: the layer.
        base: what its base layer's parameters would be without adapters.
        cut: takes the shape of the base layer's weight, returns its kind and parts.
    """
    found: list[LayerSpec] = []
    weight_path = f"{path}.base_layer.weight"
    name = type(module.base_layer).__name__
    for spec in base:
        if weight_path not in spec.parameters or spec.skipped:
            found.append(spec)
    if not any(weight_path in spec.parameters for spec in base):
        return found + unmergeable(path, module)
    unreadable = next((s.skipped for s in base if weight_path in s.parameters and s.skipped), "")
    shape = next(spec.shape for spec in base if weight_path in spec.parameters)
    _, parts = cut(shape)
    for adapter in _adapters(module):
        names, rank = _factor_names(module, path, adapter), whole_shape(_factors(module, adapter)[0])[0]
        why = parts if isinstance(parts, str) else _why_no_update(module, adapter)
        if isinstance(parts, str) or why:
            found.extend(skipped(n, why, kind="lora", type=name) for n in names)
            continue
        found.extend(
            specs(
                f"{path}.lora_update",
                [replace(p, label=f"{adapter},{p.label}" if p.label else adapter) for p in parts],
                partial(_read_update, module, adapter),
                kind="lora",
                type=name,
                shape=shape,
                parameters=names,
                note=f"scaling·B·A of rank {rank}, scaling {module.scaling[adapter]:g}",
            )
        )
    if unreadable or isinstance(parts, str):
        return found
    found.append(
        skipped(weight_path, f"the frozen base of `{path}.merged_weight`", kind="dense", type=name, shape=shape)
    )
    in_use = [a for a in _in_use(module) if not _why_no_update(module, a)]
    found.extend(
        specs(
            f"{path}.merged_weight",
            parts,
            lambda: to_array(merged(module)),
            kind="lora",
            type=name,
            shape=shape,
            parameters=(weight_path, *(n for a in in_use for n in _ingredients(module, path, a))),
            note="the base weight with the updates in use: " + (", ".join(in_use) or "none"),
        )
    )
    return found


def _ingredients(module: Any, path: str, adapter: str) -> tuple[str, ...]:
    magnitude = (f"{path}.lora_magnitude_vector.{adapter}.weight",) if _is_dora(module, adapter) else ()
    return *_factor_names(module, path, adapter), *magnitude


def unmergeable(path: str, module: Any) -> list[LayerSpec]:
    """The factors of adapters whose base layer has no separate weight, such as fused experts."""
    name = type(module.base_layer).__name__
    why = f"adapters of {name}, which has no `weight` that they add to; the base is measured without them"
    names = [n for adapter in _adapters(module) for n in _factor_names(module, path, adapter)]
    return [skipped(n, why, kind="lora", type=name) for n in names]


def _why_no_update(module: Any, adapter: str) -> str:
    for factor in _factors(module, adapter):
        if why := why_not(factor):
            return why
    if getattr(module.base_layer, "groups", 1) != 1:
        return "adapters of a grouped convolution"
    return ""
