"""Matches the names of weights from two sources, which wrappers and training loops prefix differently."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field

Shape = tuple[int, ...]
Segments = tuple[str, ...]

_NO_PART = frozenset(
    {
        "_orig_mod",
        "_fsdp_wrapped_module",
        "_checkpoint_wrapped_module",
        "_forward_module",
        "base_layer",
        "module",
        "parametrizations",
    }
)
"""Segments that wrappers put into a name anywhere."""
_LEAVES = {"merged_weight": "weight", "merged_kernel": "kernel", "original": "weight"}


@dataclass(frozen=True)
class Renaming:
    """Which names mean the same.

    Attributes:
        theirs: one name → the other one.
        remark: what was done to the names, in words; empty where they are the same.
    """

    theirs: Mapping[str, str] = field(default_factory=dict)
    remark: str = ""


def printable(text: str) -> str:
    r"""``text`` with what a terminal could obey, as escape sequences, spelt out.

    A name in a file may contain any character; printed unescaped, it could move the cursor or change colours.

    >>> printable("fc.\x1b[2Jweight")
    'fc.\\x1b[2Jweight'
    """
    if text.isprintable():
        return text
    spelt = (c if c.isprintable() or c == "\n" else c.encode("unicode_escape", "surrogatepass").decode() for c in text)
    return "".join(spelt)


def segments(name: str) -> Segments:
    """The parts of ``name`` without those that wrappers put into it.

    >>> segments("module.encoder/0.base_layer.weight")
    ('encoder', '0', 'weight')
    """
    parts = [part for part in re.split(r"[./]", name) if part not in _NO_PART]
    return (*parts[:-1], _LEAVES.get(parts[-1], parts[-1])) if parts else (name,)


def renaming(ours: Mapping[str, Shape | None], theirs: Mapping[str, Shape]) -> Renaming:
    """Match names by what they have in common at their end.

    Names that are the same but for wrappers go together. If those are less than half, one prefix is looked for that
    makes most of the names the same when it is dropped, or put in the place of another; it must explain at least half
    of the names of the smaller side, and no other prefix as many.

    Args:
        ours: name → shape, None for any.
        theirs: name → shape.

    >>> renaming({"fc.0.weight": (3, 2)}, {"model.net.fc.0.weight": (3, 2)})
    Renaming(theirs={'fc.0.weight': 'model.net.fc.0.weight'}, remark='names matched without the prefix `model.net.`')
    """
    by_segments: dict[Segments, list[str]] = defaultdict(list)
    for name in theirs:
        by_segments[segments(name)].append(name)

    def find(name: str, parts: Segments) -> str | None:
        same = [other for other in by_segments.get(parts, ()) if ours[name] in (None, theirs[other])]
        return name if name in same else same[0] if same else None

    found = {name: other for name in ours if (other := find(name, segments(name))) is not None}
    if 2 * len(found) >= min(len(ours), len(theirs)):
        return Renaming(found)
    # Every ending of their names, so that the longest common one is one look-up away.
    endings: dict[Segments, set[Segments]] = defaultdict(set)
    for parts in by_segments:
        for i in range(len(parts)):
            endings[parts[i:]].add(parts)
    votes: Counter[tuple[Segments, Segments]] = Counter()
    for name in ours:
        parts = segments(name)
        for i in range(len(parts)):
            others = [
                o for o in endings.get(parts[i:], ()) if any(ours[name] in (None, theirs[n]) for n in by_segments[o])
            ]
            if others:
                # One segment, as `weight`, is too little in common unless it is the whole name.
                bare = len(parts) - i < 2
                votes.update(
                    (parts[:i], o[: len(o) - len(parts) + i]) for o in others if not bare or i == 0 or len(o) == 1
                )
                break
    if not votes:
        return Renaming(found)
    (best, count), *rest = votes.most_common(2)
    if 2 * count < min(len(ours), len(theirs)) or (rest and rest[0][1] == count):
        return Renaming(found)
    here, there = best
    prefixed = {
        name: other
        for name in ours
        if (parts := segments(name))[: len(here)] == here
        and (other := find(name, (*there, *parts[len(here) :]))) is not None
    }
    if len(prefixed) <= len(found):
        return Renaming(found)
    dropped = [f"`{'.'.join(part)}.`" for part in best if part]
    remark = "names matched without the prefix " + " here and ".join(dropped) + (" there" if len(dropped) > 1 else "")
    return Renaming(prefixed, remark)
