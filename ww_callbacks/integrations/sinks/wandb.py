"""Weights & Biases: scalars, histograms, alerts, tables, charts, and summary values for sweeps."""

from __future__ import annotations

import contextlib
import importlib.util
import math
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from ww_callbacks.integrations.extras import require
from ww_callbacks.integrations.quantity_info import quantity_info
from ww_callbacks.integrations.record import RecordError, RunRecord, read_run
from ww_callbacks.integrations.record.format import plain
from ww_callbacks.integrations.scalars import (
    LAYER_PREFIX,
    PREFIX,
    evidence_text,
    layer_scalars,
    layers_text,
    outliers,
    scalars,
)
from ww_callbacks.integrations.schema import Alert, RunInfo, Snapshot, Verdict
from ww_callbacks.integrations.sinks.wandb_rows import OpenRows
from ww_callbacks.spectral.aggregate.summary import ESTIMATED
from ww_callbacks.spectral.measuring.accuracy import ERROR

if TYPE_CHECKING:
    import pandas as pd

TABLE_ROWS = 10_000
"""Number of rows of a table that W&B's pages show; a longer one is thinned to every n-th snapshot."""

FIRST_SHOWN = 4
"""Number of full snapshots after which the table, charts and figures are first sent; then whenever it doubles."""
STATISTICS = ("mean", "q10", "q90", "min", "max", f"median{ERROR}", ESTIMATED)
"""Statistics that stay out of the run's summary, which contains the medians."""
JOINED = ("min", "q10", "median", "q90", "max")
"""The lines of a chart of one quantity."""

_LEVELS = {"info": "INFO", "warning": "WARN", "critical": "ERROR"}


class WandbSink:
    """Sends snapshots to a W&B run.

    The values are plotted over ``spectral/step`` (optimiser steps) or ``spectral/epoch``, so that a resumed run
    continues its curves. They are added to the rows that the user's code logs and never advance W&B's step, so that the
    user's ``step=`` stays valid. If the user logs less often than snapshots are taken, some values appear only with
    later rows, or at the end of the W&B run.

    By default, W&B puts all panels of ``spectral/…`` into one section: a panel for each median, chart and figure, and
    none for the quantiles and extremes, which the charts show.

    The table of the layers, the charts ``spectral/charts/<quantity>`` with median and quantiles, and the figures are
    sent after 4 full snapshots, whenever their number has doubled, and at the end.

    Args:
        run: the run to log to. None uses the active run, or starts one and ends it with the training.
        axis: the horizontal axis of the charts.
        scalars: whether to send the scalars; not needed if the run's logger has them already.
        per_layer: whether to also send every layer's quantities.
        histograms: whether to also send one histogram of log10 λ per layer, from its spectral density.

    Raises:
        ImportError: if W&B is not installed.
    """

    name = "W&B"

    def __init__(
        self,
        run: Any = None,
        axis: Literal["step", "epoch"] = "step",
        scalars: bool = True,
        per_layer: bool = False,
        histograms: bool = False,
    ) -> None:
        require("wandb", "wandb")
        self._given = run
        self._run: Any = None
        self._rows: OpenRows | None = None
        self._own = False
        self._opened = False
        self._axis = axis
        self._scalars = scalars
        self._per_layer = per_layer
        self._histograms = histograms
        self._directory = Path()
        self._alerts = 0
        self._range: dict[str, tuple[float, float]] = {}
        self._last: Snapshot | None = None
        self._full = 0
        self._defined: set[str] = set()

    def open(self, run: RunInfo, resumed: bool) -> None:
        """Define the axis, and add the callback's arguments to the run's configuration."""
        import wandb

        self._run = self._given or wandb.run
        self._own = self._run is None
        if self._own:
            self._run = wandb.init(id=run.run_id, resume="allow", dir=run.directory)
        self._rows = None if self._own else OpenRows(self._run)
        self._alerts, self._range, self._last, self._full = 0, {}, None, 0
        self._opened = True
        self._directory = Path(run.directory)
        for name in ("step", "epoch"):
            self._run.define_metric(PREFIX + name, hidden=True)
        for name in (PREFIX, LAYER_PREFIX):
            self._run.define_metric(name + "*", step_metric=PREFIX + self._axis)
        self._defined = set()
        self._run.config.update({"spectral": plain(run.settings)}, allow_val_change=True)

    def snapshot(self, snapshot: Snapshot) -> None:
        """Send one row of values."""
        import wandb

        if snapshot.kind == "full":
            self._last = snapshot
            self._full += 1
        known = scalars(snapshot)
        values: dict[str, Any] = dict(known) if self._scalars else {}
        self._widen(values)
        if self._per_layer:
            values |= layer_scalars(snapshot)
        if self._histograms:
            for row in snapshot.rows:
                if row.density and len(row.density["count"]):
                    bins = np.asarray(row.density["count"]), np.asarray(row.density["log10_lambda_edges"])
                    values[f"{LAYER_PREFIX}{row.layer}/log10_lambda"] = wandb.Histogram(np_histogram=bins)
        self._define([*values, *filter(_is_statistic, known)])  # the run's own logger may send them
        if snapshot.kind == "full" and self._full >= FIRST_SHOWN and self._full & (self._full - 1) == 0:
            values |= self._shown(self._record())
        if values:
            self._log(values | {PREFIX + "step": snapshot.step, PREFIX + "epoch": snapshot.epoch})

    def _define(self, names: Iterable[str]) -> None:
        """Define the axis of each name, and which names get no panel by default and stay out of the summary.

        Names are defined one by one in addition to the patterns: a trainer's logger may have defined an axis for `*`,
        which a name overrides but a pattern does not, and W&B 0.31 applies `summary` only to names. It treats a dot as
        a nested level.
        """
        for name in sorted(set(names) - self._defined):
            self._defined.add(name)
            if "*" in name:  # W&B treats it as an unsupported pattern
                continue
            statistic = _is_statistic(name)
            self._run.define_metric(
                name.replace(".", "\\."),
                step_metric=PREFIX + self._axis,
                summary="none" if statistic or name.startswith(LAYER_PREFIX) else None,
                hidden=True if statistic else None,
            )

    def _log(self, values: dict[str, Any]) -> None:
        """Send a row; if the run is the user's, without advancing its step."""
        if self._rows is None:
            self._run.log(values)
        else:
            self._rows.add(values)

    def alert(self, alert: Alert) -> None:
        """Send the alert, by mail or to Slack if the user has enabled that."""
        self._alerts += 1
        where = layers_text(alert.layers)
        self._run.alert(
            title=f"Spectra: {alert.kind} in {where}"[:63],
            text=f"{alert.message}\n{evidence_text(alert)}\n{alert.recommendation}",
            level=_LEVELS[alert.severity],
            wait_duration=0.001,  # the cooldown has been applied already
        )

    def close(self, verdict: Verdict | None) -> None:
        """Send the tables, the figures and the summary values, and end the run if this sink started it."""
        if not self._opened:
            return
        self._opened = False
        try:
            record = self._record()
            self._run.summary.update(self._summary(verdict, record))
            if record is not None and len(record.layers):
                last = {PREFIX + "step": record.model["step"].iloc[-1], PREFIX + "alerts": self._alerts}
                self._log(last | self._shown(record))
        finally:
            if self._own:
                self._run.finish()

    def _shown(self, record: RunRecord | None) -> dict[str, Any]:
        """The current table of the layers, the worst layers, the charts and the figures."""
        if record is None or not len(record.layers):
            return {}
        return {
            PREFIX + "layers": _table(record),
            **_worst(self._last),
            **_charts(record, self._axis),
            **_figures(record),
        }

    def _widen(self, values: dict[str, float]) -> None:
        for name, value in values.items():
            if name.endswith("/median"):
                low, high = self._range.get(name, (value, value))
                self._range[name] = min(low, value), max(high, value)

    def _record(self) -> RunRecord | None:
        """The run's record, which has the data that is not kept in memory; None if there is none."""
        try:
            return read_run(self._directory)
        except (RecordError, OSError):
            return None

    def _summary(self, verdict: Verdict | None, record: RunRecord | None) -> dict[str, Any]:
        """Summary values that a sweep can optimise: extremes of each median, the best snapshot's values, alerts, the
        verdict.
        """
        summary: dict[str, Any] = {PREFIX + "alerts": self._alerts}
        for name, (low, high) in self._range.items():
            quantity = name.removesuffix("/median")
            summary[f"{quantity}/lowest_median"], summary[f"{quantity}/highest_median"] = low, high
        if verdict is None:
            return summary
        summary |= {
            PREFIX + "verdict": verdict.state,
            PREFIX + "verdict_reason": verdict.reason,
            PREFIX + "healthy": int(verdict.state == "healthy"),
            PREFIX + "stopped": int(verdict.stopped),
        }
        signals = {name.replace(" ", "_"): value for name, value in verdict.signals.items() if math.isfinite(value)}
        summary |= {f"{PREFIX}signal/{name}": value for name, value in signals.items()}
        if verdict.best_step is not None:
            summary |= {PREFIX + "best/step": verdict.best_step, PREFIX + "best/epoch": verdict.best_epoch}
            if record is not None:
                best = record.model[record.model["step"] == verdict.best_step].tail(1)
                for name in best.columns:
                    if name.endswith("/median") and math.isfinite(value := float(best[name].iloc[0])):
                        summary[f"{PREFIX}best/{name}"] = value
        return summary


def _is_statistic(name: str) -> bool:
    return name.startswith(PREFIX) and name.rpartition("/")[2] in STATISTICS


def _table(record: RunRecord) -> Any:
    """One row per layer and epoch; for a long run, every n-th snapshot and the last."""
    import wandb

    layers = record.layers[record.layers["kind"] == "full"]
    steps = layers["step"].drop_duplicates().tolist()
    every = max(1, math.ceil(len(layers) / TABLE_ROWS))
    kept = set(steps[::-1][::every])
    table = layers[layers["step"].isin(kept)].drop(columns=["kind"])
    return wandb.Table(dataframe=table)


def _worst(snapshot: Snapshot | None) -> dict[str, Any]:
    """The worst layers at the end, by quantity."""
    found = outliers(snapshot) if snapshot is not None else []
    if not found:
        return {}
    import wandb

    columns: list[str | int] = ["layer", "quantity", "value", "median"]
    rows: list[Any] = [[o.layer, o.quantity.title, o.value, o.median] for o in found]
    if any(o.error or o.median_error for o in found):
        columns += ["error of the value", "error of the median"]
        rows = [[*row, o.error, o.median_error] for row, o in zip(rows, found, strict=True)]
    return {PREFIX + "worst_layers": wandb.Table(columns=columns, data=rows)}


def _charts(record: RunRecord, axis: str) -> dict[str, Any]:
    """A W&B chart for each quantity with a median: median, quantiles and extremes together."""
    import wandb

    found = {}
    full = record.model[record.model["kind"] == "full"]
    for name in (str(column).removesuffix("/median") for column in full.columns if str(column).endswith("/median")):
        keys = [statistic for statistic in JOINED if f"{name}/{statistic}" in full.columns]
        known = full[np.isfinite(full[f"{name}/median"].to_numpy(dtype=float))]
        if len(known):
            found[f"{PREFIX}charts/{name.replace('/', '_')}"] = wandb.plot.line_series(
                xs=known[axis].tolist(),
                ys=[known[f"{name}/{statistic}"].astype(float).tolist() for statistic in keys],
                keys=keys,
                title=f"{quantity_info(name).title} over the layers{_uncertain(known, name)}",
                xname=axis,
            )
    return found


def _uncertain(model: pd.DataFrame, name: str) -> str:
    """The largest error of the lines of ``name``, where they are of estimates."""
    errors = model.filter([f"{name}/{statistic}{ERROR}" for statistic in JOINED]).to_numpy(dtype=float)
    return f", ± at most {np.nanmax(errors):.1g} by estimates" if (errors > 0.0).any() else ""


def _figures(record: RunRecord) -> dict[str, Any]:
    """The views on the run as interactive plots; none if plotly is not installed."""
    if importlib.util.find_spec("plotly") is None:
        return {}
    import wandb

    from ww_callbacks.integrations import figures

    found = {}
    reasons = ["evidence"] if any(alert.severity != "info" for alert in record.alerts) else []
    for name in ("timeline", *reasons, "heat_map", "correlation_flow", "histograms"):
        with contextlib.suppress(ValueError):  # the run did not measure the quantity of this view
            found[f"{PREFIX}figures/{name}"] = wandb.Plotly(getattr(figures, name)(record))
    return found
