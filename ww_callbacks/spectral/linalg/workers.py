"""Processes several layers in parallel, with one LAPACK thread each.

LAPACK scales badly over threads for the sizes of weight matrices, and its threads compete with the trainer's. NumPy's
linear algebra releases the interpreter lock, so threads over layers use all requested cores.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from threading import Lock
from typing import TypeVar

import threadpoolctl

Item = TypeVar("Item")
Result = TypeVar("Result")


def available_cores() -> int:
    """Number of cores that this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # macOS and Windows have no affinity.
        return os.cpu_count() or 1


_WORTHWHILE = 2e7
"""Total cost, in multiplications, below which threads only slow each other down."""


class WorkerPool:
    """Maps a function over layers with a fixed number of threads, each with one BLAS thread.

    The BLAS thread setting is process-wide: it is 1 while any :meth:`map` runs and is restored afterwards, also after
    an exception. No thread remains between calls. After an exception or Ctrl-C, no further items start.

    Args:
        workers: number of layers in parallel; None for all cores that the process may use.

    Raises:
        ValueError: if ``workers`` is not a positive whole number.
    """

    def __init__(self, workers: int | None = None) -> None:
        if workers is None:
            workers = available_cores()
        if isinstance(workers, bool) or not isinstance(workers, int) or workers < 1:
            raise ValueError(
                f"Expected `workers` to be a whole number from 1, or None for all cores, but got {workers!r}."
            )
        self.workers = workers

    def map(
        self,
        function: Callable[[Item], Result],
        items: Iterable[Item],
        cost: Callable[[Item], float] | None = None,
    ) -> list[Result]:
        """``[function(item) for item in items]``, in parallel, with results in the order of the items.

        Args:
            function: processes one item; its exceptions are raised here.
            items: the items.
            cost: the cost of an item in multiplications; the most expensive start first, so that no long one remains at
                the end; if all are cheap, no thread is started.
        """
        items = list(items)
        costs = [cost(item) for item in items] if cost else []
        order = sorted(range(len(items)), key=lambda i: -costs[i]) if costs else list(range(len(items)))
        alone = self.workers == 1 or len(items) <= 1 or (bool(costs) and sum(costs) < _WORTHWHILE)
        results: dict[int, Result] = {}
        with _ONE_THREAD:
            if alone:
                for i in order:
                    results[i] = function(items[i])
            else:
                with ThreadPoolExecutor(min(self.workers, len(items)), thread_name_prefix="spectral") as executor:
                    try:
                        futures = {i: executor.submit(function, items[i]) for i in order}
                        wait(futures.values(), return_when=FIRST_EXCEPTION)
                        results = {i: future.result() for i, future in futures.items()}
                    finally:
                        executor.shutdown(wait=False, cancel_futures=True)
        return [results[i] for i in range(len(items))]


class _OneThread:
    """Limits BLAS to one thread while any context is active; restores the setting when the last one exits."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._inside = 0
        self._controller: threadpoolctl.ThreadpoolController | None = None

    def __enter__(self) -> None:
        with self._lock:
            if self._inside == 0:
                if self._controller is None:
                    import scipy.linalg  # noqa: F401  # SciPy has its own BLAS, which is found only after import

                    # The BLAS libraries of NumPy and SciPy; searching them takes milliseconds, so it is done once.
                    self._controller = threadpoolctl.ThreadpoolController()
                _let_any_thread_set()
                self._limits = self._controller.limit(limits=1, user_api="blas")
            self._inside += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._inside -= 1
            if self._inside == 0:
                _let_any_thread_set()
                self._limits.restore_original_limits()
                _let_any_thread_set()


def _let_any_thread_set() -> None:
    """Threadpoolctl 3.8 and later only lets the thread that first set OpenBLAS's threads change them while it is
    alive.
    """
    clear = getattr(threadpoolctl.OpenBLASController, "clear_controlling_thread", None)
    if clear is not None:
        clear(force=True)


_ONE_THREAD = _OneThread()
