"""Finds the sets of weights in a checkpoint, a tree of mappings, and identifies its other arrays.

Training loops store weights under arbitrary keys, next to the state of optimisers, random generators and schedules, and
often a second time as an average. Every mapping from names to arrays is found. Mappings whose key or content shows that
they are something else are set aside with the reason. A copy of measured weights (an average, a teacher) is also set
aside, but can be chosen by its path.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ww_callbacks.spectral.layers.files.state_dicts.roles import is_map
from ww_callbacks.spectral.layers.files.stored_arrays import Stored

_WRAPPERS = re.compile(r"(^|\.)(_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module|_forward_module)\.")
_HOLDERS = re.compile(
    r"^((model|module|net|network)(_?(state|weights|params))?(_?dict)?|current_model_state|state_?dicts?|state|weights|params)$"
)
"""Keys that mean "the weights" and are not part of their names."""
_ASIDE = tuple(
    (re.compile(pattern), why)
    for pattern, why in (
        (
            r"optim(?!al|ized|ised)|^opts?$|(^|_)opt(_state(s|_dict)?)?$|param_groups|^adam|^(exp_avg(_sq)?|momentum_buffers?)$|"
            r"fp32_(flat_groups|from_\w+)|^grad(ient)?s?$",
            "the state of an optimiser",
        ),
        (
            r"(^|_)rng(s|_|$)|random_(state|number|generator)|^(random|seeds?)$|generator_states?$",
            "the state of random generators",
        ),
        (r"(^|_)(lr_?)?sched(uler)?s?(_|$)|^lr$|^warmup", "the state of a schedule"),
        (r"(^|_|grad|loss)scaler(s|_|$)|^amp(_|$)", "the state of loss scaling"),
        (
            r"^(callbacks?|loops?|hyper_parameters|hparams|args|arguments|opt(ions)?|config(uration)?|cfg|trainer|"
            r"datamodule\w*|data_?loaders?|sampler|metrics?|stats|history|logs?|losses|meta|metadata|extra_state|"
            r"dataset\w*|train_iterator|averaging_state|param_shapes)$",
            "the state of the training loop",
        ),
    )
)
_MOMENTS = re.compile(r"^(m|v|mu|nu|mom(ent(um)?)?s?)$", re.IGNORECASE)
_COPY = re.compile(
    r"(^|_)(l?ema|swa|shadow|polyak|averaged?|avg|teacher|target|slow|momentum)(_|\d|$)|"
    r"^(encoder_k|key_encoder|averaged_model|w?ema\w*)$",
    re.IGNORECASE,
)
"""Keys of an average of other weights, or of a network that follows another one."""
_AVERAGED = re.compile(r"(^|_)(l?ema|swa|shadow|polyak|averaged?|avg)(_|\d|$)|^ema", re.IGNORECASE)


@dataclass(frozen=True)
class Aside:
    """Arrays of a checkpoint that are not measured.

    Attributes:
        path: their path.
        arrays: their number.
        why: what they are.
        can_be_chosen: whether they are also weights.
    """

    path: str
    arrays: int
    why: str
    can_be_chosen: bool = False


@dataclass
class Contents:
    """The contents of a checkpoint.

    Attributes:
        weights: name → array of the measured sets of weights, with the path of a set before its names if there are
            several.
        sets: the paths of those sets.
        asides: the other arrays.
        plain: name → value of other entries that are not arrays.
    """

    weights: dict[str, Any] = field(default_factory=dict)
    sets: tuple[str, ...] = ()
    asides: list[Aside] = field(default_factory=list)
    plain: dict[str, Any] = field(default_factory=dict)

    @property
    def choices(self) -> list[str]:
        """The paths that can be chosen."""
        return [*self.sets, *(aside.path for aside in self.asides if aside.can_be_chosen)]


def unwrapped(names: list[str]) -> list[str]:
    """``names`` without the prefixes of DDP, FSDP, ``torch.compile`` and checkpointing.

    >>> unwrapped(["module._orig_mod.fc.weight", "module._orig_mod.fc.bias"])
    ['fc.weight', 'fc.bias']
    """
    while any(_WRAPPERS.search(n) for n in names):
        names = [_WRAPPERS.sub(r"\1", n) for n in names]
    if names and all(n.startswith("module.") for n in names if n != "n_averaged"):
        return unwrapped([n.removeprefix("module.") for n in names])
    return names


def contents(tree: Mapping[Any, Any], choice: str = "") -> Contents:
    """The contents of the mapping ``tree``; with ``choice``, only those under that path or prefix of names.

    Raises:
        ValueError: if nothing has that path; the message lists the available paths.
    """
    whole = _collect(tree, "", set())
    everything = dict(whole.weights)
    _set_copies_aside(whole)
    if not choice:
        return whole
    if (inner := _at(tree, choice)) is not None:
        chosen = _collect(inner, "", set())
        if chosen.weights:
            return chosen
    for start in (choice.rstrip("./") + mark for mark in "/."):
        found = {name.removeprefix(start): value for name, value in everything.items() if name.startswith(start)}
        if found:
            return Contents(found, (choice,))
    prefixes = sorted({re.split(r"[./]", name)[0] for name in everything})
    offered = ", ".join(map(repr, whole.choices or prefixes[:8]))
    raise ValueError(f"There are no weights under {choice!r}; there are {offered}.")


def is_array(value: Any) -> bool:
    """Whether ``value`` is an array of any library, or a function that reads one."""
    return isinstance(value, Stored) or (hasattr(value, "shape") and hasattr(value, "dtype"))


def _children(node: Any) -> Mapping[Any, Any] | None:
    """A mapping, or a list of mappings as a mapping from positions; None for anything else."""
    if isinstance(node, Mapping):
        return node
    if isinstance(node, Sequence) and not isinstance(node, str | bytes) and any(isinstance(x, Mapping) for x in node):
        return {str(i): x for i, x in enumerate(node) if isinstance(x, Mapping)}
    return None


def _at(tree: Mapping[Any, Any], choice: str) -> Mapping[Any, Any] | None:
    node: Any = tree
    for key in re.split(r"[/.]", choice) if choice not in tree else [choice]:
        inner = _children(node)
        node = None if inner is None else next((v for k, v in inner.items() if str(k) == key), None)
    return _children(node)


def _count(node: Any, seen: set[int]) -> int:
    """The number of arrays in nested mappings and lists."""
    if is_array(node):
        return 1
    if not isinstance(node, Mapping | list | tuple) or id(node) in seen:
        return 0
    seen.add(id(node))
    return sum(_count(inner, seen) for inner in (node.values() if isinstance(node, Mapping) else node))


def _collect(node: Mapping[Any, Any], path: str, seen: set[int]) -> Contents:
    """The contents of ``node``; mappings in ``seen`` are skipped to break cycles."""
    found = Contents()
    own: dict[str, Any] = {}
    parts: dict[str, Contents] = {}
    order = []
    for key, value in node.items():
        order.append(str(key))
        inner, where = _children(value), f"{path}{key}"
        if inner is None:
            own[str(key)] = value
        elif why := _why_aside(str(key), inner):
            if arrays := _count(inner, set()):
                found.asides.append(Aside(where, arrays, why))
        elif id(value) not in seen:
            seen.add(id(value))
            part = _collect(inner, f"{where}/", seen)
            found.asides += part.asides
            parts[str(key)] = part
    full = {key: part for key, part in parts.items() if part.weights}
    states = [key for key, part in full.items() if _is_state_dict(key, part)]
    if states and not any(is_array(value) and "." in name for name, value in own.items()):
        # The state dict contains the weights; other arrays next to it, such as a best score, are not weights.
        direct = [name for name, value in own.items() if is_array(value)]
        found.asides += [Aside(f"{path}{name}", 1, "next to the weights, not one of them") for name in direct]
        own = {}
        for key, part in list(full.items()):
            if key not in states and not any(is_map(n) and len(v.shape) > 1 for n, v in part.weights.items()):
                found.asides.append(Aside(f"{path}{key}", len(part.weights), "not named like weights of a layer"))
                del full[key]
    for key, why, can_be_chosen in _copies({key: part.weights for key, part in full.items()}):
        found.asides.append(Aside(f"{path}{key}", len(full.pop(key).weights), why, can_be_chosen))
    if len(full) == 1 and not own and (key := next(iter(full))) in states:
        only = full[key]
        return Contents(only.weights, only.sets or (f"{path}{key}",), found.asides, only.plain)
    new_names = dict(zip(own, unwrapped(list(own)), strict=True))
    for key in order:
        if key in own:
            (found.weights if is_array(own[key]) else found.plain)[new_names[key]] = own[key]
        elif key in full or (key in parts and not parts[key].weights and not states):
            part = parts[key]
            found.weights |= {f"{key}/{name}": value for name, value in part.weights.items()}
            found.plain |= {f"{key}/{name}": value for name, value in part.plain.items()}
            if key in states:
                found.sets += part.sets or (f"{path}{key}",)
    return found


def _why_aside(key: str, inner: Mapping[Any, Any]) -> str:
    """What the mapping under ``key`` contains, if not weights; empty otherwise."""
    if inner and "param_groups" in inner:
        return "the state of an optimiser"
    if inner and all(isinstance(name, int) for name in inner):
        return "numbered arrays, as of an optimiser"
    lowered = key.lower()
    if "." in key:
        return ""
    return next((why for pattern, why in _ASIDE if pattern.search(lowered)), "")


def _is_state_dict(key: str, part: Contents) -> bool:
    """Whether ``part`` is a whole set of weights and not one module of a tree of parameters."""
    if part.sets or any("." in name for name in part.weights):
        return True
    return _HOLDERS.match(key.lower()) is not None and not any("/" in name for name in part.weights)


def _copies(sets: Mapping[str, Mapping[str, Any]]) -> list[tuple[str, str, bool]]:
    """The keys of ``sets`` that repeat the weights of others, what they are, and whether they can be chosen."""
    marks = {key: _marks(weights) for key, weights in sets.items()}
    # Lightning's `WeightAveraging` stores the average as the state dict, and the trained weights separately.
    if "state_dict" in sets and _alike(marks.get("current_model_state", ()), marks["state_dict"]):
        return [("current_model_state", "the trained weights; those measured are their average", True)]
    suspects = [key for key in sets if _COPY.search(key) or _MOMENTS.match(key)]
    rest = [marks[key] for key in sets if key not in suspects]
    return [
        (key, "the state of an optimiser", False) if _MOMENTS.match(key) else (key, _what_copy(key), True)
        for key in suspects
        if any(_alike(marks[key], other) for other in rest)
    ]


def _marks(weights: Mapping[str, Any]) -> set[tuple[str, tuple[int, ...]]]:
    """The ends of the names with the shapes, by which two sets of one model are known."""
    return {(".".join(re.split(r"[./]", name)[-3:]), tuple(v.shape)) for name, v in weights.items()}


def _alike(copy: Collection[Any], other: Collection[Any]) -> bool:
    return len(set(copy) & set(other)) >= 0.9 * len(copy) > 0


def _what_copy(key: str) -> str:
    if _AVERAGED.search(key):
        return "an average (EMA) of the measured weights"
    return "a second network that follows the measured one"


def _set_copies_aside(whole: Contents) -> None:
    """Remove names from ``whole`` whose prefix shows that they repeat others: ``model_ema.``, ``teacher.``."""
    groups: dict[str, dict[str, str]] = {}
    for name in whole.weights:
        segments = re.split(r"[./]", name)
        if (i := next((i for i, s in enumerate(segments[:-1]) if _COPY.search(s)), None)) is not None:
            prefix = name[: len("/".join(segments[: i + 1]))]
            groups.setdefault(prefix, {})[name[len(prefix) + 1 :]] = name
    if not groups:
        return
    inside = {name for names in groups.values() for name in names.values()}
    others = [(name, tuple(v.shape)) for name, v in whole.weights.items() if name not in inside]
    # Averages stored as buffers lose the dots in their names.
    known = {(_squeezed(tail), shape) for name, shape in others for tail in _tails(name)}
    for prefix, names in groups.items():
        matrices = {rest: name for rest, name in names.items() if len(whole.weights[name].shape) > 1}
        same = [
            rest
            for rest, name in matrices.items()
            if any((_squeezed(tail), tuple(whole.weights[name].shape)) in known for tail in _tails(rest))
        ]
        if matrices and len(same) >= 0.9 * len(matrices):
            why = _what_copy(re.split(r"[./]", prefix)[-1])
            whole.asides.append(Aside(prefix, len(names), why, can_be_chosen=True))
            for name in names.values():
                del whole.weights[name]


def _tails(name: str) -> list[str]:
    """``name`` whole, and without its first one or two segments."""
    segments = re.split(r"[./]", name)
    return [".".join(segments[i:]) for i in range(min(3, len(segments)))]


def _squeezed(name: str) -> str:
    return name.replace(".", "")
