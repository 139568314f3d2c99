"""Measured rows → a snapshot with alerts and scores, sent to every sink."""

from __future__ import annotations

import math
from collections.abc import Sequence

from ww_callbacks.diagnosis.diagnosis import Diagnosis
from ww_callbacks.faults import Faults, logger
from ww_callbacks.integrations.scalars import scalars
from ww_callbacks.integrations.schema import LayerRow, Snapshot
from ww_callbacks.lifecycle.progress import Progress
from ww_callbacks.probes.probe_runner import Probing
from ww_callbacks.publishing.sink_group import SinkGroup
from ww_callbacks.scheduling.meter import Meter
from ww_callbacks.scheduling.snapshots import Measured
from ww_callbacks.spectral.aggregate.summary import summarise_layers
from ww_callbacks.spectral.detectors import Observation
from ww_callbacks.spectral.measuring.values import PARTLY


class Publisher:
    """Runs the diagnosis on each snapshot and sends it, with its alerts, to the sinks.

    Args:
        sinks: the destinations of snapshots.
        diagnosis: runs the detectors.
        progress: the progress of the run.
        faults: reports warnings.
        probing: the representation probe, if there is one.
        quiet: whether the console prints nothing, so that a stop must be logged.
        tolerant: whether values may be estimates.
    """

    def __init__(
        self,
        sinks: SinkGroup,
        diagnosis: Diagnosis,
        progress: Progress,
        faults: Faults,
        probing: Probing | None,
        quiet: bool,
        tolerant: bool,
    ) -> None:
        self._sinks, self._diagnosis, self._progress = sinks, diagnosis, progress
        self._faults, self._probing, self._quiet, self._tolerant = faults, probing, quiet, tolerant

    def _say_what_own_quantities_lack(self, rows: Sequence[LayerRow]) -> None:
        """Report each reason for which the user's own quantities failed, with one layer."""
        layers: dict[str, list[str]] = {}
        for row in rows:
            if row.status.startswith(PARTLY):
                layers.setdefault(row.status, []).append(row.layer)
        for status, (first, *others) in layers.items():
            names, _, reason = status.removeprefix(PARTLY).partition(": ")
            more = f" and {len(others)} more" if others else ""
            self._faults.warn_once(f"{names} could not be computed for {first}{more} ({reason})", status)

    def _summary(self, rows: Sequence[LayerRow]) -> dict[str, float]:
        errors = {row.layer: row.errors for row in rows} if self._tolerant else None
        return summarise_layers({row.layer: row.values for row in rows}, errors)

    def preview(self, measured: Measured) -> dict[str, float]:
        """The scalars of a snapshot that is not judged or published; those of the detectors are not among them."""
        model = self._summary(measured.rows)
        kind, rows = measured.choice.kind, tuple(measured.rows)
        return scalars(Snapshot(measured.step, measured.epoch, kind, rows, model, {}, math.nan, math.nan, math.nan))

    def publish(self, measured: Measured, meter: Meter) -> Snapshot:
        """Run the diagnosis on measured rows and send the snapshot to the sinks."""
        rows, metrics = measured.rows, measured.metrics
        step, epoch = measured.step, measured.epoch
        for row in rows:
            if row.status.startswith("failed"):
                reason = row.status.removeprefix("failed: ")
                self._faults.warn_once(f"`{row.layer}` could not be measured ({reason})", row.layer)
        self._say_what_own_quantities_lack(rows)
        found: dict[str, float] = {}
        if self._probing is not None:
            rows, found = self._probing.merge(step, rows)
        model = {**self._summary(rows), **found}
        observation = Observation(
            step,
            epoch,
            {r.layer: r.values for r in rows},
            metrics,
            epoch_losses=getattr(metrics, "epoch_losses", ()),
            full=measured.choice.kind == "full",
            status={r.layer: r.status for r in rows},
            changed={r.layer: r.changed for r in rows},
            frozen=frozenset(r.layer for r in rows if r.frozen),
            errors={r.layer: r.errors for r in rows if r.errors},
        )
        stopped = self._diagnosis.stop is not None
        alerts, scores = self._diagnosis.judge(observation)
        if self._diagnosis.stop is not None and not stopped and self._quiet:
            logger.warning("ww-callbacks stops the training: %s", self._diagnosis.stop_reason)
        snapshot = Snapshot(
            step=step,
            epoch=epoch,
            kind=measured.choice.kind,
            rows=tuple(rows),
            model={**model, **scores, "alerts": float(len(self._diagnosis.alerts))},
            metrics={k: float(v) for k, v in metrics.items() if math.isfinite(v)},
            seconds=meter.lap(),
            overhead=meter.overhead if step > self._progress.first_step else math.nan,
            time=meter.elapsed,
            left_out=measured.choice.left_out,
            verdict=self._diagnosis.verdict,
        )
        self._progress.last, self._progress.step = snapshot, step
        self._progress.published |= scalars(snapshot)
        self._sinks.each(lambda sink: sink.snapshot(snapshot))
        for alert in alerts:
            self._sinks.each(lambda sink, alert=alert: sink.alert(alert))  # type: ignore[misc]
        return snapshot
