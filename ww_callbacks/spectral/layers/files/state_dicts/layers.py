"""State dicts → layers, with the layout guessed from names and shapes.

Without the modules it is unknown which axis is the outputs. Hints: torch stores (out, in), Keras and Flax call their
(in, out) matrices ``kernel``, a bias has one element per output, and a few names are conventions. The note states the
guess. The singular values of a matrix do not depend on it. They do depend on the groups of a convolution, which its
shape does not show.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from ww_callbacks.spectral.layers import matrix_layouts as layouts
from ww_callbacks.spectral.layers.files.state_dicts.checkpoint_tree import Aside, Contents, contents
from ww_callbacks.spectral.layers.files.state_dicts.composed_weights import Composed, composed
from ww_callbacks.spectral.layers.files.state_dicts.quantised import PACKED, dequantised, unread_weights
from ww_callbacks.spectral.layers.files.state_dicts.roles import split, why_no_weight
from ww_callbacks.spectral.layers.files.stored_arrays import Stored, stored
from ww_callbacks.spectral.layers.matrix_layouts import Convention, Part, skipped, specs
from ww_callbacks.spectral.layers.spec import Layers, LayerSpec

_EMBEDDING = re.compile(r"(^|_)(emb|embd|embed|embedding|embeddings|wte|wpe)(s|$|_tokens|_positions|_in)")
_GPT2 = ("c_attn", "c_proj", "c_fc", "q_attn")
_PACKED_QKV = ("c_attn", "qkv", "Wqkv")


@dataclass(frozen=True)
class Names:
    """All entries of a mapping, used to infer the layout of each."""

    entries: Mapping[str, Stored]

    @cached_property
    def has_gpt2_layout(self) -> bool:
        """Whether dense layers are GPT-2's ``Conv1D``, stored (in, out): inferred from its packed (in, 3·in)
        projection.
        """
        return any(
            name.endswith(("c_attn.weight", "c_attn.base_layer.weight"))
            and len(e.shape) == 2
            and e.shape[1] == 3 * e.shape[0]
            for name, e in self.entries.items()
        )

    @cached_property
    def coded(self) -> frozenset[str]:
        """The entries that are codes of quantised weights, and their modules."""
        names = [name for name, entry in self.entries.items() if entry.is_coded or split(name)[2] in PACKED]
        return frozenset((*names, *(split(name)[0] for name in names)))

    def outputs(self, name: str) -> int | None:
        """The length of the bias of the weight ``name``, if there is one."""
        stem, dot, leaf = split(name)
        bias = self.entries.get(f"{stem}{dot}bias") if leaf in ("weight", "kernel") else None
        return bias.shape[0] if bias is not None and len(bias.shape) == 1 else None


def inspect_mapping(
    arrays: Mapping[str, Any],
    convolution: Convention = "matrix",
    *,
    lora_scaling: Callable[[str, int], float] | None = None,
    choice: str = "",
    quantisation: Mapping[str, Any] | None = None,
) -> Layers:
    """The layers of a state dict, of nested parameters or of a file's entries, in their order.

    Args:
        arrays: names → arrays of NumPy, torch or jax, objects that NumPy can convert, :class:`Stored` entries, or
            mappings of these.
        convolution: how a convolution becomes matrices.
        lora_scaling: returns the scaling of low-rank factors from the path of their layer and their rank; without it
            they are measured with scaling 1, and not merged.
        choice: which of several sets of weights, by its path (see
            :mod:`ww_callbacks.spectral.layers.files.state_dicts.checkpoint_tree`).
        quantisation: the model's ``quantization_config``, if known.
    """
    held = contents(arrays, choice)
    names = _with_dequantised(
        {name: stored(value) for name, value in {**held.weights, **held.plain}.items()}, quantisation or {}
    )
    found: list[LayerSpec] = []
    first: dict[object, str] = {}
    shared: dict[str, list[str]] = {}
    made = list(composed(names.entries, lora_scaling, names.has_gpt2_layout))
    ingredients = {member: weight for weight in made for member in weight.parameters}
    for name, entry in names.entries.items():
        for weight in made:
            if weight.parameters[0] == name:
                found.extend(_composed_specs(weight, names, convolution))
        if name in ingredients:
            why = entry.skipped or f"an ingredient of `{ingredients[name].name}`"
            found.append(skipped(name, why, kind=_kind_of_vector(name), shape=entry.shape))
            continue
        owner = name if entry.skipped or entry.identity is None else first.setdefault(entry.identity, name)
        if owner != name and any(s.parameters == (owner,) and not s.skipped for s in found):
            shared.setdefault(owner, []).append(name)
            found.append(skipped(name, f"tied: measured as `{owner}`", shape=entry.shape))
        else:
            found.extend(_entry_specs(name, entry, names, convolution))
    found.extend(skipped(aside.path, _said(aside)) for aside in held.asides)
    noted = (
        replace(s, note=f"{s.note}; also stored as {', '.join(shared[s.parameters[0]])}")
        if s.parameters[0] in shared and not s.skipped
        else s
        for s in found
    )
    return Layers(noted, [_choices(held)])


def _with_dequantised(entries: dict[str, Stored], settings: Mapping[str, Any]) -> Names:
    """``entries`` with codes and their scales replaced by the dequantised weights."""
    made = {weight.parameters[0]: weight for weight in dequantised(entries, settings)}
    ingredients = {name: weight.name for weight in made.values() for name in weight.parameters}
    found: dict[str, Stored] = {}
    for name, entry in entries.items():
        if (weight := made.get(name)) is not None:
            found[weight.name] = Stored(
                weight.shape, weight.read, stored_as=weight.stored_as, read_part=weight.read_part
            )
        if name in ingredients and name not in found:
            why = f"an ingredient of `{ingredients[name]}`"
            found[name] = replace(entry, skipped=why)
        elif name not in found:
            found[name] = entry
    return Names(found)


def _choices(held: Contents) -> str:
    """A remark on which sets of weights are measured, and which others can be chosen; empty if there is only one."""
    others = [aside.path for aside in held.asides if aside.can_be_chosen]
    if len(held.sets) > 1:
        measured = f"measured are {', '.join(held.sets)}" if others else "all are measured"
        named = ", ".join((*held.sets, *others))
        count = len(held.sets) + len(others)
        return f"{count} sets of weights ({named}), {measured}: choose one as `…:{held.sets[0]}`"
    return f"there is also {', '.join(others)}: choose it as `…:{others[0]}`" if others else ""


def _said(aside: Aside) -> str:
    arrays = f"{aside.arrays} array{'s' * (aside.arrays != 1)}"
    return f"{aside.why} ({arrays})" + (f": choose it as `…:{aside.path}`" if aside.can_be_chosen else "")


def _entry_specs(name: str, entry: Stored, names: Names, convolution: Convention) -> list[LayerSpec]:
    if entry.skipped.startswith("an ingredient"):
        return [skipped(name, entry.skipped, kind=_kind_of_vector(name), shape=entry.shape)]
    if why := why_no_weight(name, entry.shape, names.coded) or entry.skipped:
        unread = unread_weights(name, entry) if why == entry.skipped else 0
        if unread and split(name)[2] in PACKED:
            why = f"{entry.dtype}: packed codes of an unknown quantisation"
        return [replace(skipped(name, why, kind=_kind_of_vector(name), shape=entry.shape), unread=unread)]
    kind, cut = guess(name, entry.shape, names, convolution)
    if isinstance(cut, str):
        return [skipped(name, cut, kind=kind, shape=entry.shape)]
    note = "; ".join(filter(None, (f"dequantised: {entry.stored_as}" if entry.stored_as else "", _guessed(kind))))
    made = specs(name, cut, entry.read, read_part=entry.read_part, kind=kind, type="", shape=entry.shape, note=note)
    return [replace(spec, stored_as=entry.stored_as) for spec in made]


def _guessed(kind: str) -> str:
    """The note of a layer of which only name and shape are known."""
    # The shape does not show the number of groups: a kernel with g groups looks like one with g times fewer inputs.
    return "guessed from name and shape" + (", assumed to have one group" if "conv" in kind else "")


def _composed_specs(weight: Composed, names: Names, convolution: Convention) -> list[LayerSpec]:
    if any(names.entries[p].skipped for p in weight.parameters):
        return []  # noted at the ingredient
    kind, cut = guess(weight.like, weight.shape, names, convolution)
    if isinstance(cut, str):
        return [skipped(weight.name, cut, kind=kind, shape=weight.shape)]
    return specs(
        weight.name,
        cut,
        weight.read,
        kind=weight.kind or kind,
        type="",
        shape=weight.shape,
        parameters=weight.parameters,
        note=f"{weight.how}; {_guessed(kind)}",
    )


def _kind_of_vector(name: str) -> str:
    stem, _, leaf = split(name)
    parent = split(stem)[2].lower()
    if "bias" in leaf and "norm" not in parent:
        return "bias"
    if re.search(r"norm|(^|_)(ln|bn)(_|\d|$)", parent) or leaf.startswith(("running_", "moving_")):
        return "norm"
    return "bias" if leaf in ("bias", "beta") else "other"


def guess(name: str, shape: tuple[int, ...], names: Names, convolution: Convention) -> tuple[str, list[Part] | str]:
    """The kind of an entry and its parts, or the reason why it has none, inferred from name, shape and neighbours."""
    kind = _kind_of_vector(name)
    if 0 in shape:
        return kind, "empty"
    if len(shape) < 2:
        return kind, "a scalar" if not shape else "a vector: it has no spectrum"
    stem, _, leaf = split(name)
    if re.search(r"(^|_)bias(es)?$", leaf) or kind == "norm":
        return kind, f"a {kind if kind == 'norm' else 'bias'}: not a map from inputs to outputs"
    if len(shape) == 2:
        return _guess_matrix(name, shape, names)
    if len(shape) == 3 and re.search(r"expert|_exps\b", name.lower()):
        return "experts", _guess_experts(name, shape, names)
    parent = split(stem)[2]
    if leaf == "kernel" and len(shape) == 3 and (equation := _FLAX_ATTENTION.get(parent)):
        return "attention", layouts.einsum(equation, shape)
    if len(shape) in (3, 4, 5) and leaf in ("weight", "kernel", "depthwise_kernel", "pointwise_kernel"):
        return "conv", _guess_convolution(name, shape, names, convolution)
    squeezed = tuple(n for n in shape if n != 1)
    if len(squeezed) == 2:
        part = layouts.matrix(squeezed, note=f"{shape} taken as {squeezed}")[0]
        return "other", [replace(part, arrange=lambda a: [layouts.contiguous(a.reshape(squeezed))])]
    return "other", f"{len(shape)} axes, and the name does not show the layout"


_FLAX_ATTENTION = {
    **dict.fromkeys(("query", "key", "value"), "bic,chd->bihd"),
    **dict.fromkeys(("out", "attention_output"), "bihd,hdc->bic"),
}


def _guess_matrix(name: str, shape: tuple[int, ...], names: Names) -> tuple[str, list[Part]]:
    stem, dot, leaf = split(name)
    parent = split(stem.removesuffix(".base_layer"))[2]
    attention = "attention" if re.search(r"attn|attention", name.lower()) else "dense"
    if leaf == "in_proj_weight" and shape[0] % 3 == 0:
        return "attention", layouts.packed(shape, layouts.QKV, "packed q, k, v")
    if re.match(r"weight_(ih|hh)(_l\d+(_reverse)?)?$", leaf):
        return "recurrent", _guess_gates(name, shape, names.entries)
    if leaf in ("embedding", "embeddings") or (leaf == "weight" and _EMBEDDING.search(parent.lower())):
        return "embedding", layouts.embedding(shape)
    if leaf == "recurrent_kernel" or (leaf == "kernel" and f"{stem}{dot}recurrent_kernel" in names.entries):
        recurrent = names.entries[f"{stem}{dot}recurrent_kernel"].shape
        return "recurrent", _keras_gates(shape, recurrent)
    transposed = leaf in ("kernel", "lora_kernel_a", "lora_kernel_b")
    if leaf == "weight":
        outputs = names.outputs(name)
        by_bias = outputs is not None and outputs == shape[1] != shape[0]
        transposed = by_bias or (names.has_gpt2_layout and parent in _GPT2)
    rows, columns = reversed(shape) if transposed else shape
    if parent in _PACKED_QKV and rows == 3 * columns:
        return "attention", layouts.packed(shape, layouts.QKV, "packed q, k, v", transposed=transposed)
    packing = layouts.UNKNOWN_PACKING if parent in (*_PACKED_QKV, "qkv_proj", "query_key_value") else ""
    return attention, layouts.matrix(shape, transposed=transposed, note=packing)


def _guess_gates(name: str, shape: tuple[int, ...], entries: Mapping[str, Stored]) -> list[Part]:
    # The number of gates is the number of rows over the hidden size, which a projected LSTM shows in weight_hr.
    recurrent, projection = (entries.get(re.sub(r"weight_(ih|hh)", f"weight_{k}", name)) for k in ("hh", "hr"))
    hidden = next((e.shape[1] for e in (projection, recurrent) if e is not None and len(e.shape) == 2), shape[0])
    labels = {4: layouts.LSTM_GATES, 3: layouts.GRU_GATES_TORCH}.get(shape[0] // max(1, hidden))
    return layouts.packed(shape, labels, "gates") if labels and shape[0] % len(labels) == 0 else layouts.matrix(shape)


def _keras_gates(shape: tuple[int, ...], recurrent: tuple[int, ...]) -> list[Part]:
    labels = {4: layouts.LSTM_GATES, 3: layouts.GRU_GATES_KERAS}.get(recurrent[1] // recurrent[0])
    if labels and shape[1] == len(labels) * recurrent[0]:
        return layouts.packed(shape, labels, "gates", transposed=True)
    return layouts.matrix(shape, transposed=True)


def _guess_experts(name: str, shape: tuple[int, ...], names: Names) -> list[Part]:
    stem, dot, leaf = split(name)
    gate_up, down = (names.entries.get(f"{stem}{dot}{n}_proj") for n in ("gate_up", "down"))
    transposed = gate_up is not None and down is not None and layouts.experts_transposed(gate_up.shape, down.shape)
    halves = ("gate", "up") if "gate_up" in leaf and shape[2 if transposed else 1] % 2 == 0 else ()
    # Only gpt-oss has biases there, and its gate and up projections alternate.
    alternate = bool(halves) and f"{name}_bias" in names.entries
    return layouts.stack(shape, "expert", transposed=transposed, halves=halves, interleaved=alternate)


def _guess_convolution(name: str, shape: tuple[int, ...], names: Names, convolution: Convention) -> list[Part]:
    leaf, outputs = split(name)[2], names.outputs(name)
    if leaf == "depthwise_kernel":
        return layouts.convolution(shape, convolution, layout="keras depthwise")
    if leaf != "weight":
        transposed = outputs is not None and outputs == shape[-2] != shape[-1]
        return layouts.convolution(shape, convolution, layout="keras transposed" if transposed else "keras")
    # A bias of another length than the first axis belongs to a transposed convolution, (in, out/groups, *kernel).
    groups, rest = divmod(outputs or shape[0], shape[1])
    if outputs not in (None, shape[0]) and not rest and shape[0] % groups == 0:
        return layouts.convolution(shape, convolution, groups=groups, layout="torch transposed")
    return layouts.convolution(shape, convolution)
