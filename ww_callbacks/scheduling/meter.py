"""Measures the callback's own cost."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager


class Meter:
    """Wall time spent in the callback, relative to the wall time of the run without it."""

    def __init__(self) -> None:
        self._began = time.perf_counter()
        self._depth = 0
        self._entered = 0.0
        self._spent = 0.0
        self._reported = 0.0
        self._background_seconds = 0.0

    @contextmanager
    def running(self) -> Iterator[None]:
        """Count the time inside the block; blocks may be nested."""
        if self._depth == 0:
            self._entered = time.perf_counter()
        self._depth += 1
        try:
            yield
        finally:
            self._depth -= 1
            if self._depth == 0:
                self._spent += time.perf_counter() - self._entered

    def shift(self, spent: float, elapsed: float) -> None:
        """Continue from the time that an earlier part of the run spent here and lasted, in seconds."""
        self._spent += spent
        self._reported += spent
        self._began -= elapsed

    def add_background_time(self, seconds: float) -> None:
        """Count the processor time that worker threads used during training."""
        self._background_seconds += seconds

    @property
    def spent(self) -> float:
        """Seconds that the training thread has spent in the callback so far."""
        return self._spent + (time.perf_counter() - self._entered if self._depth else 0.0)

    @property
    def elapsed(self) -> float:
        """Seconds since the run began."""
        return time.perf_counter() - self._began

    @property
    def overhead(self) -> float:
        """Time spent, relative to the time that the run would have taken without it (0.01 is 1 %)."""
        return self.spent / max(self.elapsed - self.spent, 1e-9)

    def allowance(self, share: float) -> float:
        """Seconds that may be spent now while the cost stays below ``share`` of the time without it."""
        spent = self.spent + self._background_seconds
        return share * max(self.elapsed - self.spent, 0.0) - spent

    def lap(self) -> float:
        """Seconds spent since the last lap."""
        spent = self.spent
        lap, self._reported = spent - self._reported, spent
        return lap
