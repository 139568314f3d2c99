"""Torch tensors → arrays, and the effective weights of a module, without changing the model."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock
from typing import Any

import torch
from torch import nn

from ww_callbacks.spectral.layers.spec import EXISTS_LATER, Array, Index

_HALVES = (torch.float16, torch.bfloat16)

_OURS = (torch.float32, torch.float64)
_ONE_AT_A_TIME = Lock()
"""The random state belongs to the process, and layers may share a parametrisation, so only one thread at a time may
save and restore them."""


def partitioned(tensor: Any) -> bool:
    """Whether ``tensor`` is a parameter partitioned by DeepSpeed ZeRO-3.

    Small parameters, which DeepSpeed keeps whole on every process, are not.
    """
    return hasattr(tensor, "ds_id") and tensor.numel() == 0


def whole_shape(tensor: Any) -> tuple[int, ...]:
    """The shape of ``tensor``: that of the whole tensor if it is sharded or partitioned, and that of the weight if
    bitsandbytes packs two 4-bit values into a byte (``quant_state``).
    """
    packed = getattr(getattr(tensor, "quant_state", None), "shape", None)
    return tuple(packed or getattr(tensor, "ds_shape", tensor.shape))


def gather(tensor: torch.Tensor) -> torch.Tensor:
    """The whole of a tensor that is sharded over processes (a DTensor) or partitioned by DeepSpeed ZeRO-3 (which
    takes the parameter itself, for a detached one knows of no other parts); any other tensor unchanged.

    For these two it is a collective: every rank must call it, in the same order.
    """
    if partitioned(tensor):
        # DeepSpeed frees the whole tensor when the context ends, so its values are copied.
        with sys.modules["deepspeed"].zero.GatheredParameters([tensor]), torch.no_grad():
            return tensor.detach().clone()
    return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor


def to_array(tensor: torch.Tensor, index: Index = (), *, made: bool = False) -> Array:
    """The values of ``tensor``, detached: a NumPy view on the CPU, a tensor where it is on an accelerator.

    Half precision becomes float32 (a copy); sparse and quantised tensors become dense real values.

    Args:
        tensor: the tensor.
        index: a slice of it, all of it by default. It is taken before anything is widened, and a slice of what exists
            for this call only is copied, so that no more than the slice stays in memory.
        made: whether ``tensor`` was computed for this call, so it is not the model's memory.
    """
    given = tensor.detach() if tensor.requires_grad else tensor
    plain = type(given) is torch.Tensor and given.dtype in _OURS and given.layout == torch.strided
    if plain and given.is_cpu and not index:
        return given.resolve_neg().numpy()
    with torch.no_grad():
        tensor = gather(given)
        made = made or tensor is not given
        if tensor.is_quantized:
            tensor, made = tensor.dequantize(), True
        elif tensor.layout != torch.strided:
            tensor, made = tensor.to_dense(), True
        if index:
            tensor = tensor[index]
            if made and tensor.dtype not in _HALVES:
                tensor = tensor.clone()
        if tensor.dtype in _HALVES:
            tensor = tensor.float()
        return tensor.resolve_neg().numpy() if tensor.device.type == "cpu" else tensor


def why_not(tensor: Any) -> str:
    """Why the values of ``tensor`` cannot be measured; empty if they can."""
    if nn.parameter.is_lazy(tensor):
        return f"not initialised yet: {EXISTS_LATER}"
    if tensor.is_meta:
        return "on the meta device: it has a shape but no values"
    if partitioned(tensor) and not (hasattr(tensor, "ds_shape") and "deepspeed" in sys.modules):
        return "partitioned by DeepSpeed ZeRO-3, which is not there to gather it: its values are on other processes"
    if hasattr(tensor, "quant_state") or type(tensor).__name__ in ("Params4bit", "Int8Params"):
        return f"quantised by bitsandbytes ({type(tensor).__name__}): the stored integers are not the weights"
    if tensor.is_quantized:
        return ""
    if tensor.is_complex():
        return "complex: the quantities are defined for real matrices"
    if not tensor.is_floating_point():
        return f"{str(tensor.dtype).removeprefix('torch.')}: integers without their scale are not the weights"
    if tensor.element_size() == 1:
        return f"{str(tensor.dtype).removeprefix('torch.')}: 8-bit floats without their scale are not the weights"
    return ""


def memory(tensor: torch.Tensor) -> object:
    """Identity of a tensor's memory, equal for tied weights."""
    plain = type(tensor) in (nn.Parameter, torch.Tensor) and not tensor.is_meta
    if plain and tensor.layout == torch.strided and tensor.numel() and tensor.data_ptr():
        return (tensor.data_ptr(), tuple(tensor.shape), tensor.stride(), tensor.dtype, tensor.device)
    return id(tensor)


@contextmanager
def _untouched(module: nn.Module) -> Iterator[None]:
    """Run the body in evaluation mode, then restore modes, buffers and the random state.

    Spectral norm does a power iteration at every evaluation in training mode; a user's parametrisation may do more.
    Buffers are restored only if they changed, because writing increments autograd's version counter.
    """
    devices = {t.device.index or 0 for t in (*module.parameters(), *module.buffers()) if t.device.type == "cuda"}
    with _ONE_AT_A_TIME, torch.random.fork_rng(devices=sorted(devices)), torch.no_grad():
        modes = [(m, m.training) for m in module.modules()]
        buffers = [(b, b.detach().clone()) for b in module.buffers() if not b.is_meta]
        try:
            for m, _ in modes:
                m.training = False
            yield
        finally:
            for m, training in modes:
                m.training = training
            for buffer, before in buffers:
                if not torch.equal(buffer, before):
                    buffer.copy_(before)


def derived(module: nn.Module) -> dict[str, tuple[str, ...]]:
    """The weights that ``module`` computes from other parameters: name → the names of these parameters.

    Parametrisations (weight norm, spectral norm, orthogonal, the user's own), the older hooks that do the same, and
    pruning masks.
    """
    found: dict[str, tuple[str, ...]] = {}
    for name, chain in getattr(module, "parametrizations", {}).items():
        originals = [n for n, _ in chain.named_parameters(recurse=False)]
        found[name] = tuple(f"parametrizations.{name}.{original}" for original in originals)
    for hook in module._forward_pre_hooks.values():
        name = getattr(hook, "name", None) or getattr(hook, "_tensor_name", None)
        if not isinstance(name, str) or name in found:
            continue
        if hasattr(hook, "compute_weight"):
            found[name] = tuple(n for n in (f"{name}_orig", f"{name}_g", f"{name}_v") if n in module._parameters)
        elif hasattr(hook, "apply_mask"):
            found[name] = (f"{name}_orig",)
    return found


def own_parameters(module: nn.Module) -> dict[str, Any]:
    """The module's parameters by name, None if unused; TorchScript does not store them in a dictionary."""
    return dict(module._parameters.items())


def has_weight(module: nn.Module) -> bool:
    """Whether ``module`` has a parameter ``weight``, its own or a computed one, without evaluating a
    parametrisation.
    """
    return own_parameters(module).get("weight") is not None or "weight" in derived(module)


def _never_iterated(matrix: torch.Tensor, u: torch.Tensor, v: torch.Tensor) -> bool:
    """Whether the vectors of torch's older spectral norm are still the random ones it was made with.

    A forward pass in training leaves u = Wv/‖Wv‖; one in evaluation leaves both as they were. In few dimensions random
    vectors may agree by chance, so that v must agree with Wᵀu too.
    """
    cosine = torch.nn.functional.cosine_similarity
    if cosine(u, matrix @ v, dim=0) < 0.9:
        return True
    return len(u) <= 8 and bool(cosine(v, matrix.t() @ u, dim=0) < 0.5)


def _spectrally_normalised(hook: Any, module: nn.Module, name: str) -> torch.Tensor:
    """W / uᵀWv; with random vectors u and v, after the power iterations of one forward pass in training, on copies."""
    weight = getattr(module, f"{name}_orig").detach()
    matrix = hook.reshape_weight_to_matrix(weight)
    u, v = getattr(module, f"{name}_u"), getattr(module, f"{name}_v")
    if _never_iterated(matrix, u, v):
        for _ in range(hook.n_power_iterations):
            v = torch.nn.functional.normalize(matrix.t() @ u, dim=0, eps=hook.eps)
            u = torch.nn.functional.normalize(matrix @ v, dim=0, eps=hook.eps)
    return weight / (u @ (matrix @ v))


def effective(module: nn.Module, name: str) -> torch.Tensor:
    """The effective weight ``name`` of ``module``, detached, without side effects.

    That is the parameter itself, or the result of its parametrisation: for spectral norm with the σ of its current
    vectors, for a pruned weight with the mask applied. A module with torch's older spectral norm that has not been
    trained yet holds random vectors: its weight is then the one that its first forward pass in training will use.
    """
    chains: Any = module.parametrizations if "parametrizations" in module._modules else ()
    if name in chains:
        chain = chains[name]
        with _untouched(chain):
            # Called directly, because the attribute would read and fill the cache of `parametrize.cached()`.
            return chain().detach()
    if name in module._parameters:
        parameter: Any = module._parameters[name]
        return gather(parameter) if partitioned(parameter) else parameter.detach()
    for hook in module._forward_pre_hooks.values():
        if getattr(hook, "name", None) == name and hasattr(hook, "compute_weight"):
            with torch.no_grad():
                if not hasattr(hook, "n_power_iterations"):  # the older weight norm
                    return hook.compute_weight(module).detach()
                return _spectrally_normalised(hook, module, name)
        if getattr(hook, "_tensor_name", None) == name and hasattr(hook, "apply_mask"):
            with torch.no_grad():
                return getattr(module, f"{name}_orig").detach() * getattr(module, f"{name}_mask")
    return getattr(module, name).detach()
