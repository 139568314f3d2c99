"""One run under watch: engine, sinks, detectors and alerts, driven by an adapter."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from html import escape
from pathlib import Path
from typing import Any

from ww_callbacks.diagnosis.alerts import AlertList
from ww_callbacks.diagnosis.diagnosis import Diagnosis
from ww_callbacks.engine.engine import Engine
from ww_callbacks.engine.snapshot_kind import Kind
from ww_callbacks.faults import Faults
from ww_callbacks.integrations.record import RecordSink, check_writable, claim
from ww_callbacks.integrations.schema import LayerInfo, RunInfo, Snapshot, Verdict
from ww_callbacks.integrations.sinks.console import ConsoleSink
from ww_callbacks.integrations.sinks.sink import Sink
from ww_callbacks.lifecycle.exit_hooks import close_at_exit
from ww_callbacks.lifecycle.initial_weights import InitialWeights
from ww_callbacks.lifecycle.package_versions import versions
from ww_callbacks.lifecycle.progress import Progress
from ww_callbacks.lifecycle.resume import RunParts, capture_state, resumption
from ww_callbacks.lifecycle.saved_state import Saved
from ww_callbacks.probes.probe_runner import Probing
from ww_callbacks.publishing.publisher import Publisher
from ww_callbacks.publishing.sink_group import SinkGroup
from ww_callbacks.scheduling.budget import Budget
from ww_callbacks.scheduling.cadence import Cadence, Plan
from ww_callbacks.scheduling.clock import Clock
from ww_callbacks.scheduling.distributed import Group, SingleProcess
from ww_callbacks.scheduling.meter import Meter
from ww_callbacks.scheduling.snapshots import Measured, SnapshotTaker, default_workers
from ww_callbacks.settings import Settings
from ww_callbacks.spectral.aggregate.summary import STATISTICS, UPDATES
from ww_callbacks.spectral.layers.selection import select
from ww_callbacks.spectral.layers.spec import LayerSpec
from ww_callbacks.spectral.measuring.accuracy import check_accuracy, without_effect


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
        refresh: gives the model's layers again where its structure has changed since the last call, else None.

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
        self.specs = list(specs)
        """Every layer of the model, the skipped ones among them, as it was when the run was made."""
        self.progress = Progress(Path(directory))
        self.framework = framework
        self.cadence = Cadence()
        self.clock = Clock()
        self.meter = Meter()
        self.faults = Faults(settings.strict)
        self.diagnosis = Diagnosis(settings, specs, probing is not None, self.faults)
        self.probing = probing
        quantities = self.diagnosis.quantities()
        workers = settings.workers or default_workers(settings.background)
        self.engine = Engine(
            self._chosen(specs),
            quantities,
            workers,
            settings.seed,
            settings.densities,
            check_accuracy(settings.accuracy),
        )
        self._group = group or SingleProcess()
        self._refresh = refresh
        self._measuring = SnapshotTaker(
            self.engine,
            self._group,
            Budget(settings.max_overhead),
            settings.background,
            workers,
            self.faults.warn_once,
            self.faults.fault,
        )
        self.initial_weights = InitialWeights(settings, self.engine, self._measuring, self._group.rank)
        self.console = ConsoleSink(write=write, verbose=settings.verbose)
        own: list[Sink] = [RecordSink(warn=self._warn), self.console]
        self._sinks = SinkGroup([*own, *sinks, *settings.sinks] if self.leads else [], self.faults)
        self._publisher = Publisher(
            self._sinks, self.diagnosis, self.progress, self.faults, probing, quiet=settings.verbose == 0
        )
        self._check_folder()
        self._say_what_accuracy_does()

    @property
    def directory(self) -> Path:
        """Folder of the record."""
        return self.progress.directory

    @property
    def last(self) -> Snapshot | None:
        """The last snapshot published; None before the first."""
        return self.progress.last

    @property
    def step(self) -> int:
        """Optimiser steps done at the last snapshot."""
        return self.progress.step

    @property
    def resumed(self) -> bool:
        """Whether the run continues an earlier one."""
        return self.progress.resumed

    def _parts(self) -> RunParts:
        return RunParts(
            self.progress, self.clock, self.engine, self.diagnosis, self.meter, self.initial_weights, self.probing
        )

    @property
    def leads(self) -> bool:
        """Whether this process is the one that judges and publishes."""
        return self._group.rank == 0

    @property
    def processes(self) -> int:
        """How many processes train together, each with a run of its own."""
        return self._group.size

    def _chosen(self, specs: Sequence[LayerSpec]) -> list[LayerSpec]:
        asked = self.settings
        if not asked.strict and all(spec.skipped for spec in specs):
            reasons = "; ".join(sorted({spec.skipped for spec in specs})) or "it has no parameters"
            self.faults.warn_once(
                f"the model has no layer whose weights form a matrix ({reasons}), so no spectra are watched. "
                "Pass `strict=True` to make this an error",
                "no layers",
            )
            return []
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

    def _say_what_accuracy_does(self) -> None:
        """Say it where the quantities leave ``accuracy`` little to do."""
        engine = self.engine
        exact = without_effect(engine.quantities, engine.tolerance, (spec.matrix_shapes for spec in engine.specs))
        if exact and self.leads:
            accuracy = self.settings.accuracy
            without = "" if self.settings.early_stopping == "off" else ", without `early_stopping`"
            self.faults.warn_once(
                f"accuracy={accuracy} has no effect on a layer at its first snapshot, and whenever it has moved by "
                f"{accuracy} of its norm since, with {exact} among the quantities, which takes the exact spectrum. "
                f"Use quantities='estimable'{without}",
                "accuracy",
                ending="",
            )

    @property
    def alerts(self) -> AlertList:
        """The alerts so far."""
        return self.diagnosis.alerts

    @property
    def verdict(self) -> Verdict | None:
        """The judgement of the run so far; None before its first snapshot."""
        return self.diagnosis.verdict

    @property
    def should_stop(self) -> bool:
        """Whether an alert asks for the run to be stopped."""
        return self.diagnosis.stop is not None

    @property
    def stop_reason(self) -> str:
        """Why the run is to be stopped, in one sentence; empty if it is not."""
        return self.diagnosis.stop_reason

    def scalars(self) -> dict[str, float]:
        """The model-level values by their tags, each as last known; what a framework's own callbacks can monitor."""
        return dict(self.progress.published)

    def monitorable(self) -> set[str]:
        """The tags that :meth:`scalars` may come to hold."""
        headline = [q.name for q in self.engine.quantities if q.headline]
        groups = ("", UPDATES) if any(spec.kind == "lora" for spec in self.engine.specs) else ("",)
        names = {f"spectral/{group}{name}/{s}" for group in groups for name in headline for s in STATISTICS}
        always = ("alpha/share_sufficient", "overtraining/score", "overtraining/keep", "alerts", "overhead")
        return names | set(self.progress.published) | {f"spectral/{name}" for name in always}

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
            saved: the state of the run to be resumed; the weights must be those of its checkpoint already.
        """
        self.meter = Meter()
        self.clock = Clock(step, int(epoch))
        settings = self.settings
        self.cadence = Cadence.resolve(
            settings.every_n_epochs, settings.every_n_steps, settings.cheap_every_n_steps, plan
        )
        with self.meter.running(), self.faults.guard("starting"):
            self.progress.started = True
            self.progress.first_step = step
            close_at_exit(self.abandon)
            resumed_at = None if saved is None else self._take_up(saved)
            if resumed_at is None and self.leads:
                self._claim_folder()
            self.progress.run_id, self.progress.directory = self._group.broadcast(
                (self.progress.run_id, self.directory)
            )
            if resumed_at is None:
                self._take_initial_weights()
            self._sinks.open(self.info(resumed_at), resumed_at is not None)
            if resumed_at is None:
                with self.faults.guard("a snapshot"):
                    self._snapshot("full", step, epoch, {}, now=True)

    def _claim_folder(self) -> None:
        """Make sure that no other process writes to the folder; another one may have taken it since it was named."""
        try:
            self.progress.directory = claim(self.directory)
        except OSError as error:
            self.faults.fault("the folder of the record cannot be made now", error)

    def _take_initial_weights(self) -> None:
        try:
            self.initial_weights.take(self.directory)
        except OSError as error:
            self.faults.fault("W_0 cannot be kept, so what compares with it (distances, ratios) is not measured", error)

    def _warn(self, message: str) -> None:
        self.faults.warn_once(message, message)

    def _take_up(self, saved: Saved) -> int | None:
        """Go on where ``saved`` was made.

        Returns:
            The step up to which the record counts; None if the run cannot be resumed, which is logged.
        """
        problem = ""
        try:
            apply = resumption(self._parts(), saved, self.settings.log_dir)
        except (OSError, ValueError) as error:
            problem = str(error)
        problem = next(filter(None, self._group.gather(problem)), "")
        if problem:
            self.faults.warn_once(f"the run cannot be resumed, so a new record starts ({problem})", "resume")
            return None
        self.progress.resumed = True
        return apply()

    def saved(self, adapter: Mapping[str, Any] | None = None) -> Saved | None:
        """What a checkpoint made now needs to resume the run from it; None before it has begun.

        Waits for snapshots in the background. Where the weights have moved on since the last snapshot, those of the
        last snapshot are part of it.

        Args:
            adapter: the state of the framework's adapter.
        """
        if not self.progress.started or not self.diagnosis.snapshots:
            return None
        with self.meter.running(), self.faults.guard("saving the state"):
            self._publish_all(self._measuring.flush(self.meter))
            return capture_state(self._parts(), adapter or {})
        return None

    def info(self, resumed_at: int | None = None) -> RunInfo:
        """The header of the run's record."""
        layers = tuple(
            LayerInfo(s.name, i, s.kind, s.type, s.shape, s.matrix_shapes, s.note)
            for i, s in enumerate(self.engine.specs)
        )
        settings = {**self.settings.as_dict(), "cadence": str(self.cadence)}
        return RunInfo(
            self.progress.run_id,
            self.framework,
            datetime.now(UTC).isoformat(timespec="seconds"),
            settings,
            versions(),
            layers,
            str(self.directory),
            resumed_at,
        )

    def due(self) -> Kind | None:
        """What fell due, by :attr:`clock`, since this was asked last."""
        return self.clock.due(self.cadence)

    def snapshot(
        self,
        kind: Kind,
        step: int,
        epoch: float,
        metrics: Mapping[str, float] | None = None,
        needed: bool = False,
    ) -> Snapshot | None:
        """Measure, judge, publish.

        Args:
            kind: what is due.
            step: optimiser steps done.
            epoch: epochs completed.
            metrics: metrics of the loop.
            needed: measure now, whatever the background and the budget: something is about to look at the values.

        Returns:
            The last snapshot that was published by it: None where a fault of ours prevented it (said once), where the
            budget does not allow it, or where it is still being measured in the background.
        """
        with self.meter.running(), self.faults.guard("a snapshot"):
            return self._snapshot(kind, step, epoch, metrics or {}, now=needed)
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
            try:
                self.engine.baseline.extend(self.initial_weights.of_later_layers(self.directory, missing))
            except OSError as error:
                self.faults.fault("W_0 of new layers cannot be kept, so their distances are not measured", error)
        said = [f"{what} {', '.join(names)}" for what, names in (("new:", new), ("gone:", gone)) if names]
        self.faults.warn_once(
            f"the model's layers have changed ({'; '.join(said)}); "
            "new layers use their current weights as initial weights",
            "".join(said),
        )

    def _publish_all(self, measured: Iterable[Measured]) -> Snapshot | None:
        snapshot = None
        for one in measured:
            error: Exception | None = None
            if self.leads:
                try:
                    snapshot = self._publisher.publish(one, self.meter)
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
        self.diagnosis.agree(self._group)
        step, published = self._group.broadcast((self.progress.step, self.progress.published))
        self.progress.step, self.progress.published = step, published

    def finish(self) -> None:
        """Reach the verdict and close the sinks; harmless when called twice."""
        if self.progress.finished or not self.progress.started:
            return
        self.progress.finished = True
        with self.meter.running(), self.faults.guard("finishing"):
            try:
                self._publish_all(self._measuring.flush(self.meter))
            finally:
                self._measuring.close(self.meter)
                if self.leads:
                    self.diagnosis.conclude()
        self._sinks.close(self.verdict)

    def abandon(self) -> None:
        """Close without the other processes, which may be gone: publish what is there, and close the sinks."""
        if self.progress.finished or not self.progress.started:
            return
        self._group = SingleProcess()
        self._measuring.leave_group()
        self.finish()

    @contextmanager
    def guarded(self, doing: str) -> Iterator[None]:
        """Count the time inside the block, and keep an error of ours out of the training loop, but for ``strict``."""
        with self.meter.running(), self.faults.guard(doing):
            yield
