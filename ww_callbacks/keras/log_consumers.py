"""Finds the callbacks that read our values in ``logs``, so that they are measured at the end of each epoch."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches
from typing import Any

from ww_callbacks.integrations.scalars import PREFIX
from ww_callbacks.run import Run


class LogConsumers:
    """The callbacks of a ``fit`` that monitor one of our values.

    Args:
        callbacks: those of the ``fit``.

    Raises:
        ValueError: for one that reads within an epoch, when ``logs`` does not contain our values.
    """

    def __init__(self, callbacks: Sequence[Any]) -> None:
        self._who = {name: type(c).__name__ for c in callbacks if (name := _name(c))}
        self._any = bool(self._who) or any(PREFIX in str(getattr(c, "filepath", "")) for c in callbacks)
        for callback in callbacks:
            frequency = getattr(callback, "save_freq", "epoch")
            if _name(callback) and frequency != "epoch" and getattr(callback, "save_best_only", False):
                raise ValueError(
                    f"{type(callback).__name__}(save_freq={frequency!r}) looks for {_name(callback)!r} within epochs, "
                    "when Keras only provides the losses of batches. Use save_freq='epoch'."
                )

    def __bool__(self) -> bool:
        """Whether anything reads our values."""
        return self._any

    @property
    def names(self) -> frozenset[str]:
        """The values that are monitored."""
        return frozenset(self._who)

    def check(self, run: Run) -> None:
        """Raise for a monitor that Keras would never find.

        Raises:
            ValueError: if a name is not published; the message suggests similar ones.
        """
        known = run.monitorable()
        for name, who in self._who.items():
            if name not in known:
                near = ", ".join(get_close_matches(name, sorted(known), n=3)) or f"{PREFIX}effective_rank/median"
                raise ValueError(f"{who} monitors {name!r}, which is not among the values published. Near it: {near}.")


def _name(watching: Any) -> str:
    """The published value that ``watching`` monitors; empty if it monitors none."""
    name = str(getattr(watching, "monitor", None) or "")
    return name if name.startswith(PREFIX) else ""
