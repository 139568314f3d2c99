"""Closes open runs when the interpreter exits, because no framework reports every way in which a run can end."""

from __future__ import annotations

import atexit
from collections.abc import Callable
from weakref import WeakMethod

_open: dict[int, WeakMethod[Callable[[], None]]] = {}


def close_at_exit(close: Callable[[], None]) -> None:
    """Call the bound method ``close`` when the interpreter exits (Ctrl-C, an exception in Keras).

    The object is not kept alive: once it is deleted, nothing is called.
    """
    reference = WeakMethod(close, lambda dead: _open.pop(id(dead), None) and None)
    _open[id(reference)] = reference


@atexit.register
def _close() -> None:
    for reference in list(_open.values()):
        if (close := reference()) is not None:
            close()
