"""Closing what is still open when the interpreter ends: no framework tells a callback of every way a run can end."""

from __future__ import annotations

import atexit
import weakref
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ww_callbacks.run import Run

_open: weakref.WeakSet[Run] = weakref.WeakSet()


def close_at_exit(run: Run) -> None:
    """Reach the verdict and close the sinks at the latest when the interpreter ends (Ctrl-C, an exception in Keras)."""
    _open.add(run)


@atexit.register
def _close() -> None:
    for run in list(_open):
        run.abandon()
