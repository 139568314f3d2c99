"""Measuring during training: a bounded queue and one thread that processes it."""

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
"""Maximum number of snapshots that wait or are being measured; each holds a copy of the weights."""

_NICENESS = 10


@dataclass(frozen=True)
class Done(Generic[Job, Result]):
    """A finished job.

    Attributes:
        job: the job.
        result: its result; None if it failed.
        error: the exception it raised.
    """

    job: Job
    result: Result | None
    error: Exception | None


class Background(Generic[Job, Result]):
    """Processes jobs in order, on one low-priority thread that starts with the first job.

    The thread runs at a lower priority if the system supports priorities for threads (Linux); threads that it starts
    inherit the priority. Only :meth:`flush` blocks.

    Args:
        work: the function that processes a job.
    """

    def __init__(self, work: Callable[[Job], Result]) -> None:
        self._work = work
        self._jobs: queue.Queue[Job | None] = queue.Queue()
        self._done: queue.Queue[Done[Job, Result]] = queue.Queue()
        self._open = 0
        self._thread: threading.Thread | None = None

    @property
    def full(self) -> bool:
        """Whether the queue is full: :data:`DEPTH` jobs are in progress."""
        return self._open >= DEPTH

    def submit(self, job: Job) -> None:
        """Add a job to the queue."""
        if self._thread is None or not self._thread.is_alive():
            # A daemon thread: the interpreter must not wait for a spectrum when it exits.
            self._thread = threading.Thread(target=self._run, name="spectral background", daemon=True)
            self._thread.start()
        self._open += 1
        self._jobs.put(job)

    @property
    def waiting(self) -> int:
        """Number of finished jobs that have not been returned yet."""
        return self._done.qsize()

    def finished(self, count: int) -> list[Done[Job, Result]]:
        """The oldest ``count`` finished jobs."""
        self._open -= count
        return [self._done.get() for _ in range(count)]

    def flush(self) -> list[Done[Job, Result]]:
        """Wait for all jobs, and return those finished since the last call."""
        found = [self._done.get() for _ in range(self._open)]
        self._open = 0
        return found

    def close(self) -> None:
        """Stop the thread once the queue is empty."""
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
            except Exception as error:  # passed on: the training thread reports it
                self._done.put(Done(job, None, error))
