"""Takes snapshots: inline or in the background, within a budget, on one process or shared by several."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from ww_callbacks.engine.accelerator import HostCopies
from ww_callbacks.engine.engine import Capture, Engine
from ww_callbacks.engine.snapshot_kind import Kind
from ww_callbacks.integrations.schema import LayerRow
from ww_callbacks.scheduling.background import Background, Done
from ww_callbacks.scheduling.budget import Budget, Choice
from ww_callbacks.scheduling.distributed import Group, SingleProcess, share
from ww_callbacks.scheduling.loop_metrics import mean_over_processes
from ww_callbacks.scheduling.meter import Meter
from ww_callbacks.spectral.linalg.workers import available_cores

MOST_WORKERS = 4
"""Each worker may need three float64 copies of its layer's largest matrix."""


def default_workers(background: bool) -> int:
    """Number of layers measured in parallel if the user sets none.

    One in the background. Inline, the training waits and its threads are idle, so as many as it has threads (launchers
    of several processes on one machine limit these), up to :data:`MOST_WORKERS`.
    """
    if background:
        return 1
    torch = sys.modules.get("torch")
    threads = available_cores() if torch is None else min(torch.get_num_threads(), available_cores())
    return max(1, min(threads, MOST_WORKERS))


@dataclass(frozen=True)
class Measured:
    """A measured snapshot, ready to be published.

    Attributes:
        choice: what was measured.
        step, epoch: when it was taken, which may be earlier than now.
        metrics: the metrics of the loop at that time.
        rows: its rows from all processes, in depth order.
    """

    choice: Choice
    step: int
    epoch: float
    metrics: Mapping[str, float]
    rows: list[LayerRow]


@dataclass(frozen=True)
class _Job:
    choice: Choice
    step: int
    epoch: float
    metrics: Mapping[str, float]
    capture: Capture | None
    copies: HostCopies | None = None


_Rows = tuple[list[LayerRow], float]
"""Rows, and the seconds spent on spectra."""


class SnapshotTaker:
    """Decides what a snapshot measures, runs the measurement, and combines the results of all processes.

    Args:
        engine: the engine of this process.
        group: the processes that train together; with several, each method below is a collective.
        budget: limits the time spent.
        background: whether to measure in the background during training.
        workers: number of layers measured in parallel.
        warn_once: logs a warning once.
        fault: reports an internal error once, or raises it.
    """

    def __init__(
        self,
        engine: Engine,
        group: Group,
        budget: Budget,
        background: bool,
        workers: int,
        warn_once: Callable[..., None],
        fault: Callable[[str, Exception], None],
    ) -> None:
        self.engine = engine
        self._group = group
        self._budget = budget
        self._workers = workers
        self._warn_once = warn_once
        self._fault = fault
        self._background: Background[_Job, _Rows] | None = Background(self._rows) if background else None
        # The buffers of finished jobs, for the next ones: a second one is only made if two jobs are in progress.
        self._free: list[HostCopies] = []
        self._skipped: list[int] = []
        self.divide()

    def divide(self) -> None:
        """Split the current layers across the processes."""
        alone = self._group.size == 1
        self._own = None if alone else share(self.engine.specs, self._group.size)[self._group.rank]

    @property
    def skipped_last(self) -> int | None:
        """The step of the last snapshot, if it was skipped because the queue was full; None if it was taken."""
        return self._skipped[-1] if self._skipped else None

    @property
    def own(self) -> frozenset[str] | None:
        """The layers that this process measures; None for all."""
        return self._own

    def take(
        self, kind: Kind, step: int, epoch: float, metrics: Mapping[str, float], meter: Meter, now: bool = False
    ) -> list[Measured]:
        """Measure the due snapshot, or queue it.

        Args:
            kind: what is due.
            step: optimiser steps done.
            epoch: epochs completed.
            metrics: metrics of the loop.
            meter: the callback's cost so far.
            now: whether to measure it regardless of budget and queue, and wait for it.

        Returns:
            The snapshots that are ready to be published, oldest first.
        """
        ready: list[Measured] = []
        in_background = self._background is not None and not now
        if in_background:
            ready = self._ready(meter)
            if self._is_full():
                self._skipped.append(step)
                self._warn_once(
                    "the background queue is full: snapshots are skipped until it catches up. Measure less often, or "
                    "allow more `workers`",
                    "background full",
                )
                return ready
        elif self._background is not None:
            ready = self.flush(meter)
        wish: Choice | None = None
        if self._first:
            known = self.engine.specs, self.engine.states
            wish = self._budget.choose(kind, step, *known, meter, now)
        choice: Choice | None = self._group.broadcast(wish)
        if choice is None:
            return ready
        choice = self._with_skipped(choice)
        shared = self._group.size > 1
        if in_background:
            assert self._background is not None
            copies = self._free.pop() if self._free else HostCopies()
            capture = self.engine.capture(copies, keep=self._own)
            self._background.submit(_Job(choice, step, epoch, metrics, capture, copies))
            return ready
        # A single process reads each layer when it measures it; with sharded weights, all processes must read together.
        job = _Job(choice, step, epoch, metrics, self.engine.capture(keep=self._own) if shared else None)
        before = meter.spent
        rows, seconds = self._rows(job)
        ready.append(self._together(job, rows))
        self._budget.paid(meter.spent - before, seconds / self._workers)
        return ready

    def poll(self, meter: Meter) -> list[Measured]:
        """The snapshots finished in the background; none if several processes must agree on them first."""
        return [] if self._background is None or self._group.size > 1 else self._ready(meter)

    def flush(self, meter: Meter) -> list[Measured]:
        """Wait for the background, and return all snapshots to be published."""
        if self._background is None:
            return []
        return self._published(self._background.flush(), meter)

    def leave_group(self) -> None:
        """Continue without the other processes; snapshots that they had not finished are dropped."""
        if self._group.size > 1 and self._background is not None:
            self._background.flush()
        self._group = SingleProcess()

    def close(self, meter: Meter) -> None:
        """Stop the background thread, and report skipped snapshots that no later snapshot reported."""
        if self._background is not None:
            self._background.close()
        if skipped := self._budget.take_skipped():
            share = (self._budget.share or 0.0) * meter.elapsed
            self._warn_once(
                f"{skipped} up to the end: `max_overhead={self._budget.share:g}` allows {share:.2g} s of the "
                f"{meter.elapsed:.0f} s of the run, and {meter.spent:.2g} s are spent. Give a larger share to see "
                "more of a run like this one",
                "budget",
                "",
            )

    @property
    def _first(self) -> bool:
        return self._group.rank == 0

    def _rows(self, job: _Job) -> _Rows:
        rows = self.engine.measure(job.capture, job.choice.kind, job.choice.spectra)
        return rows, self.engine.spectral_seconds

    def _is_full(self) -> bool:
        assert self._background is not None
        return any(self._group.gather(self._background.full))

    def _ready(self, meter: Meter) -> list[Measured]:
        assert self._background is not None
        # The processes finish at different times; a snapshot is published once all have finished it.
        count = min(self._group.gather(self._background.waiting))
        return self._published(self._background.finished(count), meter)

    def _published(self, finished: list[Done[_Job, _Rows]], meter: Meter) -> list[Measured]:
        """The snapshots of finished jobs; a failed job has no rows, and there is no snapshot if no process has rows."""
        found = []
        for done in finished:
            if done.error is not None:
                self._fault("a snapshot in the background failed", done.error)
            if done.job.copies is not None:
                self._free.append(done.job.copies)
            rows, seconds = done.result or ([], 0.0)
            meter.add_background_time(seconds)
            found.append(self._together(done.job, rows))
        return [measured for measured in found if measured.rows]

    def _with_skipped(self, choice: Choice) -> Choice:
        if not self._skipped:
            return choice
        steps, self._skipped = ", ".join(map(str, self._skipped)), []
        words = f"the snapshot due at step {steps}: the background queue was full"
        return replace(choice, left_out="; ".join(filter(None, (choice.left_out, words))))

    def _together(self, job: _Job, rows: list[LayerRow]) -> Measured:
        """The rows of all processes; if only one process's weights contain NaN, the row's status reports it."""
        if self._group.size > 1:
            own = self._own or frozenset()
            states = {name: (self.engine.states[name].memory(), self.engine.states[name].changed) for name in own}
            assert job.capture is not None
            parts = self._group.gather((rows, states, job.capture.non_finite, job.metrics))
            rows = sorted((row for part in parts for row in part[0]), key=lambda row: row.index)
            for rank, (_, others, non_finite, _) in enumerate(parts):
                for name, (memory, changed) in others.items():
                    if name not in own:
                        self.engine.states[name].restore(memory)
                        self.engine.states[name].changed = changed
                rows = [self._condemned(row, rank) if row.layer in non_finite else row for row in rows]
            job = replace(job, metrics=mean_over_processes([part[3] for part in parts]))
        return Measured(job.choice, job.step, job.epoch, job.metrics, rows)

    def _condemned(self, row: LayerRow, rank: int) -> LayerRow:
        if row.status == "non-finite":
            return row
        self._warn_once(
            f"`{row.layer}` contains NaN or infinity on process {rank}, but not on the one that measures it", row.layer
        )
        values = {name: "" if isinstance(value, str) else float("nan") for name, value in row.values.items()}
        return replace(row, values=values, status="non-finite", density=None)
