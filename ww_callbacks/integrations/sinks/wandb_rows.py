"""Rows of ours in a W&B run whose counter of steps is the user's alone."""

from __future__ import annotations

import atexit
import contextlib
from collections import deque
from collections.abc import Mapping
from typing import Any
from weakref import WeakSet

_WITH_ROWS: WeakSet[OpenRows] = WeakSet()


class OpenRows:
    """Adds rows to those that the user's code logs, and never ends one.

    A call of ``run.log`` without a step moves W&B's counter, and W&B then drops for good what the user logs under a
    smaller ``step=``. So a row of ours goes into the row that is open (``commit=False``), one into each; what is left
    waits for the next row of the user's, or for the end of the W&B run, when nothing comes after it.

    Tried with W&B 0.31, of which ``run._teardown_hooks`` is not documented; without it the rows that are left
    go out when the interpreter exits.

    Args:
        run: the user's run.
    """

    def __init__(self, run: Any) -> None:
        self._run = run
        self._waiting: deque[dict[str, Any]] = deque()
        self._filled: int | None = None
        hooks = getattr(run, "_teardown_hooks", None)
        if isinstance(hooks, list):
            from wandb.sdk.wandb_run import TeardownHook, TeardownStage

            hooks.append(TeardownHook(self.flush, TeardownStage.EARLY))
        if not _WITH_ROWS:
            atexit.register(_flush_all)
        _WITH_ROWS.add(self)

    def add(self, values: Mapping[str, Any]) -> None:
        """Send ``values`` as a row: now where a row of the user's is open that has none of ours yet, else later."""
        self._waiting.append(dict(values))
        self.drain()

    def drain(self) -> None:
        """Send the oldest row that waits, where there is an open row for it."""
        if not self._waiting:
            return
        step = self._step()
        if step is None:
            self._run.log(self._waiting.popleft())
        elif step != self._filled:
            self._run.log(self._waiting.popleft(), commit=False)
            self._filled = step

    def _step(self) -> int | None:
        """The number of the row that is open; None where W&B does not number rows (disabled and shared runs)."""
        try:
            return int(self._run.step)
        except (AssertionError, AttributeError, TypeError, ValueError):
            return None

    def flush(self) -> None:
        """Send all that waits, as rows of their own; to be called when the user logs nothing more."""
        if self._waiting and self._filled is not None and self._step() == self._filled:
            self._run.log({}, commit=True)  # the open row has one of ours already
        while self._waiting:
            self._run.log(self._waiting.popleft())


def _flush_all() -> None:
    for rows in list(_WITH_ROWS):
        with contextlib.suppress(Exception):  # the run has been finished, or its service is gone
            rows.flush()
