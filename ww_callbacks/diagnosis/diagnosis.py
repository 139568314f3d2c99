"""Diagnosis of a run: detectors → findings → alerts and a verdict."""

from __future__ import annotations

import copy
import difflib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from ww_callbacks.diagnosis.alerts import AlertList, AlertManager
from ww_callbacks.faults import Faults
from ww_callbacks.integrations.schema import Alert, Verdict
from ww_callbacks.scheduling.distributed import Group
from ww_callbacks.settings import Settings
from ww_callbacks.spectral.detectors import (
    Finding,
    Observation,
    Overtraining,
    default_detectors,
    needed_quantities,
    output_layer,
    verdict,
)
from ww_callbacks.spectral.detectors.base import epoch_text, keep_text
from ww_callbacks.spectral.detectors.catalogue import SPOILING
from ww_callbacks.spectral.detectors.layerwise.dead_layer import DeadLayer
from ww_callbacks.spectral.detectors.layerwise.representation_collapse import RepresentationCollapse
from ww_callbacks.spectral.detectors.verdict import QUIET
from ww_callbacks.spectral.layers.spec import LayerSpec
from ww_callbacks.spectral.measuring.registry import Quantity, resolve

_EVIDENCE = ("alpha_evidence", "sigma", "D", "num_pl_spikes")
"""α is never measured without the quantities that show how reliable it is."""


class Diagnosis:
    """The detectors of a run, its alerts and its verdict.

    Args:
        settings: the callback's arguments.
        specs: every layer of the model.
        probed: whether a representation probe is used.
        faults: reports errors of detectors; a detector that fails is disabled.

    Raises:
        ValueError: if the user names an output layer that does not exist.
    """

    def __init__(self, settings: Settings, specs: Sequence[LayerSpec], probed: bool, faults: Faults) -> None:
        self._settings = settings
        self._faults = faults
        _check_output(settings.overtraining.get("output"), specs)
        self._detectors = default_detectors(
            settings.early_stopping,
            fine_tuning=settings.fine_tuning,
            overtraining={"output": output_layer(specs), **(settings.overtraining or {})},
        )
        if probed:
            self._detectors.insert(0, RepresentationCollapse())
        self._detectors[:0] = copy.deepcopy(list(settings.detectors))  # a second run starts from the same state
        self._manager = AlertManager(settings, faults)
        self._findings: list[Finding] = []
        self._memorising: list[Finding] = []
        self._epoch, self._shown = -1, False
        self.alerts = AlertList()
        self.verdict: Verdict | None = None
        self.snapshots = 0
        """Number of snapshots so far."""
        self.best_step: int | None = None
        """The step of the snapshot with the best weights so far; None if unknown."""
        self._best: tuple[int, float] | None = None
        self.steps_to_keep: frozenset[int] = frozenset()
        """The steps of the snapshots whose weights may turn out to be the best."""

    @property
    def stop(self) -> Alert | None:
        """The alert that requests the stop of the run."""
        return self._manager.stop

    @property
    def stop_reason(self) -> str:
        """Why the run is to be stopped, in one sentence; empty if it is not to be stopped."""
        stop = self._manager.stop
        return "" if stop is None else f"{stop.kind}: {stop.message} {stop.recommendation}"

    @property
    def best_epoch(self) -> float | None:
        """The epoch of :attr:`best_step`; None if unknown."""
        return self._best[1] if self._best is not None and self._best[0] == self.best_step else None

    def quantities(self) -> list[Quantity]:
        """The requested quantities and, unless they were named one by one, those that the detectors read."""
        asked = self._settings.quantities
        names = [asked] if isinstance(asked, str) else list(asked)
        if "alpha" in names:
            names += _EVIDENCE
        if "default" in names or self._settings.early_stopping != "off":
            names += needed_quantities(self._detectors)
        return list(resolve(names))

    def name_output(self, name: str | None) -> None:
        """Use ``name`` as the output layer, unless it is None or the user has named one."""
        if name is not None and "output" not in self._settings.overtraining:
            for detector in self._overtraining():
                detector.name_output(name)

    def set_no_change_reason(self, reason: str) -> None:
        """Set the reason to report if no layer changes; an empty one is ignored."""
        for detector in self._detectors:
            if isinstance(detector, DeadLayer) and reason:
                detector.reason = reason

    def judge(self, observation: Observation) -> tuple[list[Alert], dict[str, float]]:
        """Run the detectors on the next snapshot.

        Returns:
            The alerts to report now, and the scores to publish.
        """
        found = self._observe(observation)
        spoiling = {f.severity for f in found if f.kind in SPOILING}
        spoilt = not spoiling <= {"info"}
        # Weights that explode or collapse do not memorise data: the growth that would be fitted is that of the failure.
        self._findings = [f for f in found if not ("critical" in spoiling and f.kind == Overtraining.kind)]
        alerts = self._manager.judge(self._findings, observation.step, observation.epoch)
        self.alerts.extend(alerts)
        self.snapshots += 1
        scores: dict[str, float] = {}
        for detector in self._overtraining():
            scores |= detector.published()
            if not spoilt and self._shown:
                self._take_best(detector)
        self.conclude()
        return alerts, scores

    def _take_best(self, detector: Overtraining) -> None:
        """Take over the detector's best epoch; the initial weights are none."""
        self.best_step, self.steps_to_keep = detector.best_step or None, detector.steps_to_keep
        if detector.best_step and detector.best_epoch is not None:
            self._best = (detector.best_step, detector.best_epoch)

    def conclude(self) -> None:
        """Compute the verdict from the last snapshot's findings; its best epoch is the one that is kept."""
        insufficient = " ".join(d.insufficient for d in self._overtraining())
        doubt = " ".join(d.doubt for d in self._overtraining())
        validation = " ".join(d.validation for d in self._overtraining())
        decline = " ".join(d.decline for d in self._overtraining())
        fields = verdict(
            self._findings,
            insufficient=insufficient,
            doubt=doubt,
            validation=validation,
            decline=decline,
            snapshots=self.snapshots,
        )
        reached = replace(fields, stopped=self.stop is not None)
        passed = [a for a in self.alerts if a.severity != "info"]
        if passed and reached.state in QUIET:
            said = "; ".join(dict.fromkeys(f"{a.kind} since epoch {epoch_text(a.since_epoch)}" for a in passed))
            reason = f"No problem at the last snapshot, but there were alerts earlier: {said}."
            advice = passed[-1].recommendation
            if passed[-1].best_step is not None and passed[-1].best_epoch is not None:  # another epoch may be best now
                advice = advice.removeprefix(keep_text(passed[-1].best_step, passed[-1].best_epoch)).strip()
            reached = replace(reached, state="watch", reason=reason, recommendation=advice)
        if self._best is not None:
            reached = replace(reached, best_step=self._best[0], best_epoch=self._best[1])
            earlier = any(d.keeps_an_earlier_epoch for d in self._overtraining())
            if earlier and reached.since_step is None:  # the recommendation of a finding says it
                advice = f"{keep_text(*self._best)} {reached.recommendation}".rstrip()
                reached = replace(reached, recommendation=advice)
        self.verdict = reached

    def agree(self, group: Group) -> None:
        """Copy the first process's diagnosis, so that all processes act on it in the same step; a collective."""
        kept = (self.best_step, self.steps_to_keep, self._best)
        judged = group.broadcast((self._manager.stop, list(self.alerts), self.verdict, kept))
        if group.rank != 0:
            self._manager.stop, self.alerts[:], self.verdict, kept = judged
            self.best_step, self.steps_to_keep, self._best = kept

    def _observe(self, observation: Observation) -> list[Finding]:
        findings: list[Finding] = []
        due = int(observation.epoch) > self._epoch
        for detector in list(self._detectors):
            try:
                if not isinstance(detector, Overtraining):
                    findings += detector.update(observation)
                    continue
                # It was evaluated with one snapshot per epoch; with more, it would give false alarms.
                if due:
                    self._memorising = detector.update(observation)
                findings += self._memorising
            except Exception as error:
                self._detectors.remove(detector)
                self._faults.fault(
                    f"the detector of {detector.kind} failed and is disabled for the rest of the run", error
                )
        self._epoch, self._shown = max(self._epoch, int(observation.epoch)), due
        return findings

    def _overtraining(self) -> list[Overtraining]:
        return [d for d in self._detectors if isinstance(d, Overtraining)]

    def state_dict(self) -> dict[str, Any]:
        """The states of the detectors and the alerts, as plain values."""
        desk = {**self._manager.state_dict(), "epoch": self._epoch, "best": list(self._best or ())}
        desk["steps_to_keep"] = sorted(self.steps_to_keep)
        return {"detectors": {d.kind: d.state_dict() for d in self._detectors}, "desk": desk}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore a saved state.

        Raises:
            ValueError: if it is not one.
        """
        for detector in self._detectors:
            if detector.kind in state["detectors"]:
                detector.load_state_dict(state["detectors"][detector.kind])
        self._manager.load_state_dict(state["desk"])
        self._epoch = int(state["desk"]["epoch"])
        self._memorising = [f for d in self._overtraining() for f in d.findings()]
        for detector in self._overtraining():
            self._take_best(detector)
        if best := state["desk"].get("best"):  # while weights explode or collapse, the detector's own moves on
            self._best = (int(best[0]), float(best[1]))
            self.best_step, self.steps_to_keep = self._best[0], frozenset(map(int, state["desk"]["steps_to_keep"]))


def _check_output(name: str | None, specs: Sequence[LayerSpec]) -> None:
    names = [spec.name for spec in specs if not spec.skipped]
    if name is None or name in names or not names:
        return
    near = ", ".join(difflib.get_close_matches(name, names, n=3, cutoff=0.3)) or names[-1]
    raise ValueError(
        f"`overtraining={{'output': {name!r}}}` names a layer that the model does not have. Near it: {near}."
    )
