"""Short names of layers for axis labels."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import groupby, takewhile

from ww_callbacks.integrations.figures.text import escape

BETWEEN = " · "
"""Separator that replaces omitted components between a block and its layer."""
_SHORTEST = 5
_UPDATE = re.compile(r"(?<![^./])lora_update(\[[^\]]*\])?$")


def short_names(layers: Sequence[str], width: int = 28) -> list[str]:
    """Names for axis labels: short, unique, escaped; digits are never removed.

    Components that all names share before the block's number are omitted, and those after it that are not needed to
    distinguish the block's layers. Names that are still too long have their longest words shortened.

    >>> short_names(["net.h.1.attn.c_attn.weight[q]", "net.h.11.attn.c_attn.weight[q]", "net.h.11.mlp.c_fc.weight"])
    ['h.1 · c_attn[q]', 'h.11 · c_attn[q]', 'h.11 · c_fc']
    >>> short_names(["net/dense/kernel", "net/dense_1/kernel"])
    ['net/dense', 'net/dense_1']
    >>> short_names(["1.weight", "3.weight"])
    ['1.weight', '3.weight']
    >>> short_names([f"base_model.model.model.layers.{i}.q_proj.lora_update[default]" for i in (0, 1)])
    ['layers.0 · LoRA', 'layers.1 · LoRA']
    """
    split = [_Name.of(name) for name in _without_end(_adapters_in_words(layers))]
    shared = _shared_start(split)
    taken = [1] * len(split)
    while True:
        short = [name.text(shared, count) for name, count in zip(split, taken, strict=True)]
        unclear = {
            name.inner[-count:] for name, count, text in zip(split, taken, short, strict=True) if short.count(text) > 1
        }
        # All blocks use the same name for the same layer.
        grown = [
            count + (name.inner[-count:] in unclear and count < len(name.inner))
            for name, count in zip(split, taken, strict=True)
        ]
        if grown == taken:
            break
        taken = grown
    if len(set(short)) < len(short):
        short = list(layers)
    cut = [_shortened(name, width) for name in short]
    return [escape(name if cut.count(name) == 1 else whole) for name, whole in zip(cut, short, strict=True)]


def blocks(layers: Sequence[str]) -> list[int]:
    """The positions at which a new block begins, for layers in depth order.

    >>> blocks(["wte", "h.0.attn", "h.0.mlp", "h.1.attn", "head"])
    [0, 1, 3, 4]
    """
    keys = [_Name.of(name).block or (name,) for name in layers]
    starts, at = [], 0
    for _, group in groupby(keys):
        starts.append(at)
        at += len(list(group))
    return starts


class _Name:
    """Split a name into the components up to the block's number and those in the block, with separators."""

    def __init__(self, block: tuple[str, ...], inner: tuple[str, ...]) -> None:
        self.block, self.inner = block, inner

    @classmethod
    def of(cls, name: str) -> _Name:
        parts = re.findall(r"[^./]+[./]?|[./]", name)
        numbered = next((at for at, part in enumerate(parts[:-1]) if re.fullmatch(r"\w*?\d+[./]", part)), None)
        end = 0 if numbered is None else numbered + 1
        return cls(tuple(parts[:end]), tuple(parts[end:]))

    def text(self, shared: tuple[str, ...], count: int) -> str:
        """The name with ``count`` of the inner components, without the components ``shared`` at its start."""
        if not self.block:
            pairs = zip(self.inner[:-1], shared, strict=False)
            same = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
            return "".join(self.inner[same:])
        block = "".join(self.block[len(shared) :])
        inner = self.inner[-count:]
        # A number is meaningless without the word before it.
        if re.fullmatch(r"\d+[./]?", inner[0]) and len(self.inner) > count:
            inner = self.inner[-count - 1 :]
        if len(inner) == len(self.inner) == 1:
            return block + inner[0]
        return f"{block.rstrip('./')}{BETWEEN}{''.join(inner)}"


def _adapters_in_words(layers: Sequence[str]) -> list[str]:
    """The names with ``LoRA`` for an adapter's update and ``merged`` for its sum with the weights.

    The adapter's name is omitted if there is only one.
    """
    adapters = {match[1] for name in layers if (match := _UPDATE.search(name))}
    update = "LoRA" if len(adapters) < 2 else r"LoRA\1"
    words = [re.sub(r"(?<![^./])merged_(?:weight|kernel)$", "merged", _UPDATE.sub(update, name)) for name in layers]
    return words if len(set(words)) == len(words) else list(layers)


def _without_end(layers: Sequence[str]) -> list[str]:
    """The names without a last component such as ``weight``, if other components remain."""
    found = [
        re.fullmatch(r"(.*?[^./\d][^./]*|.+[./].+)[./](?:weight|kernel)((?:\[[^\]]*\])?)", name) for name in layers
    ]
    ends = [name if match is None else match[1] + match[2] for name, match in zip(layers, found, strict=True)]
    return ends if len(layers) > 1 and len(set(ends)) == len(layers) else list(layers)


def _shared_start(names: Sequence[_Name]) -> tuple[str, ...]:
    """The leading components that all names share; the word before a block's number is kept."""
    blocks = [name.block for name in names if name.block]
    if len(blocks) < 2:
        return ()
    most = max(min(len(block) - (2 if block[-1].strip("./").isdigit() else 1) for block in blocks), 0)
    shared = next((at for at in range(most) if len({block[at] for block in blocks}) > 1), most)
    return blocks[0][:shared]


def _shortened(name: str, width: int) -> str:
    """``name`` with its longest words shortened until it fits, if possible."""
    while len(name) > width:
        word = max(re.findall(r"[^\W\d_]+(?!…)", name), key=len, default="")
        if len(word) <= _SHORTEST:
            break
        keep = max(_SHORTEST - 1, len(word) - (len(name) - width) - 1)
        name = re.sub(rf"(?<![^\W\d_]){word}(?![^\W\d_…])", word[:keep] + "…", name, count=1)
    return name
