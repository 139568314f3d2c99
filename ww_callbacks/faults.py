"""Internal errors: kept out of the training loop and reported once."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

logger = logging.getLogger("ww_callbacks")


class Faults:
    """Reports each internal error once and lets training continue.

    Args:
        strict: raise internal errors instead of reporting them.
    """

    def __init__(self, strict: bool = False) -> None:
        self._strict = strict
        self._said: set[str] = set()

    def warn_once(self, message: str, key: str, ending: str = " Training continues.") -> None:
        """Log ``message`` as a warning, once per ``key``."""
        if key not in self._said:
            self._said.add(key)
            logger.warning("ww-callbacks: %s.%s", message, ending)

    def fault(self, what: str, error: Exception) -> None:
        """Report an internal error.

        Raises:
            Exception: ``error`` itself, if strict.
        """
        if self._strict:
            raise error
        self.warn_once(f"{what} ({type(error).__name__}: {error})", what)

    @contextmanager
    def guard(self, doing: str) -> Iterator[None]:
        """Report an exception of the block and continue after it."""
        try:
            yield
        except Exception as error:
            self.fault(f"{doing} failed", error)
