"""Finds the callbacks that read our values, so that the weights are measured when they do."""

from __future__ import annotations

from collections.abc import Iterator
from difflib import get_close_matches
from typing import Any

from ww_callbacks.integrations.scalars import PREFIX
from ww_callbacks.lightning.private import saves_at_step
from ww_callbacks.run import Run


class LogConsumers:
    """The callbacks and schedulers of a Trainer that monitor one of our values.

    Args:
        trainer: the Trainer.
    """

    def __init__(self, trainer: Any) -> None:
        self._callbacks = [c for c in trainer.callbacks if _name(c) or PREFIX in str(getattr(c, "filename", "") or "")]
        self._schedulers = [s for s in trainer.lr_scheduler_configs if _name(s)]

    def __bool__(self) -> bool:
        """Whether anything reads our values; each does so at the end of an epoch or a validation."""
        return bool(self._callbacks or self._schedulers)

    def at_step(self, trainer: Any, batch_idx: int) -> bool:
        """Whether one of them reads a value after this batch, before any validation."""
        schedulers = (s for s in self._schedulers if s.interval == "step" and (batch_idx + 1) % s.frequency == 0)
        return any(saves_at_step(c, trainer) for c in self._callbacks) or any(schedulers)

    def take_place(self, trainer: Any, ours: Any) -> None:
        """Move the callback before the first of them, because values must be published before they are read."""
        order = list(trainer.callbacks)
        first = next((i for i, c in enumerate(order) if c in self._callbacks), len(order))
        if first < order.index(ours):
            order.remove(ours)
            order.insert(first, ours)
            trainer.callbacks = order

    def check(self, run: Run) -> None:
        """Raise for a monitor that would end the run when it first reads a value.

        Raises:
            ValueError: if a name is not published (the message suggests similar ones), or for an α without evidence.
        """
        for who, name, strict in self._monitors():
            if name in run.scalars():
                continue
            known = sorted(run.monitorable())
            if name not in known:
                near = ", ".join(get_close_matches(name, known, n=3)) or f"{PREFIX}effective_rank/median"
                raise ValueError(f"{who} monitors {name!r}, which is not among the values published. Near it: {near}.")
            if name.startswith(f"{PREFIX}alpha") and strict:
                raise ValueError(
                    f"{who} monitors {name!r}, and no layer has enough evidence for an α yet: it would end the run at "
                    "its first read. Use `strict=False`, or monitor another value."
                )

    def _monitors(self) -> Iterator[tuple[str, str, bool]]:
        """Which callback monitors which value, and whether a missing value ends the run."""
        for one in (*self._callbacks, *self._schedulers):
            if name := _name(one):
                yield type(one).__name__, name, bool(getattr(one, "strict", False))


def _name(watching: Any) -> str:
    """The published value that ``watching`` monitors; empty if it monitors none."""
    name = str(getattr(watching, "monitor", None) or "")
    return name if name.startswith(PREFIX) else ""
