"""Weights composed of several entries of a state dict: normalised, pruned and low-rank ones.

The names are those of torch's ``weight_norm``, ``spectral_norm`` and ``prune`` (hooks and parametrisations) and of
PEFT's and loralib's LoRA.
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ww_callbacks.spectral.layers.files.stored_arrays import Stored
from ww_callbacks.spectral.layers.spec import Array

Entries = Mapping[str, Stored]
Scaling = Callable[[str, int], float]

_UP_DOWN = re.compile(r"^(?P<layer>.*?)[._]lora[._](?P<factor>down|up)\.weight$")
"""The names of kohya and diffusers, with the scaling alpha/r in a separate entry."""
_LORA = re.compile(r"^(?P<layer>.*)\.lora_(embedding_)?(?P<factor>[AB])(\.(?P<adapter>[^.]+?))??(\.weight)?$")


@dataclass(frozen=True)
class Composed:
    """A weight that is computed from several entries.

    Attributes:
        name: its name.
        parameters: the entries.
        shape: its shape.
        read: computes it in the layout of its framework.
        how: description of the computation, for the note.
        like: the name from which its layout is guessed.
        kind: its kind, if known.
    """

    name: str
    parameters: tuple[str, ...]
    shape: tuple[int, ...]
    read: Callable[[], Array]
    how: str
    like: str
    kind: str = ""


def composed(entries: Entries, lora_scaling: Scaling | None = None, transposed: bool = False) -> Iterator[Composed]:
    """Every weight composed of several ``entries``.

    Args:
        entries: name → entry.
        lora_scaling: see :func:`ww_callbacks.spectral.layers.files.state_dicts.layers.inspect_mapping`.
        transposed: whether square dense weights are stored (in, out).
    """
    yield from _normalised(entries)
    yield from _low_rank(entries, lora_scaling, transposed)
    yield from _up_and_down(entries)


def _up_and_down(entries: Entries) -> Iterator[Composed]:
    pairs: dict[str, dict[str, str]] = defaultdict(dict)
    for name in entries:
        if match := _UP_DOWN.match(name):
            pairs[match["layer"]][match["factor"]] = name
    for layer, pair in pairs.items():
        if len(pair) < 2:
            continue
        down, up, alpha = pair["down"], pair["up"], f"{layer}.alpha"
        rank = entries[down].shape[0]
        known = alpha in entries and not entries[alpha].shape

        def scaling(_: str, rank: int, alpha: str = alpha) -> float:
            return float(_read(entries, alpha)) / rank

        yield Composed(
            f"{layer}.lora_update",
            (down, up, *([alpha] if known else [])),
            _update_shape(entries, down, up),
            _update_reader(entries, layer, down, up, scaling if known else None),
            f"up·down of rank {rank}, " + ("scaling alpha/rank" if known else "scaling unknown, assumed to be 1"),
            f"{layer}.lora_update.weight",
            "lora",
        )


def _normalised(entries: Entries) -> Iterator[Composed]:
    for name in entries:
        stem, _, leaf = name.rpartition(".")
        target = stem.replace(".parametrizations.", ".").removeprefix("parametrizations.")
        bare = name.rpartition("_")[0]
        if leaf.endswith("_g") and f"{bare}_v" in entries:
            yield _weight_norm(entries, bare, name, f"{bare}_v")
        elif leaf == "original0" and f"{stem}.original1" in entries:
            yield _weight_norm(entries, target, name, f"{stem}.original1")
        elif leaf == "original" and f"{stem}.0._u" in entries and f"{stem}.0._v" in entries:
            yield _spectral_norm(entries, target, name, f"{stem}.0._u", f"{stem}.0._v")
        elif leaf.endswith("_orig") and f"{bare}_mask" in entries:
            yield _masked(entries, bare, name, f"{bare}_mask")
        elif leaf.endswith("_orig") and f"{bare}_u" in entries and f"{bare}_v" in entries:
            yield _spectral_norm(entries, bare, name, f"{bare}_u", f"{bare}_v")


def _read(entries: Entries, name: str) -> np.ndarray:
    array: Any = entries[name].read()
    return array if isinstance(array, np.ndarray) else array.cpu().numpy()


def _weight_norm(entries: Entries, target: str, g: str, v: str) -> Composed:
    def read() -> Array:
        length, direction = _read(entries, g), _read(entries, v)
        # There is one length per index along its axis; a scalar length is shared by all elements.
        axes = tuple(i for i, n in enumerate(length.shape) if n == 1) if length.ndim == direction.ndim else None
        norm = np.sqrt(np.sum(np.square(direction), axis=axes, keepdims=axes is not None))
        return direction * (length / norm)

    return Composed(target, (g, v), entries[v].shape, read, "weight norm g·v/‖v‖", target)


def _spectral_norm(entries: Entries, target: str, weight: str, u: str, v: str) -> Composed:
    def read() -> Array:
        values, left, right = (_read(entries, n) for n in (weight, u, v))
        # The rows are along the first axis, or along the second in a transposed convolution.
        rows = 0 if values.shape[0] == left.size and values.size == left.size * right.size else 1
        sigma = left @ np.moveaxis(values, rows, 0).reshape(left.size, right.size) @ right
        return values / sigma

    return Composed(target, (weight, u, v), entries[weight].shape, read, "spectral norm W/(uᵀWv)", target)


def _masked(entries: Entries, target: str, weight: str, mask: str) -> Composed:
    def read() -> Array:
        return _read(entries, weight) * _read(entries, mask)

    return Composed(target, (weight, mask), entries[weight].shape, read, "pruned W⊙mask", target)


def _low_rank(entries: Entries, scaling: Scaling | None, transposed: bool) -> Iterator[Composed]:
    factors: dict[str, dict[str, dict[str, str]]] = defaultdict(lambda: defaultdict(dict))
    for name in entries:
        if match := _LORA.match(name):
            factors[match["layer"]][match["adapter"] or "default"][match["factor"]] = name
    for layer, adapters in factors.items():
        pairs = {adapter: (pair["A"], pair["B"]) for adapter, pair in adapters.items() if len(pair) == 2}
        for adapter, (a, b) in pairs.items():
            how = f"scaling·B·A of rank {entries[a].shape[0]}, " + (
                f"scaling {scaling(layer, entries[a].shape[0]):g}" if scaling else "scaling unknown, assumed to be 1"
            )
            read = _update_reader(entries, layer, a, b, scaling)
            name = f"{layer}.lora_update[{adapter}]"
            e = a.replace(".lora_A", ".lora_E")
            yield Composed(
                name,
                (a, b, *([e] if e in entries else [])),
                _update_shape(entries, a, b),
                read,
                how,
                f"{layer}.lora_update.weight",
                "lora",
            )
        base = next((n for n in (f"{layer}.base_layer.weight", f"{layer}.weight") if n in entries), None)
        if base is not None and scaling is not None and len(pairs) == 1:
            ((a, b),) = pairs.values()
            update, shape = _update_reader(entries, layer, a, b, scaling), _update_shape(entries, a, b)
            length = next((n for n in entries if n.startswith(f"{layer}.lora_magnitude_vector")), None)
            if entries[base].shape not in (shape, shape[::-1]):
                continue
            flip = entries[base].shape != shape or (transposed and shape[0] == shape[-1])
            yield Composed(
                f"{layer}.merged_weight",
                (base, a, b, *([length] if length else [])),
                entries[base].shape,
                _merged_reader(entries, base, update, flip, length),
                "the base weight with its update" + (" and DoRA's lengths" if length else ""),
                f"{layer}.weight",
                "lora",
            )


def _update_shape(entries: Entries, a: str, b: str) -> tuple[int, ...]:
    return (entries[b].shape[0], *entries[a].shape[1:])


def _update_reader(entries: Entries, layer: str, a: str, b: str, scaling: Scaling | None) -> Callable[[], Array]:
    def read() -> Array:
        first, second = _read(entries, a), _read(entries, b)
        rank = first.shape[0]
        if (e := a.replace(".lora_A", ".lora_E")) != a and e in entries:  # AdaLoRA's singular values
            first = first * _read(entries, e).reshape(rank, *(1,) * (first.ndim - 1))
        product = second.reshape(second.shape[0], rank) @ first.reshape(rank, math.prod(first.shape[1:]))
        return product.reshape(_update_shape(entries, a, b)) * (scaling(layer, rank) if scaling else 1.0)

    return read


def _merged_reader(
    entries: Entries, base: str, update: Callable[[], Array], flip: bool, length: str | None
) -> Callable[[], Array]:
    def read() -> Array:
        merged = _read(entries, base) + (update().T if flip else update())
        if length is None:
            return merged
        # DoRA (Liu et al. 2024): each output's weights have a learned length, m·V/‖V‖.
        axes = tuple(i for i in range(merged.ndim) if i != (merged.ndim - 1 if flip else 0))
        norm = np.sqrt(np.sum(np.square(merged), axis=axes, keepdims=True))
        return merged * (_read(entries, length).reshape(norm.shape) / norm)

    return read
