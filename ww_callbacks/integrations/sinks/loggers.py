"""Scalars for any logger: CSV, MLflow, Comet and whatever else takes names and numbers."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from ww_callbacks.integrations.scalars import layer_scalars, scalars
from ww_callbacks.integrations.schema import Alert, RunInfo, Snapshot, Verdict


class LoggerSink:
    """Hands the scalars of every snapshot to a function; alerts are counted in ``spectral/alerts``.

    Args:
        log: takes the scalars and the step, for example Lightning's ``logger.log_metrics``.
        name: what the logger is called in messages.
        per_layer: also every layer's quantities, as ``spectral_layers/<layer>/<quantity>``.
    """

    def __init__(self, log: Callable[[Mapping[str, float], int], object], name: str, per_layer: bool = False) -> None:
        self.name = name
        self._log = log
        self._per_layer = per_layer

    def open(self, run: RunInfo, resumed: bool) -> None:
        """Nothing to prepare: the logger is the run's own."""

    def snapshot(self, snapshot: Snapshot) -> None:
        """Log the scalars at the snapshot's step."""
        values = scalars(snapshot)
        if self._per_layer:
            values |= layer_scalars(snapshot)
        self._log(values, snapshot.step)

    def alert(self, alert: Alert) -> None:
        """Nothing: a logger of numbers has no place for words."""

    def close(self, verdict: Verdict | None) -> None:
        """Nothing: the logger is not ours to close."""
