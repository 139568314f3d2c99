"""Finds the caller of a hook: the object whose method is on the call stack."""

from __future__ import annotations

import sys
from typing import Any, TypeVar

T = TypeVar("T")


def caller(of: type[T]) -> T | None:
    """The nearest ``self`` up the call stack that is an instance of ``of``, or None.

    Keras and the HF Trainer do not pass a callback the object that runs it, but it is on the stack while a hook runs.
    """
    frame: Any = sys._getframe(1)
    while frame is not None:
        owner = frame.f_locals.get("self")
        if isinstance(owner, of):
            return owner
        frame = frame.f_back
    return None


def local(of: type, name: str) -> Any:
    """The local variable ``name`` of the nearest method up the call stack whose ``self`` is an ``of``, or None."""
    frame: Any = sys._getframe(1)
    while frame is not None:
        if isinstance(frame.f_locals.get("self"), of) and name in frame.f_locals:
            return frame.f_locals[name]
        frame = frame.f_back
    return None
