"""Torch modules → layers: every parameter and how it is handled, in the order of registration."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import nn

from ww_callbacks.spectral.layers import matrix_layouts as layouts
from ww_callbacks.spectral.layers.frameworks.torch_tensors import (
    derived,
    effective,
    has_weight,
    memory,
    own_parameters,
    partitioned,
    to_array,
    whole_shape,
    why_not,
)
from ww_callbacks.spectral.layers.lora import is_lora, lora_specs, unmergeable
from ww_callbacks.spectral.layers.matrix_layouts import (
    Convention,
    KernelLayout,
    Part,
    experts_transposed,
    skipped,
    specs,
)
from ww_callbacks.spectral.layers.spec import LayerSpec

_WRAPPERS = {
    "DistributedDataParallel": "module",
    "DataParallel": "module",
    "AveragedModel": "module",
    "FullyShardedDataParallel": "_fsdp_wrapped_module",
    "OptimizedModule": "_orig_mod",
    "CheckpointWrapper": "_checkpoint_wrapped_module",
    "DeepSpeedEngine": "module",
    "_FabricModule": "_forward_module",
    "ModelEmaV2": "module",
    "ModelEmaV3": "module",
}
_GATES = {
    "LSTM": layouts.LSTM_GATES,
    "LSTMCell": layouts.LSTM_GATES,
    "GRU": layouts.GRU_GATES_TORCH,
    "GRUCell": layouts.GRU_GATES_TORCH,
}
_PACKED_QKV = ("c_attn", "qkv", "Wqkv")
"""Names of dense layers that contain q, k and v one after the other (GPT-2, timm and torchvision, flash-attention)."""


@dataclass(frozen=True)
class Place:
    """A module in its model: its path and its parents."""

    path: str
    module: nn.Module
    ancestors: tuple[str, ...]

    @property
    def type(self) -> str:
        """The class name, before a parametrisation changed it."""
        scripted = getattr(self.module, "original_name", None)  # of a module that TorchScript compiled
        return scripted or nn.utils.parametrize.type_before_parametrizations(self.module).__name__

    @property
    def leaf(self) -> str:
        """The last component of the path."""
        return self.path.rpartition(".")[2]

    def join(self, name: str) -> str:
        """The path of a member of this module."""
        return f"{self.path}.{name}" if self.path else name


def places(module: nn.Module, path: str = "", ancestors: tuple[str, ...] = ()) -> Iterator[Place]:
    """Every module under ``module``, itself first; paths omit wrappers, and a shared module appears at each of its
    paths.
    """
    inner = _WRAPPERS.get(type(module).__name__)
    if inner is not None and isinstance(getattr(module, inner, None), nn.Module):
        yield from places(getattr(module, inner), path, ancestors)
        return
    here = Place(path, module, ancestors)
    yield here
    if is_keras(module):
        return
    if is_lora(module):  # one layer with its adapters, measured together
        base: Any = module.base_layer
        if not has_weight(base):  # adapters of single parameters, such as fused experts
            yield from places(base, here.join("base_layer"), ancestors)
        return
    for name, child in module._modules.items():
        if child is not None and not (name == "parametrizations" and nn.utils.parametrize.is_parametrized(module)):
            yield from places(child, here.join(name), (*ancestors, type(module).__name__))


def inspect_torch(model: nn.Module, convolution: Convention = "matrix") -> list[LayerSpec]:
    """The layers of a torch module, and the skipped parameters with the reason.

    Paths are those of ``named_parameters()`` without the prefixes of DDP, FSDP, ``torch.compile`` and other wrappers.
    """
    found: list[LayerSpec] = []
    first: dict[object, str] = {}
    shared: dict[str, list[str]] = {}
    for place in places(model):
        if is_lora(place.module):
            found.extend(_lora(place, convolution))
            continue
        if is_keras(place.module):
            found.extend(_keras(place, convolution))
            continue
        for name, group in _own_or_reason(place, convolution):
            path = place.join(name)
            key = _identity(place.module, name)
            owner = first.setdefault(key, path)
            if owner == path or all(spec.skipped for spec in group):
                found.extend(group)
                continue
            shared.setdefault(owner, []).append(path)
            shape = group[0].shape
            found.append(
                skipped(path, f"tied: measured as `{owner}`", kind=group[0].kind, type=place.type, shape=shape)
            )
    held = dict(owners(model))
    return [replace(_with_shared(spec, shared), is_frozen=_frozen(spec, held)) for spec in found]


def owners(module: nn.Module, path: str = "") -> Iterator[tuple[str, tuple[nn.Module, str]]]:
    """The path of every parameter, without the prefixes of wrappers → its module, and its name there."""
    inner = _WRAPPERS.get(type(module).__name__)
    if inner is not None and isinstance(getattr(module, inner, None), nn.Module):
        yield from owners(getattr(module, inner), path)
        return
    for name in own_parameters(module):
        yield path + name, (module, name)
    for name, child in module._modules.items():
        if child is not None:
            yield from owners(child, f"{path}{name}.")


def _frozen(spec: LayerSpec, owners: Mapping[str, tuple[nn.Module, str]]) -> Callable[[], bool] | None:
    """Set whether all parameters of the layer are frozen, unless the framework already did."""
    places = [owners[path] for path in spec.parameters if path in owners]
    if spec.skipped or spec.is_frozen is not None or not places:
        return spec.is_frozen
    return partial(_without_gradient, places)


def _without_gradient(places: Sequence[tuple[nn.Module, str]]) -> bool:
    for module, name in places:
        parameter = own_parameters(module).get(name)
        if parameter is not None and parameter.requires_grad:
            return False
    return True


def is_keras(module: nn.Module) -> bool:
    """Whether ``module`` is a Keras layer, which on the torch backend is also a torch module."""
    keras = sys.modules.get("keras")
    return keras is not None and hasattr(keras, "Layer") and isinstance(module, keras.Layer)


def _keras(place: Place, convolution: Convention) -> list[LayerSpec]:
    """The layers of a Keras model inside a torch module, with the module's path as prefix."""
    from ww_callbacks.spectral.layers.frameworks.keras_variables import inspect_keras

    return [
        replace(s, name=place.join(s.name), parameters=tuple(map(place.join, s.parameters)))
        for s in inspect_keras(place.module, convolution)
    ]


def _with_shared(spec: LayerSpec, shared: dict[str, list[str]]) -> LayerSpec:
    others = shared.get(spec.parameters[0]) if spec.parameters and not spec.skipped else None
    if not others:
        return spec
    return replace(spec, note="; ".join(filter(None, (spec.note, f"also used as {', '.join(others)}"))))


def _identity(module: nn.Module, name: str) -> object:
    """Identity of values that two names share: the parameter, or the memory of a plain tensor."""
    parameter = own_parameters(module).get(name)
    if parameter is None:
        return (id(module), name)
    return memory(parameter)


def _own_or_reason(place: Place, convolution: Convention) -> list[tuple[str, list[LayerSpec]]]:
    """The layers of a module by the names of their parameters; a module that cannot be inspected is skipped."""
    try:
        return list(_own_by_name(place, convolution))
    except Exception as error:  # a third-party module may only partly behave like a torch module
        why = f"its module could not be inspected ({type(error).__name__}: {error})"
        return [(place.type, [skipped(place.join(place.type), why, type=place.type)])]


def _own_by_name(place: Place, convolution: Convention) -> Iterator[tuple[str, list[LayerSpec]]]:
    module = place.module
    computed = derived(module)
    for name, originals in computed.items():
        yield name, _derived_specs(place, name, originals, convolution)
    originals_of = {original: name for name, originals in computed.items() for original in originals}
    for name, parameter in own_parameters(module).items():
        if parameter is None or name in computed:
            continue
        if name in originals_of:
            yield name, [_original(place, name, whole_shape(parameter), originals_of[name])]
        else:
            yield name, _parameter_specs(place, name, parameter, convolution)
    for name, chain in getattr(module, "parametrizations", {}).items():
        for original, parameter in chain.named_parameters():
            full = f"parametrizations.{name}.{original}"
            yield full, [_original(place, full, whole_shape(parameter), name)]
    if hasattr(module, "_packed_params") and callable(getattr(type(module), "weight", None)):
        weight: Any = module.weight
        yield "weight", _quantised(place, weight, convolution)  # torch.ao's quantised modules keep it behind a method


def _original(place: Place, name: str, shape: tuple[int, ...], effective_name: str) -> LayerSpec:
    why = f"an ingredient of `{place.join(effective_name)}`, which is measured instead"
    return skipped(place.join(name), why, type=place.type, shape=shape)


def _derived_specs(place: Place, name: str, originals: tuple[str, ...], convolution: Convention) -> list[LayerSpec]:
    path = place.join(name)
    if any(hasattr(place.module.get_parameter(original), "ds_id") for original in originals):
        # Evaluating it would run DeepSpeed's hooks outside of a forward pass.
        why = "computed from parameters that are under DeepSpeed ZeRO-3"
        return [skipped(path, why, type=place.type)]
    try:
        weight = effective(place.module, name)
    except Exception as error:  # the user's parametrisation may fail outside of training
        why = f"its parametrisation could not be evaluated: {type(error).__name__}: {error}"
        return [skipped(path, why, type=place.type)]
    how = "effective weight after " + _what(place.module, name)
    return _parameter_specs(place, name, weight, convolution, parameters=tuple(map(place.join, originals)), note=how)


def _what(module: nn.Module, name: str) -> str:
    chains = getattr(module, "parametrizations", {})
    if name in chains:
        return ", ".join(type(step).__name__.lstrip("_") for step in chains[name])
    hooks = module._forward_pre_hooks.values()
    return ", ".join(
        type(h).__name__ for h in hooks if name in (getattr(h, "name", ""), getattr(h, "_tensor_name", ""))
    )


def _quantised(place: Place, weight: Callable[[], torch.Tensor], convolution: Convention) -> list[LayerSpec]:
    value = weight()
    return _parameter_specs(
        place, "weight", value, convolution, read=weight, note=f"{value.dtype}, measured on the dequantised values"
    )


def _parameter_specs(
    place: Place,
    name: str,
    tensor: torch.Tensor,
    convolution: Convention,
    *,
    parameters: tuple[str, ...] | None = None,
    read: Callable[[], torch.Tensor] | None = None,
    note: str = "",
) -> list[LayerSpec]:
    path, module = place.join(name), place.module
    shape = () if nn.parameter.is_lazy(tensor) else whole_shape(tensor)
    why = why_not(tensor)
    scale = next((s for s in ("weight_scale_inv", "weight_scale", "SCB") if hasattr(module, s)), "")
    if not why and scale and name == "weight":
        why = f"stored with a separate scale (`{scale}`): its values alone are not the weights"
    if why:
        return [skipped(path, why, kind=_kind_of_vector(place, name), type=place.type, shape=shape, note=note)]
    if name == "_flat_param":
        why = "flattened by FSDP1; FSDP2 (`fully_shard`) keeps the shapes"
        return [skipped(path, why, type=place.type, shape=shape)]
    kind, cut = classify(place, name, shape, convolution)
    if isinstance(cut, str):
        return [skipped(path, cut, kind=kind, type=place.type, shape=shape, note=note)]
    source = read or (lambda: effective(module, name))
    held = own_parameters(module).get(name)
    made = held is None or partitioned(held)
    return specs(
        path,
        cut,
        lambda: to_array(source()),
        read_part=lambda index: to_array(source(), index, made=made),
        kind=kind,
        type=place.type,
        shape=shape,
        parameters=parameters or (path,),
        note=note,
    )


def _kind_of_vector(place: Place, name: str) -> str:
    if "norm" in place.type.lower():
        return "norm"
    return "bias" if "bias" in name else "other"


def classify(place: Place, name: str, shape: tuple[int, ...], convolution: Convention) -> tuple[str, list[Part] | str]:
    """The kind of a parameter, and its parts or the reason why it has none."""
    module, kind = place.module, _kind_of_vector(place, name)
    if 0 in shape:
        return kind, "empty"
    if len(shape) < 2:
        return kind, "a scalar" if not shape else "a vector: it has no spectrum"
    if kind != "other":
        return kind, f"a {kind}: not a map from inputs to outputs"
    if isinstance(module, nn.modules.conv._ConvNd) or _is_quantised_conv(place):
        layout: KernelLayout = "torch transposed" if module.transposed else "torch"
        return "conv", layouts.convolution(shape, convolution, groups=int(module.groups), layout=layout)  # type: ignore[arg-type]
    if isinstance(module, nn.MultiheadAttention):
        if name == "in_proj_weight":
            return "attention", layouts.packed(shape, layouts.QKV, "packed q, k, v")
        return ("attention", layouts.matrix(shape)) if len(shape) == 2 else ("bias", "a bias: not a map")
    if isinstance(module, nn.RNNBase | nn.RNNCellBase):
        gates = _GATES.get(place.type) or _GATES.get(getattr(module, "mode", ""))
        if gates and not name.startswith("weight_hr"):
            return "recurrent", layouts.packed(shape, gates, "gates")
        return "recurrent", layouts.matrix(shape)
    if isinstance(module, nn.Bilinear):
        return "bilinear", layouts.bilinear(shape)
    if isinstance(module, nn.Embedding | nn.EmbeddingBag) or (place.type == "Embedding" and len(shape) == 2):
        return "embedding", layouts.embedding(shape)
    if "expert" in place.type.lower() and len(shape) == 3:
        return "experts", _experts(module, name, shape)
    if len(shape) == 2:
        return _two_dimensional(place, shape, known=isinstance(module, nn.Linear) or name == "weight")
    squeezed = tuple(n for n in shape if n != 1)
    if len(squeezed) == 2:
        part = layouts.matrix(squeezed, note=f"{shape} taken as {squeezed}; orientation not known")[0]
        return "other", [replace(part, arrange=lambda a: [layouts.contiguous(a.reshape(squeezed))])]
    return "other", f"{len(shape)} axes in a module of unknown layout"


def _is_quantised_conv(place: Place) -> bool:
    return place.type.startswith("Conv") and hasattr(place.module, "transposed") and hasattr(place.module, "groups")


def _two_dimensional(place: Place, shape: tuple[int, ...], known: bool) -> tuple[str, list[Part] | str]:
    kind = "attention" if any("Attention" in a for a in place.ancestors) else "dense"
    if not known and 1 in shape:  # IA3's factors, a class token
        return "other", "a vector stored with two axes (such as the factors of IA3): it has no spectrum"
    if not known:
        return "other", layouts.matrix(shape, note="a bare 2-D parameter, taken as (out, in)")
    transposed = place.type == "Conv1D" and hasattr(place.module, "nf")  # Hugging Face's dense layer, stored (in, out)
    outputs, inputs = reversed(shape) if transposed else shape
    by_head = any("BigCode" in ancestor for ancestor in place.ancestors)  # q, k, v of one head after the other
    if place.leaf in _PACKED_QKV and outputs == 3 * inputs and not by_head:
        return "attention", layouts.packed(shape, layouts.QKV, "packed q, k, v", transposed=transposed)
    if place.leaf == "c_attn" and outputs == 2 * inputs:  # GPT-2's cross-attention has a separate query
        return "attention", layouts.packed(shape, ("k", "v"), "packed k, v", transposed=transposed)
    packing = layouts.UNKNOWN_PACKING if place.leaf in (*_PACKED_QKV, "qkv_proj", "query_key_value") else ""
    return kind, layouts.matrix(shape, transposed=transposed, note=packing)


def _experts(module: nn.Module, name: str, shape: tuple[int, ...]) -> list[Part]:
    # transformers states the layout for most of these modules; otherwise it is inferred from neighbouring shapes.
    transposed = getattr(module, "is_transposed", None)
    if transposed is None:
        gate_up, down = (module._parameters.get(f"{n}_proj") for n in ("gate_up", "down"))
        transposed = (
            gate_up is not None and down is not None and experts_transposed(whole_shape(gate_up), whole_shape(down))
        )
    return layouts.stack(
        shape,
        "expert",
        transposed=bool(transposed),
        halves=("gate", "up") if "gate_up" in name else (),
        interleaved=not getattr(module, "is_concatenated", True),
    )


def _lora(place: Place, convolution: Convention) -> list[LayerSpec]:
    base = Place(place.join("base_layer"), place.module.base_layer, place.ancestors)  # type: ignore[arg-type]
    if not has_weight(base.module):
        return unmergeable(place.path, place.module)
    own = [spec for _, group in _own_by_name(base, convolution) for spec in group]
    # The layer keeps its name from before the adapters, which identifies a packed q, k, v.
    named = replace(base, path=place.path)
    return lora_specs(place.path, place.module, own, lambda shape: classify(named, "weight", shape, convolution))
