"""Scalars for any logger that takes names and numbers: CSV, MLflow, Comet, …."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from ww_callbacks.integrations.scalars import layer_scalars, scalars
from ww_callbacks.integrations.schema import Alert, RunInfo, Snapshot, Verdict


class LoggerSink:
    """Passes the scalars of every snapshot to a function; ``spectral/alerts`` is the number of alerts.

    Args:
        log: function of the scalars and the step, for example Lightning's ``logger.log_metrics``.
        name: name of the logger in messages.
        per_layer: whether to also log every layer's quantities, as ``spectral_layers/<layer>/<quantity>``.
    """

    def __init__(self, log: Callable[[Mapping[str, float], int], object], name: str, per_layer: bool = False) -> None:
        self.name = name
        self._log = log
        self._per_layer = per_layer

    def open(self, run: RunInfo, resumed: bool) -> None:
        """Do nothing: the logger belongs to the run."""

    def snapshot(self, snapshot: Snapshot) -> None:
        """Log the scalars at the snapshot's step."""
        values = scalars(snapshot)
        if self._per_layer:
            values |= layer_scalars(snapshot)
        self._log(values, snapshot.step)

    def alert(self, alert: Alert) -> None:
        """Do nothing: a logger of numbers cannot log text."""

    def close(self, verdict: Verdict | None) -> None:
        """Do nothing: the logger belongs to the run."""
