"""Adds rows to a W&B run without advancing the user's step."""

from __future__ import annotations

import atexit
import contextlib
from collections import deque
from collections.abc import Mapping
from typing import Any
from weakref import WeakSet

_WITH_ROWS: WeakSet[OpenRows] = WeakSet()


class OpenRows:
    """Adds values to the rows that the user's code logs, and never commits a row.

    A call of ``run.log`` without a step advances W&B's step, and W&B then permanently drops what the user logs with a
    smaller ``step=``. So each of our rows is merged into the user's open row (``commit=False``), one per row; the
    others wait for the user's next rows, or for the end of the W&B run.

    Tried with W&B 0.31, whose ``run._teardown_hooks`` is not documented; without it the remaining rows are sent when
    the interpreter exits.

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
        """Send ``values`` as a row: now if the user's open row has none of ours yet, otherwise later."""
        self._waiting.append(dict(values))
        self.drain()

    def drain(self) -> None:
        """Send the oldest pending row, if there is an open row for it."""
        if not self._waiting:
            return
        step = self._step()
        if step is None:
            self._run.log(self._waiting.popleft())
        elif step != self._filled:
            self._run.log(self._waiting.popleft(), commit=False)
            self._filled = step

    def _step(self) -> int | None:
        """The number of the open row; None if W&B does not number rows (disabled and shared runs)."""
        try:
            return int(self._run.step)
        except (AssertionError, AttributeError, TypeError, ValueError):
            return None

    def flush(self) -> None:
        """Send all pending rows as separate rows; call this when the user logs nothing more."""
        if self._waiting and self._filled is not None and self._step() == self._filled:
            self._run.log({}, commit=True)  # the open row already has one of ours
        while self._waiting:
            self._run.log(self._waiting.popleft())


def _flush_all() -> None:
    for rows in list(_WITH_ROWS):
        with contextlib.suppress(Exception):  # the run has been finished, or its service has ended
            rows.flush()
