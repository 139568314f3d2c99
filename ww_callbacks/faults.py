"""Errors of our own: kept out of the training loop, and said once."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

logger = logging.getLogger("ww_callbacks")


class Faults:
    """Says each fault once, and lets training go on.

    Args:
        strict: raise an error of ours instead of saying it.
    """

    def __init__(self, strict: bool = False) -> None:
        self._strict = strict
        self._said: set[str] = set()

    def warn_once(self, message: str, key: str, ending: str = " Training continues.") -> None:
        """Say ``message``, once for each ``key``."""
        if key not in self._said:
            self._said.add(key)
            logger.warning("ww-callbacks: %s.%s", message, ending)

    def fault(self, what: str, error: Exception) -> None:
        """Say an error of ours.

        Raises:
            Exception: ``error`` itself, if strict.
        """
        if self._strict:
            raise error
        self.warn_once(f"{what} ({type(error).__name__}: {error})", what)

    @contextmanager
    def guard(self, doing: str) -> Iterator[None]:
        """Say what the block raises and go on after it."""
        try:
            yield
        except Exception as error:
            self.fault(f"{doing} failed", error)
