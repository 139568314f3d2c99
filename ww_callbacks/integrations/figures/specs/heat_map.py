"""The heat map: a quantity of every layer (rows) at every snapshot (columns), with its alerts."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np

from ww_callbacks.integrations.figures.alert_rules import rules
from ww_callbacks.integrations.figures.names import BETWEEN
from ww_callbacks.integrations.figures.palette import (
    ALPHA_RANGE,
    ALPHA_SCALE,
    CIVIDIS,
    INK,
    PAPER,
    PURPLE,
    SEVERITIES,
    SEVERITY_COLOURS,
    SEVERITY_SYMBOLS,
    ZERO_SCALE,
)
from ww_callbacks.integrations.figures.run_view import RunView
from ww_callbacks.integrations.figures.specs.alert_lane import describe_alerts
from ww_callbacks.integrations.figures.style import Spec, axis, message_panel, over_time, panel
from ww_callbacks.integrations.figures.text import escape
from ww_callbacks.integrations.quantity_info import quantity_info
from ww_callbacks.integrations.schema import Alert
from ww_callbacks.spectral.number_text import with_error
from ww_callbacks.spectral.representation.quantities import PROBE_QUANTITIES

ROW, LEAST_ROWS, MOST, MOST_OF_SEVERAL = 18, 180, 900, 460
LABEL = 13
"""Height in pixels that a row's name needs."""
FAINT = 0.35
"""Opacity of values without sufficient evidence."""
TOP, BOTTOM, LETTER = 46, 44, 6.2


def heat_map_panels(
    runs: Sequence[RunView], quantity: str = "alpha", relative: bool = False, notes: bool = False
) -> list[Spec]:
    """The heat map of ``quantity``, one panel per run with a common colour scale.

    Args:
        runs: the runs.
        quantity: the quantity.
        relative: whether to show each layer relative to its first value.
        notes: whether to mark notes as well.

    Raises:
        ValueError: if no run measured it, or if it has one value for the whole model.
    """
    known = dict.fromkeys(name for run in runs for name in run.quantities)
    if not any(len(run.steps) for run in runs):
        return [message_panel("No snapshot yet: the first one appears when training starts.")]
    if quantity in PROBE_QUANTITIES and PROBE_QUANTITIES[quantity].scope == "model":
        raise ValueError(
            f"Expected a quantity of layers, but `{quantity}` has one value for the whole model: if a probe measured "
            "it, it is drawn in the timeline (`figures.timeline`)."
        )
    if quantity not in known:
        raise ValueError(f"No run measured the quantity `{quantity}`. Expected one of: {', '.join(known)}.")
    shown = [(run, *_values(run, quantity, relative)) for run in runs]
    by = _difference(runs, quantity)
    colours = _colours([values for _, _, values in shown], [run for run, _, _ in shown], quantity, relative, by)
    return [_panel(run, when, values, quantity, relative, by, colours, len(runs), notes) for run, when, values in shown]


def _values(run: RunView, quantity: str, relative: bool) -> tuple[np.ndarray, np.ndarray]:
    """The snapshots that measured ``quantity`` and its values there, shape (layers, T)."""
    if quantity not in run.quantities:
        return np.empty(0, dtype=np.int64), np.empty((len(run.layers), 0))
    when = run.measured(quantity)
    values = run.values(quantity)[:, when]
    if not relative or not len(when):
        return when, values
    finite = np.isfinite(values)
    first = np.where(finite.any(axis=1), values[np.arange(len(values)), finite.argmax(axis=1)], np.nan)[:, None]
    if _difference([run], quantity):
        return when, values - first
    with np.errstate(divide="ignore", invalid="ignore"):
        return when, np.where(first > 0, values / first, np.nan)


def _errors(run: RunView, when: np.ndarray, quantity: str, by: Spec) -> np.ndarray:
    """The errors of the values that :func:`_values` returns; NaN if they are exact.

    For values relative to the first one x_0 ± e_0, e + e_0 is the error of x − x_0, and (e + |x/x_0|·e_0)/|x_0| that
    of x/x_0 to first order.
    """
    errors = run.errors(quantity)[:, when]
    if not by or not errors.size:
        return errors
    values = run.values(quantity)[:, when]
    place = np.arange(len(values)), np.isfinite(values).argmax(axis=1)
    first, own = values[place][:, None], np.nan_to_num(errors)
    of_first = own[place][:, None]
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = (own + np.abs(values / first) * of_first) / np.abs(first)
    return own + of_first if by["by"] == "difference" else ratio


def _difference(runs: Sequence[RunView], quantity: str) -> bool:
    """Whether a quantity is compared with its first value by a difference, because a ratio of values near zero is
    meaningless.
    """
    if quantity.startswith("log_") or quantity_info(quantity).family in ("scale", "distance", "update"):
        return True
    return any(bool((run.values(quantity) <= 0).any()) for run in runs if quantity in run.quantities)


def _panel(
    run: RunView,
    when: np.ndarray,
    values: np.ndarray,
    quantity: str,
    relative: bool,
    by_difference: bool,
    colours: Spec,
    runs: int,
    notes: bool,
) -> Spec:
    marks = _marks(run, quantity, notes)
    whole = [_WHOLE] if any(row == _WHOLE for _, row in marks) else []
    names = whole + [escape(layer) for layer in run.layers]
    inner = min(max(len(names) * ROW, LEAST_ROWS), MOST if runs == 1 else MOST_OF_SEVERAL)
    labels = _labels(run, len(whole), inner / max(len(names), 1), {row for _, row in marks})
    suffix = f" {'minus' if by_difference else 'against'} its first value" if relative else ""
    title = f"{quantity_info(quantity).title}{suffix}"
    made = panel(
        f"{run.label}: {title}" if runs > 1 else title,
        inner + TOP + BOTTOM,
        xaxis=over_time(showgrid=False),
        yaxis=axis(
            type="category",
            categoryorder="array",
            categoryarray=names,
            range=[len(names) - 0.5, -0.5],
            showgrid=False,
            tickfont={"size": 10},
            tickvals=list(labels),
            ticktext=list(labels.values()),
        ),
        about=f"{quantity}: {quantity_info(quantity).definition}",
        group="layers",
        hovermode="closest",
        coloraxis=colours,
    )
    room = max((len(label) for label in labels.values()), default=4) * LETTER
    made["layout"]["margin"].update(l=round(min(room, 190)) + 14, t=TOP, b=BOTTOM)
    by = {"by": "difference" if by_difference else "ratio"} if relative else {}
    made["data"], made["key"] = _cells(run, when, values, quantity, suffix, by)
    made["data"] += _mark_traces(marks, run.label)
    starts = run.blocks
    if inner / max(len(names), 1) >= 6 and len(starts) <= len(run.layers) / 2:
        made["layout"]["shapes"] = [_line_above(start + len(whole)) for start in starts[1:]]
    return made


_WHOLE = "whole model"


def _labels(run: RunView, offset: int, pixels: float, marked: Collection[str]) -> dict[str, str]:
    """Category → label: every row's name if there is room, otherwise those of the rows in ``marked`` and of the blocks,
    thinned until they fit.
    """
    names = {escape(layer): short for layer, short in zip(run.layers, run.short_names, strict=True)}
    kept = names
    if pixels < LABEL:
        rows = list(names.items())
        room = LABEL / max(pixels, 1e-9)
        taken: dict[int, str] = {}
        said = [(row, short) for row, (name, short) in enumerate(rows) if name in marked]
        for row, label in [*said, *((start, rows[start][1].split(BETWEEN)[0]) for start in run.blocks)]:
            if all(abs(row - other) >= room for other in taken):
                taken[row] = label
        kept = {rows[row][0]: taken[row] for row in sorted(taken)}
    return {**({_WHOLE: _WHOLE} if offset else {}), **kept}


def _line_above(row: int) -> Spec:
    """A gap between two blocks."""
    place = {"xref": "x domain", "x0": 0, "x1": 1, "yref": "y", "y0": row - 0.5, "y1": row - 0.5}
    return {"type": "line", **place, "line": {"color": PAPER, "width": 1.5}}


def _colours(
    shown: Sequence[np.ndarray], runs: Sequence[RunView], quantity: str, relative: bool, by_difference: bool
) -> Spec:
    """The common colour axis: fixed ranges for alpha, the 2 % to 98 % quantiles for other quantities."""
    bar = {
        "title": {"text": ""},
        "orientation": "h",
        "thickness": 9,
        "outlinewidth": 0,
        "x": 0,
        "xanchor": "left",
        "xpad": 0,
        "len": 1,
        "y": 1,
        "yanchor": "bottom",
        "ypad": 6,
        "tickfont": {"size": 10},
        "nticks": 5,
        "exponentformat": "power",
    }
    if quantity == "alpha" and not relative:
        ticks = {"tickvals": [1, 2, 4, 6, 8], "ticktext": ["1", "2", "4", "6", "8+"]}
        low, high = ALPHA_RANGE
        return {"colorscale": ALPHA_SCALE, "cmin": low, "cmax": high, "colorbar": {**bar, **ticks}}
    pooled = []
    for values, run in zip(shown, runs, strict=True):
        sure = run.sure(quantity)[:, run.measured(quantity)] if values.size else np.ones(values.shape, dtype=bool)
        kept = values[np.isfinite(values) & sure]
        pooled.append(kept if len(kept) else values[np.isfinite(values)])
    finite = np.concatenate(pooled) if pooled else np.empty(0)
    low, high = np.quantile(finite, [0.02, 0.98]) if len(finite) else (0.0, 1.0)
    if low == high:
        low, high = low - max(abs(low), 1) * 1e-3, high + max(abs(high), 1) * 1e-3
    centre = 1.0 if relative and not by_difference else 0.0
    if relative or low < 0 < high or quantity == "scale_collapse":
        bound = max(abs(low - centre), abs(high - centre))
        return {"colorscale": ZERO_SCALE, "cmin": centre - bound, "cmax": centre + bound, "colorbar": bar}
    return {"colorscale": CIVIDIS, "cmin": float(low), "cmax": float(high), "colorbar": bar}


def _cells(
    run: RunView, when: np.ndarray, values: np.ndarray, quantity: str, suffix: str, by: Spec
) -> tuple[list[Spec], list[tuple[str, str]]]:
    """The values: those without evidence are faint, and missing ones have a separate colour; with the legend."""
    if not len(when):
        return [], [("", "not measured in this run")]
    sure, status = run.sure(quantity)[:, when], run.status[:, when]
    finite = np.isfinite(values)
    unsure = finite & ~sure
    broken = (status != "ok") & (status != "") & ~finite
    shared: Spec = {
        "type": "heatmap",
        "x": run.epochs[when],
        "y": [escape(layer) for layer in run.layers],
        "hoverongaps": False,
    }
    meta: Spec = {"role": "layers", "run": run.label, "layers": run.layers, **by}
    hover = f"%{{y}}<br>epoch %{{x:.4g}}<br>{escape(quantity)}{suffix} = %{{z:.4g}}"
    cells = [
        {
            **shared,
            "z": np.where(finite & sure, values, np.nan),
            "coloraxis": "coloraxis",
            "hovertemplate": f"{hover}<extra></extra>",
            "meta": {**meta, "part": "sure"},
        }
    ]
    errors = _errors(run, when, quantity, by)
    if run.estimated(quantity):
        cells[0]["text"] = [[*map(with_error, *row)] for row in zip(values, errors, strict=True)]
        cells[0]["hovertemplate"] = f"{hover.replace('%{z:.4g}', '%{text}')}<extra></extra>"
    elif not suffix and np.isfinite(errors).any():
        cells[0]["hovertemplate"] = f"{hover} ± %{{customdata:.2g}}<extra></extra>"
    if not suffix and np.isfinite(errors).any():
        cells[0]["customdata"] = errors
    key: list[tuple[str, str]] = []
    if quantity == "alpha" and not suffix:
        key += [(ALPHA_SCALE[1][1], "below 2: very heavy tail"), (ALPHA_SCALE[4][1], "above 6: hardly a tail")]
    if unsure.any():
        key.append(("#7fc4c0" + f"{round(255 * FAINT):02x}", "faint: too little evidence for α"))
        cells.append(
            {
                **shared,
                "z": np.where(unsure, values, np.nan),
                "text": np.where(unsure, run.evidence[:, when], "").tolist(),
                "coloraxis": "coloraxis",
                "opacity": FAINT,
                "hovertemplate": f"{hover}, unsure: %{{text}}<extra></extra>",
                "meta": {**meta, "part": "unsure"},
            }
        )
    if broken.any():
        key.append((PURPLE, "no value: NaN or infinite weights, all zero, or the measurement failed"))
        cells.append(
            {
                **shared,
                "z": np.where(broken, 1.0, np.nan),
                "text": np.where(broken, status, "").tolist(),
                "colorscale": [[0, PURPLE], [1, PURPLE]],
                "showscale": False,
                "hovertemplate": "%{y}<br>epoch %{x:.4g}<br>no value: %{text}<extra></extra>",
                "meta": {**meta, "part": "broken"},
            }
        )
    if (~finite & ~broken).any():
        key.append((PAPER, "empty: no number here (not measured, or not finite)"))
    return cells, key


def _marks(run: RunView, quantity: str, notes: bool) -> list[tuple[Alert, str]]:
    """The alerts that ``quantity`` raises, in the rows of their layers, or in the row of the whole model."""
    kinds = {kind for kind, read in rules().items() if any(rule.quantity == quantity for rule in read)} | {"non-finite"}
    known = set(run.layers)
    return [
        (alert, row)
        for alert in run.alerts
        if (notes or alert.severity != "info") and (alert.kind in kinds or not alert.layers)
        for row in [escape(layer) for layer in alert.layers if layer in known] or [_WHOLE]
    ]


def _mark_traces(marks: Sequence[tuple[Alert, str]], label: str) -> list[Spec]:
    """A symbol where an alert was reported and a line back to its start; the worst if several were reported
    together.
    """
    spots: dict[tuple[float, str], list[Alert]] = {}
    for alert, row in sorted(marks, key=lambda pair: -SEVERITIES.index(pair[0].severity)):
        spots.setdefault((alert.epoch, row), []).append(alert)
    traces: list[Spec] = []
    for severity in SEVERITIES:
        here = {spot: alerts for spot, alerts in spots.items() if alerts[0].severity == severity}
        if not here:
            continue
        back_x: list[float | None] = []
        back_y: list[str | None] = []
        for (epoch, row), alerts in here.items():
            back_x += [min(alert.since_epoch for alert in alerts), epoch, None]
            back_y += [row, row, None]
        colour = SEVERITY_COLOURS[severity]
        shared: Spec = {
            "type": "scatter",
            "showlegend": False,
            "meta": {"role": "alerts", "run": label, "severity": severity},
        }
        line = {"color": colour, "width": 2.5}
        traces.append({**shared, "mode": "lines", "x": back_x, "y": back_y, "line": line, "hoverinfo": "skip"})
        traces.append(
            {
                **shared,
                "mode": "markers",
                "x": [epoch for epoch, _ in here],
                "y": [row for _, row in here],
                "marker": {
                    "symbol": SEVERITY_SYMBOLS[severity],
                    "size": 10,
                    "color": colour,
                    "line": {"color": INK, "width": 1},
                },
                "name": f"{severity} alert",
                "text": [describe_alerts(alerts, label) for alerts in here.values()],
                "hovertemplate": "%{text}<extra></extra>",
            }
        )
    return traces
