"""One watched run: engine, sinks, detectors and alerts, driven by an adapter."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
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
from ww_callbacks.spectral.aggregate.summary import ESTIMATED, STATISTICS, UPDATES
from ww_callbacks.spectral.layers.selection import select
from ww_callbacks.spectral.layers.spec import EXISTS_LATER, LayerSpec
from ww_callbacks.spectral.measuring.accuracy import ERROR, check_accuracy, without_effect


class Run:
    """One watched training run.

    Args:
        settings: the callback's arguments.
        specs: every layer of the model, including the skipped ones.
        framework: ``lightning``, ``keras``, ``huggingface`` or ``plain``.
        directory: folder of the record.
        sinks: destinations besides the record file and the console.
        write: prints one line without breaking the framework's progress bar; None for standard output.
        group: the processes that train together; only the first one runs the diagnosis and publishes.
        probing: the representation probe, if the user gave one.
        refresh: returns the model's layers if its structure has changed since the last call, otherwise None.
        claimed: whether ``directory`` is that of a run that was given up, to be used again.

    Raises:
        ValueError: if an argument is invalid for this model, before training starts.
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
        claimed: bool = False,
    ) -> None:
        self.settings = settings
        self._claimed = claimed
        self.specs = list(specs)
        """Every layer of the model, including the skipped ones, when the run was created."""
        self.progress = Progress(Path(directory))
        self.framework = framework
        self.cadence = Cadence()
        self.clock = Clock()
        self.meter = Meter()
        self._held: Measured | None = None
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
        self._several = self._group.size > 1
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
            self._sinks,
            self.diagnosis,
            self.progress,
            self.faults,
            probing,
            quiet=settings.verbose == 0,
            tolerant=self.engine.tolerance is not None,
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
        """Whether this process runs the diagnosis and publishes."""
        return self._group.rank == 0

    @property
    def processes(self) -> int:
        """Number of processes that train together, each with its own run."""
        return self._group.size

    def _chosen(self, specs: Sequence[LayerSpec]) -> list[LayerSpec]:
        asked = self.settings
        if not asked.strict and all(spec.skipped for spec in specs):
            reasons = "; ".join(sorted({spec.skipped for spec in specs})) or "it has no parameters"
            remedy = (
                "Its layers are watched from the first snapshot at which they have weights, and distances start there: "
                "call the model on a batch first"
                if any(spec.skipped.endswith(EXISTS_LATER) for spec in specs)
                else "So no spectra are watched. Pass `strict=True` to make this an error"
            )
            said = f"the model has no layer whose weights form a matrix ({reasons}). {remedy}"
            self.faults.warn_once(said, "no layers")
            return []
        return select(specs, asked.layers, asked.exclude, asked.types, asked.min_eigenvalues)

    def _check_folder(self) -> None:
        """Raise on every process if the folder is not writable, so that none waits for another."""
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
        """Warn if ``accuracy`` has little effect with the requested quantities."""
        engine = self.engine
        exact = without_effect(engine.quantities, engine.tolerance, (spec.matrix_shapes for spec in engine.specs))
        if exact and self.leads:
            accuracy = self.settings.accuracy
            without = "" if self.settings.early_stopping == "off" else ", without `early_stopping`"
            self.faults.warn_once(
                f"accuracy={accuracy} has no effect on a layer at its first snapshot, or whenever it has changed by "
                f"{accuracy} of its norm since, because the exact spectrum is needed for {exact}. "
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
        """The verdict on the run so far; None before its first snapshot."""
        return self.diagnosis.verdict

    @property
    def should_stop(self) -> bool:
        """Whether an alert requests the stop of the run."""
        return self.diagnosis.stop is not None

    @property
    def stop_reason(self) -> str:
        """Why the run is to be stopped, in one sentence; empty if it is not to be stopped."""
        return self.diagnosis.stop_reason

    def scalars(self) -> dict[str, float]:
        """The most recent model-level values by tag, which a framework's own callbacks can monitor."""
        return dict(self.progress.published)

    def monitorable(self) -> set[str]:
        """All tags that :meth:`scalars` may contain during the run."""
        headline = [q.name for q in self.engine.quantities if q.headline]
        groups = ("", UPDATES) if any(spec.kind == "lora" for spec in self.engine.specs) else ("",)
        names = {f"spectral/{group}{name}/{s}" for group in groups for name in headline for s in STATISTICS}
        if self.engine.tolerance is not None:
            estimable = [q.name for q in self.engine.quantities if q.headline and q.estimate is not None]
            kinds = (f"median{ERROR}", ESTIMATED)
            names |= {f"spectral/{group}{name}/{s}" for group in groups for name in estimable for s in kinds}
        always = ("alpha/share_sufficient", "overtraining/score", "overtraining/keep", "alerts", "overhead")
        return names | set(self.progress.published) | {f"spectral/{name}" for name in always}

    def html(self) -> str:
        """The run so far, for a notebook."""
        said = self.verdict._repr_html_() if self.verdict else "<p>no verdict yet</p>"
        cost = f"{self.last.overhead:.1%} of training time" if self.last else "not measured yet"
        where = escape(str(self.directory))
        return f"{said}{self.alerts._repr_html_()}<p>Cost: {cost}. Record: <code>{where}</code></p>"

    def begin(self, plan: Plan, step: int = 0, epoch: float = 0.0, saved: Saved | None = None) -> None:
        """Store W_0, open the sinks and record the first snapshot; or resume an interrupted run.

        Args:
            plan: the length of the run.
            step: optimiser steps done.
            epoch: epochs completed.
            saved: the state of the run to resume; the model must already have the weights of its checkpoint.
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
            if resumed_at is None and self.leads and not self._claimed:
                self._claim_folder()
            self.progress.run_id, self.progress.directory = self._group.broadcast(
                (self.progress.run_id, self.directory)
            )
            if resumed_at is None:
                self._take_initial_weights()
            self._sinks.open(self.info(resumed_at), resumed_at is not None)
            if resumed_at is not None and self._several:
                if self.leads:
                    self.diagnosis.conclude()
                self._agree()  # a training that had ended takes no snapshot at which they would
            if resumed_at is None:
                with self.faults.guard("a snapshot"):
                    self._snapshot("full", step, epoch, {}, now=True)

    def _claim_folder(self) -> None:
        """Make sure that no other process writes to the folder, which may have been claimed since it was chosen."""
        try:
            self.progress.directory = claim(self.directory)
        except OSError as error:
            self.faults.fault("the folder of the record cannot be created", error)

    def _take_initial_weights(self) -> None:
        try:
            self.initial_weights.take(self.directory)
        except OSError as error:
            self.faults.fault("W_0 cannot be stored, so distances from it and ratios to it are not measured", error)

    def _warn(self, message: str) -> None:
        self.faults.warn_once(message, message)

    def _take_up(self, saved: Saved) -> int | None:
        """Resume from ``saved``.

        Returns:
            The step up to which the record is valid; None if the run cannot be resumed, which is logged.
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
        """The state that a checkpoint made now needs to resume the run; None before the run has started.

        A collective: all processes save together, and the state of the first one is complete. Waits for snapshots in
        the background. If weights have changed since the last snapshot, those of the last snapshot are part of the
        state.

        Args:
            adapter: the state of the framework's adapter.
        """
        if not self.progress.started or not self._group.broadcast(self.diagnosis.snapshots):
            return None
        self.release()
        with self.meter.running(), self.faults.guard("saving the state"):
            self._publish_all(self._measuring.flush(self.meter))
            return capture_state(self._parts(), adapter or {}, self._group, self._several)
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
        """The kind of snapshot that became due since the last call, according to :attr:`clock`."""
        return self.clock.due(self.cadence)

    def snapshot(
        self,
        kind: Kind,
        step: int,
        epoch: float,
        metrics: Mapping[str, float] | None = None,
        needed: bool = False,
        hold: bool = False,
    ) -> Snapshot | None:
        """Measure, diagnose and publish.

        Args:
            kind: what is due.
            step: optimiser steps done.
            epoch: epochs completed.
            metrics: metrics of the loop.
            needed: measure now regardless of background and budget, because something is about to read the values.
            hold: publish it at :meth:`release`, or before the next snapshot, because the epoch may have just ended.

        Returns:
            The last snapshot that this call published. None if an internal error prevented it (reported once), if the
            budget does not allow it, or if it is still being measured in the background.
        """
        with self.meter.running(), self.faults.guard("a snapshot"):
            return self._snapshot(kind, step, epoch, metrics or {}, now=needed, hold=hold)
        return None

    @property
    def holds(self) -> bool:
        """Whether a snapshot is held."""
        return self._held is not None

    def release(self, epoch: float | None = None, metrics: Mapping[str, float] | None = None) -> None:
        """Publish the snapshot that is held, if there is one.

        Args:
            epoch: epochs completed, if an epoch has ended with it; otherwise it stays as it was.
            metrics: metrics of the loop at that end.
        """
        held, self._held = self._held, None
        if held is None:
            return
        if epoch is not None:
            held = replace(held, epoch=epoch, metrics=metrics or {})
        with self.meter.running(), self.faults.guard("a snapshot"):
            self._publish_all([held])

    def preview(self, step: int, epoch: float) -> None:
        """Measure the weights for a callback that reads :meth:`scalars` now, before the snapshot of the same weights.

        The snapshot is taken later, when the validation of these weights is known too; nothing is judged or recorded.

        Args:
            step: optimiser steps done.
            epoch: epochs completed.
        """
        with self.meter.running(), self.faults.guard("measuring for another callback"):
            self._follow_structure()
            self._publish_all(self._measuring.flush(self.meter))
            with self.engine.trial():
                measured = self._measuring.take("full", step, epoch, {}, self.meter, now=True)
            if self.leads:
                self.progress.published |= self._publisher.preview(measured[-1])
            self.progress.published = self._group.broadcast(self.progress.published)

    def missed(self, step: int) -> bool:
        """Wait for the background at the end. Returns whether the last snapshot, of ``step``, was skipped because the
        queue was full.
        """
        with self.meter.running(), self.faults.guard("a snapshot"):
            self._publish_all(self._measuring.flush(self.meter))
        return self._measuring.skipped_last == step

    def poll(self) -> None:
        """Publish the snapshots finished in the background."""
        if self.settings.background:
            with self.meter.running(), self.faults.guard("a snapshot"):
                self._publish_all(self._measuring.poll(self.meter))

    def _snapshot(
        self, kind: Kind, step: int, epoch: float, metrics: Mapping[str, float], now: bool = False, hold: bool = False
    ) -> Snapshot | None:
        self.release()
        self._follow_structure()
        if self.probing is not None and kind == "full" and self.leads:
            with self.faults.guard("the probe"):
                self.probing.take(step, epoch)
        measured = self._measuring.take(kind, step, epoch, metrics, self.meter, now)
        if hold and measured and measured[-1].step == step:
            self._held = measured.pop()
        return self._publish_all(measured)

    def _follow_structure(self) -> None:
        """Update the watched layers if some have appeared or disappeared."""
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
                self.faults.fault("W_0 of new layers cannot be stored, so their distances are not measured", error)
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
                except Exception as raised:  # a user's policy may raise; the other processes must not wait forever
                    error = raised
            self._agree()
            if error is not None:
                raise error
        return snapshot

    def _agree(self) -> None:
        """Copy the first process's diagnosis, so that all processes act on it in the same step."""
        if self._group.size == 1:
            return
        self.diagnosis.agree(self._group)
        step, published = self._group.broadcast((self.progress.step, self.progress.published))
        self.progress.step, self.progress.published = step, published

    def finish(self) -> None:
        """Compute the verdict and close the sinks; can be called more than once."""
        if self.progress.finished or not self.progress.started:
            return
        self.release()
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
        """Close without the other processes, which may have ended: publish what is available, and close the sinks."""
        if self.progress.finished or not self.progress.started:
            return
        self._group = SingleProcess()
        self._measuring.leave_group()
        self.finish()

    def give_up(self, why: str) -> Path:
        """Close without a verdict, because the same training starts again.

        Args:
            why: the reason, for the console.

        Returns:
            The folder, for the run that follows; its sink moves this run's record aside.
        """
        self._group = SingleProcess()
        self._measuring.leave_group()
        if not self.progress.finished:
            self.progress.finished = True
            with self.meter.running(), self.faults.guard("giving up a run"):
                self._measuring.close(self.meter)
            self.console.give_up(why)
            self._sinks.close(None)
        return self.directory

    @contextmanager
    def guarded(self, doing: str) -> Iterator[None]:
        """Count the time inside the block, and keep internal errors out of the training loop unless ``strict`` is
        set.
        """
        with self.meter.running(), self.faults.guard(doing):
            yield
