"""One run under watch: engine, sinks, detectors and alerts, driven by an adapter."""

from __future__ import annotations

import math
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from html import escape
from pathlib import Path
from typing import Any

from integrations.console import ConsoleSink
from integrations.headline import scalars
from integrations.record import RecordSink, check_writable
from integrations.schema import LayerInfo, RunInfo, Snapshot, Verdict
from integrations.sink import Sink
from spectral.detectors import Observation
from spectral.layers.selection import select
from spectral.layers.spec import LayerSpec
from spectral.summary import STATISTICS, summarise
from ww_callbacks.alerts import AlertList
from ww_callbacks.budget import Budget
from ww_callbacks.cadence import Cadence, Kind, Plan
from ww_callbacks.closing import close_at_exit
from ww_callbacks.distributed import Alone, Group
from ww_callbacks.engine import Engine
from ww_callbacks.faults import Faults, logger
from ww_callbacks.judging import Judging
from ww_callbacks.measuring import Measured, Measuring, default_workers
from ww_callbacks.meter import Meter
from ww_callbacks.origin import Origin
from ww_callbacks.outlets import Outlets
from ww_callbacks.probing import Probing
from ww_callbacks.resume import capture_state, resumption
from ww_callbacks.settings import Settings
from ww_callbacks.state import Saved
from ww_callbacks.versions import versions


class Run:
    """One training run under watch.

    Args:
        settings: the callback's arguments.
        specs: every layer of the model, the skipped ones among them.
        framework: ``lightning``, ``keras``, ``huggingface`` or ``plain``.
        directory: folder of the record.
        sinks: where records go besides the record file and the console.
        write: prints one line without breaking the framework's progress bar; None for standard output.
        group: the processes that train together; only the first of them judges and publishes.
        probing: the representation probe, if the user gave one.
        refresh: gives the model's layers anew where its structure has changed since the last call, else None.

    Raises:
        ValueError: for what the user got wrong, before training starts.
        OSError: if the folder cannot be written.
    """

    def __init__(
        self,
        settings: Settings,
        specs: Sequence[LayerSpec],
        framework: str,
        directory: Path,
        sinks: Iterable[Sink] = (),
        write: Callable[[str], None] | None = None,
        group: Group | None = None,
        refresh: Callable[[], Sequence[LayerSpec] | None] | None = None,
        probing: Probing | None = None,
    ) -> None:
        self.settings = settings
        self.directory = Path(directory)
        self.framework = framework
        self.run_id = uuid.uuid4().hex[:12]
        self.last: Snapshot | None = None
        self.cadence = Cadence()
        self.meter = Meter()
        self.faults = Faults(settings.strict)
        self.judging = Judging(settings, specs, probing is not None, self.faults)
        self.probing = probing
        quantities = self.judging.quantities()
        workers = settings.workers or default_workers(settings.background)
        self.engine = Engine(self._chosen(specs), quantities, workers, settings.seed, settings.densities)
        self._group = group or Alone()
        self._refresh = refresh
        self._measuring = Measuring(
            self.engine,
            self._group,
            Budget(settings.max_overhead),
            settings.background,
            workers,
            self.faults.complain,
            self.faults.fault,
        )
        self.origin = Origin(settings, self.engine, self._measuring, self._group.rank)
        own: list[Sink] = [RecordSink(), ConsoleSink(write=write, verbose=settings.verbose)]
        self._outlets = Outlets([*own, *sinks] if self.leads else [], self.faults)
        self._known: dict[str, float] = {}
        self.step = 0
        """Optimiser steps done at the last snapshot."""
        self._first_step = 0
        self.resumed = False
        """Whether the run was taken up again where another had stopped."""
        self._started = False
        self._finished = False
        self._check_folder()

    @property
    def leads(self) -> bool:
        """Whether this process is the one that judges and publishes."""
        return self._group.rank == 0

    def _chosen(self, specs: Sequence[LayerSpec]) -> list[LayerSpec]:
        asked = self.settings
        return select(specs, asked.layers, asked.exclude, asked.types, asked.min_eigenvalues)

    def _check_folder(self) -> None:
        """Refuse a folder that cannot be written, on every process, so that none waits for another."""
        problem: OSError | None = None
        if self.leads:
            try:
                check_writable(self.directory)
            except OSError as error:
                problem = error
        problem = self._group.broadcast(problem)
        if problem is not None:
            raise problem

    @property
    def alerts(self) -> AlertList:
        """The alerts so far."""
        return self.judging.alerts

    @property
    def verdict(self) -> Verdict | None:
        """The judgement of the run so far; None before its first snapshot."""
        return self.judging.verdict

    @property
    def should_stop(self) -> bool:
        """Whether an alert asks for the run to be stopped."""
        return self.judging.stop is not None

    @property
    def stop_reason(self) -> str:
        """Why the run is to be stopped, in one sentence; empty if it is not."""
        stop = self.judging.stop
        return "" if stop is None else f"{stop.kind}: {stop.message} {stop.recommendation}"

    def scalars(self) -> dict[str, float]:
        """The model-level values by their tags, each as last known; what a framework's own callbacks can monitor."""
        return dict(self._known)

    def monitorable(self) -> set[str]:
        """The tags that :meth:`scalars` may come to hold."""
        headline = [q.name for q in self.engine.quantities if q.headline]
        names = {f"spectral/{name}/{statistic}" for name in headline for statistic in STATISTICS}
        always = ("alpha/share_sufficient", "overtraining/score", "overtraining/keep", "alerts", "overhead")
        return names | set(self._known) | {f"spectral/{name}" for name in always}

    def html(self) -> str:
        """The run so far, for a notebook."""
        said = self.verdict._repr_html_() if self.verdict else "<p>no verdict yet</p>"
        cost = f"{self.last.overhead:.1%} of training time" if self.last else "not measured yet"
        where = escape(str(self.directory))
        return f"{said}{self.alerts._repr_html_()}<p>Cost: {cost}. Record: <code>{where}</code></p>"

    def begin(self, plan: Plan, step: int = 0, epoch: float = 0.0, saved: Saved | None = None) -> None:
        """Take W_0, open the sinks and record the first snapshot; or go on with a run that was interrupted.

        Args:
            plan: the length of the run.
            step: optimiser steps done.
            epoch: epochs completed.
            saved: the state of the run to be taken up again; the weights must be those of its checkpoint already.
        """
        self.meter = Meter()
        settings = self.settings
        self.cadence = Cadence.resolve(
            settings.every_n_epochs, settings.every_n_steps, settings.cheap_every_n_steps, plan
        )
        with self.meter.running(), self.faults.guard("starting"):
            self._started = True
            self._first_step = step
            close_at_exit(self)
            resumed_at = None if saved is None else self._take_up(saved)
            self.run_id, self.directory = self._group.broadcast((self.run_id, self.directory))
            if resumed_at is None:
                self.origin.take(self.directory)
            self._outlets.each(lambda sink: sink.open(self.info(resumed_at), resumed_at is not None))
            if resumed_at is None:
                with self.faults.guard("a snapshot"):
                    self._snapshot("full", step, epoch, {}, now=True)

    def _take_up(self, saved: Saved) -> int | None:
        """Go on where ``saved`` was made.

        Returns:
            The step up to which the record counts; None if the run cannot be taken up, which is said.
        """
        problem = ""
        try:
            apply = resumption(self, saved)
        except (OSError, ValueError) as error:
            problem = str(error)
        problem = next(filter(None, self._group.gather(problem)), "")
        if problem:
            self.faults.complain(f"the run cannot be taken up again, so a new one begins ({problem})", "resume")
            return None
        self.resumed = True
        return apply()

    def saved(self, adapter: Mapping[str, Any] | None = None) -> Saved | None:
        """What a checkpoint made now needs for the run to be taken up from it; None before it has begun.

        Waits for snapshots in the background. Where the weights have moved on since the last snapshot, those of the
        last snapshot are part of it.

        Args:
            adapter: what the framework's adapter wants back.
        """
        if not self._started or not self.judging.snapshots:
            return None
        with self.meter.running(), self.faults.guard("saving the state"):
            self._publish_all(self._measuring.flush(self.meter))
            return capture_state(self, adapter or {})
        return None

    def info(self, resumed_at: int | None = None) -> RunInfo:
        """The header of the run's record."""
        layers = tuple(
            LayerInfo(s.name, i, s.kind, s.type, s.shape, s.matrix_shapes, s.note)
            for i, s in enumerate(self.engine.specs)
        )
        settings = {**self.settings.as_dict(), "cadence": str(self.cadence)}
        return RunInfo(
            self.run_id,
            self.framework,
            datetime.now(UTC).isoformat(timespec="seconds"),
            settings,
            versions(),
            layers,
            str(self.directory),
            resumed_at,
        )

    def snapshot(
        self, kind: Kind, step: int, epoch: float, metrics: Mapping[str, float] | None = None
    ) -> Snapshot | None:
        """Measure, judge, publish.

        Returns:
            The last snapshot that was published by it: None where a fault of ours prevented it (said once), where the
            budget does not allow it, or where it is still being measured in the background.
        """
        with self.meter.running(), self.faults.guard("a snapshot"):
            return self._snapshot(kind, step, epoch, metrics or {})
        return None

    def missed(self, step: int) -> bool:
        """Wait for the background, at the end; whether it had no room for the snapshot of ``step``, the last one."""
        with self.meter.running(), self.faults.guard("a snapshot"):
            self._publish_all(self._measuring.flush(self.meter))
        return self._measuring.skipped_last == step

    def poll(self) -> None:
        """Publish what the background has finished."""
        if self.settings.background:
            with self.meter.running(), self.faults.guard("a snapshot"):
                self._publish_all(self._measuring.poll(self.meter))

    def _snapshot(
        self, kind: Kind, step: int, epoch: float, metrics: Mapping[str, float], now: bool = False
    ) -> Snapshot | None:
        self._follow_structure()
        if self.probing is not None and kind == "full" and self.leads:
            with self.faults.guard("the probe"):
                self.probing.take(step, epoch)
        return self._publish_all(self._measuring.take(kind, step, epoch, metrics, self.meter, now))

    def _follow_structure(self) -> None:
        """Watch the layers that the model has now, where some have appeared or vanished."""
        specs = self._refresh() if self._refresh is not None else None
        if specs is None:
            return
        self._publish_all(self._measuring.flush(self.meter))
        new, gone = self.engine.replace(self._chosen(specs))
        if not new and not gone:
            return
        self._measuring.divide()
        if self.engine.baseline is not None and (missing := self.engine.without_baseline(new)):
            self.engine.baseline.extend(self.origin.of_later_layers(self.directory, missing))
        said = [f"{what} {', '.join(names)}" for what, names in (("new:", new), ("gone:", gone)) if names]
        self.faults.complain(
            f"the model has other layers than before ({'; '.join(said)}); W_0 of a new one is what it is now",
            "".join(said),
        )

    def _publish_all(self, measured: Iterable[Measured]) -> Snapshot | None:
        snapshot = None
        for one in measured:
            error: Exception | None = None
            if self.leads:
                try:
                    snapshot = self._publish(one)
                except Exception as raised:  # a policy of the user's own may; the others must not wait for ever
                    error = raised
            self._agree()
            if error is not None:
                raise error
        return snapshot

    def _agree(self) -> None:
        """Take over what the first process has judged, so that all act on it in the same step."""
        if self._group.size == 1:
            return
        self.judging.agree(self._group)
        self.step, self._known = self._group.broadcast((self.step, self._known))

    def _publish(self, measured: Measured) -> Snapshot:
        rows, kind, metrics = measured.rows, measured.choice.kind, measured.metrics
        step, epoch = measured.step, measured.epoch
        for row in rows:
            if row.status.startswith("failed"):
                self.faults.complain(
                    f"`{row.layer}` could not be measured ({row.status.removeprefix('failed: ')})", row.layer
                )
        found: dict[str, float] = {}
        if self.probing is not None:
            rows, found = self.probing.beside(step, rows)
        model = {**summarise([row.values for row in rows]), **found}
        observation = Observation(
            step,
            epoch,
            {r.layer: r.values for r in rows},
            metrics,
            full=kind == "full",
            status={r.layer: r.status for r in rows},
            changed={r.layer: r.changed for r in rows},
        )
        stopped = self.should_stop
        alerts, scores = self.judging.judge(observation)
        if self.should_stop and not stopped and self.settings.verbose == 0:
            logger.warning("ww-callbacks stops the training: %s", self.stop_reason)
        snapshot = Snapshot(
            step=step,
            epoch=epoch,
            kind=kind,
            rows=tuple(rows),
            model={**model, **scores, "alerts": float(len(self.alerts))},
            metrics={k: float(v) for k, v in metrics.items() if math.isfinite(v)},
            seconds=self.meter.lap(),
            overhead=self.meter.overhead if step > self._first_step else math.nan,
            time=self.meter.elapsed,
            left_out=measured.choice.left_out,
        )
        self.last = snapshot
        self.step = step
        self._known |= scalars(snapshot)
        self._outlets.each(lambda sink: sink.snapshot(snapshot))
        for alert in alerts:
            self._outlets.each(lambda sink, alert=alert: sink.alert(alert))  # type: ignore[misc]
        return snapshot

    def finish(self) -> None:
        """Reach the verdict and close the sinks; harmless when called twice."""
        if self._finished or not self._started:
            return
        self._finished = True
        with self.meter.running(), self.faults.guard("finishing"):
            try:
                self._publish_all(self._measuring.flush(self.meter))
            finally:
                self._measuring.close(self.meter)
                if self.leads:
                    self.judging.conclude()
        self._outlets.each(lambda sink: sink.close(self.verdict))

    def abandon(self) -> None:
        """Close without the other processes, which may be gone: publish what is there, and close the sinks."""
        if self._finished or not self._started:
            return
        self._group = Alone()
        self._measuring.leave_group()
        self.finish()

    @contextmanager
    def guarded(self, doing: str) -> Iterator[None]:
        """Count the time inside the block, and keep an error of ours out of the training loop, but for ``strict``."""
        with self.meter.running(), self.faults.guard(doing):
            yield
