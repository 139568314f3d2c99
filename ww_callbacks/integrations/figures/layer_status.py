"""The status of each layer and since when it has had alerts: the table next to the figures."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from ww_callbacks.integrations.figures.palette import SEVERITIES
from ww_callbacks.integrations.figures.run_view import SUFFICIENT, RunView
from ww_callbacks.integrations.schema import Alert
from ww_callbacks.spectral.detectors.base import epoch_text
from ww_callbacks.spectral.number_text import with_error
from ww_callbacks.spectral.printed_tables import alpha_in_words


@dataclass(frozen=True)
class LayerStatus:
    """One layer at the last full snapshot.

    Attributes:
        layer: its name.
        severity: severity of its worst alert; empty if there is none.
        kinds: the kinds of its alerts, the worst and latest first.
        since_epoch: when the first of those started, or None.
        status: ``ok``, or why values are missing; empty if it was not measured.
        evidence: ``sufficient``, or why alpha is not reliable.
        values: quantity → value; NaN if there is none.
        frozen: whether it was not trained.
        errors: quantity → error of the value, for those that have one.
    """

    layer: str
    severity: str
    kinds: tuple[str, ...]
    since_epoch: float | None
    status: str
    evidence: str
    values: Mapping[str, float]
    frozen: bool = False
    errors: Mapping[str, float] = field(default_factory=dict)

    def text(self, quantity: str) -> str:
        """The value of ``quantity`` with its error; α in brackets if the evidence does not suffice."""
        value, error = self.values.get(quantity, math.nan), self.errors.get(quantity, math.nan)
        if quantity == "alpha":
            return alpha_in_words(value, error, self.evidence)
        return with_error(value, error)

    @property
    def in_words(self) -> str:
        """Short description of the layer's status."""
        if self.kinds:
            return f"{', '.join(self.kinds)} since epoch {epoch_text(self.since_epoch or 0.0)}"
        if self.status not in ("ok", ""):
            return self.status
        if not self.status:
            return "not measured yet"
        if self.frozen:
            return "frozen"
        if self.evidence not in (SUFFICIENT, ""):
            return f"no alert; α unsure: {self.evidence}"
        return "no alert"


def layer_statuses(run: RunView) -> list[LayerStatus]:
    """The status of every layer, in depth order."""
    full = np.flatnonzero(run.full)
    rows = []
    last = {name: _last(run, name, run.values(name)) for name in run.quantities}
    errors = {name: _last(run, name, run.errors(name)) for name in run.quantities}
    about: dict[str, list[Alert]] = {}
    for alert in run.alerts:
        for layer in alert.layers:
            about.setdefault(layer, []).append(alert)
    for position, layer in enumerate(run.layers):
        alerts = about.get(layer, [])
        worst_first = sorted(alerts, key=lambda alert: (-SEVERITIES.index(alert.severity), -alert.step))
        values = {name: float(column[position]) for name, column in last.items()}
        rows.append(
            LayerStatus(
                layer=layer,
                severity=max((alert.severity for alert in alerts), key=SEVERITIES.index, default=""),
                kinds=tuple(dict.fromkeys(alert.kind for alert in worst_first)),
                since_epoch=min((alert.since_epoch for alert in alerts), default=None),
                status=str(run.status[position, full[-1]]) if len(full) else "",
                evidence=str(run.evidence[position, full[-1]]) if len(full) else "",
                values=values,
                frozen=bool(run.frozen[position, full[-1]]) if len(full) else False,
                errors={name: float(own[position]) for name, own in errors.items() if own[position] > 0.0},
            )
        )
    return rows


def _last(run: RunView, name: str, matrix: np.ndarray) -> np.ndarray:
    """The column of ``matrix`` at the last snapshot that measured the quantity ``name``."""
    when = run.measured(name)
    return matrix[:, when[-1]] if len(when) else np.full(len(run.layers), np.nan)
