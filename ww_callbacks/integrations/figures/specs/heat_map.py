"""Layers down, epochs across: any quantity of every layer at every snapshot, with the alerts on it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ww_callbacks.integrations.figures.run_view import RunView
from ww_callbacks.integrations.figures.specs.marks import alert_traces
from ww_callbacks.integrations.figures.style import (
    ALPHA_RANGE,
    ALPHA_SCALE,
    CIVIDIS,
    LIGHT_GREY,
    PURPLE,
    ZERO_SCALE,
    Spec,
    axis,
    escape,
    explain,
    heading,
    layout,
    message_figure,
)
from ww_callbacks.integrations.quantity_info import quantity_info
from ww_callbacks.integrations.schema import Alert
from ww_callbacks.spectral.representation.quantities import PROBE_QUANTITIES

WHOLE_MODEL = "whole model"


def heat_map_spec(runs: Sequence[RunView], quantity: str = "alpha") -> Spec:
    """The heat map of ``quantity``, one panel a run on one colour scale.

    Raises:
        ValueError: if no run measured it, or it is one value for the whole model.
    """
    known = dict.fromkeys(name for run in runs for name in run.quantities)
    if not any(len(run.steps) for run in runs):
        return message_figure("No snapshot yet: the first one appears when training starts.")
    if quantity in PROBE_QUANTITIES and PROBE_QUANTITIES[quantity].scope == "model":
        raise ValueError(
            f"Expected a quantity of layers, but `{quantity}` is one value for the whole model: where a probe measured "
            "it, it is drawn in the timeline (`figures.timeline`)."
        )
    if quantity not in known:
        raise ValueError(f"No run measured the quantity `{quantity}`. Expected one of: {', '.join(known)}.")
    rows = max(len(run.layers) for run in runs)
    height = 150 + min(max(rows * 24, 240), 900)
    spec: Spec = {"data": [], "layout": layout(height, annotations=[], margin={"l": 40, "r": 90, "t": 66, "b": 50})}
    spec["layout"]["coloraxis"] = _colours(runs, quantity)
    marks = [_placed(run) for run in runs]
    whole = [WHOLE_MODEL] if any(row == WHOLE_MODEL for placed in marks for _, row in placed) else []
    # Panels of the same layers share the names of the first.
    named = [position == 0 or run.layers != runs[position - 1].layers for position, run in enumerate(runs)]
    gaps = [0.0, *(_room(run) if own else 0.015 for run, own in zip(runs[1:], named[1:], strict=True))]
    width = (1 - sum(gaps)) / len(runs)
    shown: set[str] = set()
    for position, run in enumerate(runs):
        suffix = "" if position == 0 else str(position + 1)
        left = sum(gaps[: position + 1]) + position * width
        domain = [left, min(left + width, 1)]
        names = whole + run.short_names
        spec["layout"][f"xaxis{suffix}"] = axis("epochs completed", domain=domain, anchor=f"y{suffix}", showgrid=False)
        spec["layout"][f"yaxis{suffix}"] = axis(
            "first layer at the top" if position == 0 else "",
            anchor=f"x{suffix}",
            type="category",
            categoryorder="array",
            categoryarray=names,
            range=[len(names) - 0.5, -0.5],
            showgrid=False,
            tickfont={"size": 10},
            showticklabels=named[position],
        )
        title = (
            f"{escape(run.label)}: {quantity_info(quantity).title}"
            if len(runs) > 1
            else escape(quantity_info(quantity).title)
        )
        spec["layout"]["annotations"].append(heading(title, domain[0], 1, hover=explain(quantity), yshift=4))
        place = {"xaxis": f"x{suffix}", "yaxis": f"y{suffix}"}
        spec["data"] += _cells(run, quantity, place)
        spec["data"] += alert_traces(marks[position], place, legend=shown)
    _legend(spec, runs, quantity)
    return spec


def _room(run: RunView) -> float:
    """The share of the width that the names of the layers take, beside the panel before."""
    return min(0.03 + 0.006 * max(map(len, run.short_names), default=0), 0.2)


def _colours(runs: Sequence[RunView], quantity: str) -> Spec:
    """The colour axis that all panels share: alpha by its meaning, others between the 2 % and 98 % quantiles."""
    bar = {"title": {"text": quantity_info(quantity).title, "side": "right"}, "thickness": 14, "outlinewidth": 0}
    if quantity == "alpha":
        ticks = {"tickvals": [1, 2, 4, 6, 8], "ticktext": ["1", "2", "4", "6", "8+"]}
        low, high = ALPHA_RANGE
        return {"colorscale": ALPHA_SCALE, "cmin": low, "cmax": high, "colorbar": {**bar, **ticks}}
    pooled = [
        values[run.sure(quantity) & np.isfinite(values)]
        for run in runs
        if quantity in run.quantities
        for values in [run.values(quantity)]
    ]
    finite = np.concatenate(pooled) if pooled else np.empty(0)
    low, high = np.quantile(finite, [0.02, 0.98]) if len(finite) else (0.0, 1.0)
    if low == high:
        low, high = low - max(abs(low), 1) * 1e-3, high + max(abs(high), 1) * 1e-3
    if low < 0 < high or quantity == "scale_collapse":
        bound = max(abs(low), abs(high))
        return {"colorscale": ZERO_SCALE, "cmin": -bound, "cmax": bound, "colorbar": bar}
    return {"colorscale": CIVIDIS, "cmin": float(low), "cmax": float(high), "colorbar": bar}


def _cells(run: RunView, quantity: str, place: Spec) -> list[Spec]:
    """The values; over them, in colours of their own, the cells that must not be read as values."""
    if quantity not in run.quantities:
        # An axis without a trace would not be drawn.
        return [{"type": "scatter", "x": [None], "y": [None], "showlegend": False, **place}]
    when = run.measured(quantity)
    values, sure = run.values(quantity)[:, when], run.sure(quantity)[:, when]
    status = run.status[:, when]
    finite = np.isfinite(values)
    unsure = finite & ~sure
    broken = (status != "ok") & (status != "") & ~finite
    shared: Spec = {
        "type": "heatmap",
        "x": run.epochs[when],
        "y": run.short_names,
        "hoverongaps": False,
        "meta": {"role": "layers", "run": run.label, "layers": run.layers},
        **place,
    }
    cells = [
        {
            **shared,
            "z": np.where(finite & sure, values, np.nan),
            "coloraxis": "coloraxis",
            "hovertemplate": f"%{{y}}<br>epoch %{{x:.4g}}<br>{escape(quantity)} = %{{z:.4g}}<extra></extra>",
        }
    ]
    if unsure.any():
        reasons = np.where(unsure, run.evidence[:, when], "")
        cells.append(
            {
                **shared,
                "z": np.where(unsure, values, np.nan),
                "text": reasons.tolist(),
                "colorscale": [[0, LIGHT_GREY], [1, LIGHT_GREY]],
                "showscale": False,
                "hovertemplate": f"%{{y}}<br>epoch %{{x:.4g}}<br>{escape(quantity)} = %{{z:.4g}}, "
                "not to be trusted: %{text}<extra></extra>",
            }
        )
    if broken.any():
        cells.append(
            {
                **shared,
                "z": np.where(broken, 1.0, np.nan),
                "text": np.where(broken, status, "").tolist(),
                "colorscale": [[0, PURPLE], [1, PURPLE]],
                "showscale": False,
                "hovertemplate": "%{y}<br>epoch %{x:.4g}<br>no value: %{text}<extra></extra>",
            }
        )
    return cells


def _placed(run: RunView) -> list[tuple[Alert, float | str]]:
    """The alerts, each in the rows of its layers, or in the row of the whole model."""
    name_of = dict(zip(run.layers, run.short_names, strict=True))
    return [
        (alert, row)
        for alert in run.alerts
        for row in [name_of[layer] for layer in alert.layers if layer in name_of] or [WHOLE_MODEL]
    ]


def _legend(spec: Spec, runs: Sequence[RunView], quantity: str) -> None:
    """Entries for the two colours that are no values."""
    shown = {trace.get("colorscale", [[0, ""]])[0][1] for trace in spec["data"] if trace["type"] == "heatmap"}
    for colour, name in (
        (LIGHT_GREY, "grey: evidence does not suffice"),
        (PURPLE, "no value (non-finite, zero, failed)"),
    ):
        if colour in shown:
            spec["data"].append(
                {
                    "type": "scatter",
                    "mode": "markers",
                    "x": [None],
                    "y": [runs[0].short_names[0]],
                    "marker": {"symbol": "square", "size": 12, "color": colour},
                    "name": name,
                    "hoverinfo": "skip",
                }
            )
