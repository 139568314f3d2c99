"""Measuring beside the training: a bounded queue and one thread that works through it."""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Generic, TypeVar

Job = TypeVar("Job")
Result = TypeVar("Result")

DEPTH = 2
"""Snapshots that may wait or be measured at a time; each holds a copy of the weights."""

_NICENESS = 10


@dataclass(frozen=True)
class Done(Generic[Job, Result]):
    """A job that was worked off.

    Attributes:
        job: the job.
        result: what came of it, None where it failed.
        error: what it raised.
    """

    job: Job
    result: Result | None
    error: Exception | None


class Background(Generic[Job, Result]):
    """Works off jobs in order, on one thread that starts with the first and yields to the training.

    The thread runs at a lower priority where the system has priorities for threads (Linux); the threads that it starts
    inherit that. Nothing is waited for but by :meth:`flush`.

    Args:
        work: what to do with a job.
    """

    def __init__(self, work: Callable[[Job], Result]) -> None:
        self._work = work
        self._jobs: queue.Queue[Job | None] = queue.Queue()
        self._done: queue.Queue[Done[Job, Result]] = queue.Queue()
        self._open = 0
        self._thread: threading.Thread | None = None

    @property
    def full(self) -> bool:
        """Whether another job would have to wait too long: :data:`DEPTH` are under way."""
        return self._open >= DEPTH

    def submit(self, job: Job) -> None:
        """Put a job into the queue."""
        if self._thread is None or not self._thread.is_alive():
            # A daemon: an interpreter that is going down must not wait for a spectrum.
            self._thread = threading.Thread(target=self._run, name="spectral background", daemon=True)
            self._thread.start()
        self._open += 1
        self._jobs.put(job)

    @property
    def waiting(self) -> int:
        """How many jobs have been worked off and not been returned yet."""
        return self._done.qsize()

    def finished(self, count: int) -> list[Done[Job, Result]]:
        """The oldest ``count`` of what has been worked off."""
        self._open -= count
        return [self._done.get() for _ in range(count)]

    def flush(self) -> list[Done[Job, Result]]:
        """Wait for all jobs, and return what has been worked off since the last call."""
        found = [self._done.get() for _ in range(self._open)]
        self._open = 0
        return found

    def close(self) -> None:
        """Let the thread end once the queue is empty."""
        if self._thread is not None:
            self._jobs.put(None)
            self._thread.join()
            self._thread = None

    def _run(self) -> None:
        with suppress(OSError, AttributeError):
            own = threading.get_native_id()
            os.setpriority(os.PRIO_PROCESS, own, min(19, os.getpriority(os.PRIO_PROCESS, own) + _NICENESS))
        while (job := self._jobs.get()) is not None:
            try:
                self._done.put(Done(job, self._work(job), None))
            except Exception as error:  # handed over: it is the training thread that says it
                self._done.put(Done(job, None, error))
