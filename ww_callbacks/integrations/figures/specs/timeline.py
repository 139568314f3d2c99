"""The run over time: verdict and alerts over the loss, and below it the model-level quantities."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ww_callbacks.integrations.figures.run_view import RunView
from ww_callbacks.integrations.figures.specs.marks import alert_traces
from ww_callbacks.integrations.figures.style import (
    GREY,
    INK,
    RUN_COLOURS,
    RUN_DASHES,
    Spec,
    axis,
    escape,
    explain,
    faint,
    heading,
    layout,
    message_figure,
)
from ww_callbacks.integrations.quantity_info import quantity_info
from ww_callbacks.spectral.representation.quantities import PROBE_QUANTITIES

PANEL, GAP, TOP, BOTTOM = 98, 32, 62, 46
FIRST = 200
STATE_COLOURS = {
    "watch": "rgba(230,159,0,0.10)",
    "overtraining": "rgba(213,94,0,0.12)",
    "collapsing": "rgba(213,94,0,0.12)",
    "diverging": "rgba(213,94,0,0.12)",
    "broken": "rgba(213,94,0,0.16)",
}


def timeline_spec(runs: Sequence[RunView]) -> Spec:
    """The timeline of ``runs``, overlaid."""
    if not any(len(run.steps) for run in runs):
        return message_figure("No snapshot yet: the first one appears when training starts.")
    losses = sorted({name for run in runs for name in run.metrics if "loss" in name}, key=_loss_order)
    others = sorted({name for run in runs for name in run.metrics if "accuracy" in name})
    panels: list[tuple[str, str, str]] = [("Loss" if losses else "Alerts (the loop told no loss)", "", "loss")]
    panels += [(name.replace("_", " "), "what the training loop told", f"metrics/{name}") for name in others]
    panels += [(f"{quantity_info(name).title}: {_shown(name)}", explain(name), name) for name in _headlines(runs)]
    whole = _of_model(runs)
    panels += [(f"{quantity_info(name).title}: one value for the whole model", explain(name), name) for name in whole]
    panels.append(("Share of wall time spent in this callback", "", "overhead"))
    heights = [FIRST] + [PANEL] * (len(panels) - 1)
    height = TOP + BOTTOM + sum(heights) + GAP * (len(panels) - 1)
    spec: Spec = {"data": [], "layout": layout(height, margin={"l": 64, "r": 24, "t": TOP, "b": BOTTOM}, shapes=[])}
    spec["layout"]["annotations"] = []
    spec["layout"]["hovermode"] = "x"
    inner, top = height - TOP - BOTTOM, 1.0
    for number, ((title, hover, what), pixels) in enumerate(zip(panels, heights, strict=True), start=1):
        bottom = top - pixels / inner
        last = number == len(panels)
        suffix = "" if number == 1 else str(number)
        spec["layout"][f"yaxis{suffix}"] = axis(domain=[max(bottom, 0), top], nticks=5, tickformat=".3~g")
        if what == "overhead":
            spec["layout"][f"yaxis{suffix}"].update(tickformat=".1~%", rangemode="tozero")
        spec["layout"][f"xaxis{suffix}"] = axis(
            "epochs completed" if last else "",
            anchor=f"y{suffix}",
            showticklabels=last,
            domain=[0, 1],
            **({} if number == 1 else {"matches": "x"}),
        )
        spec["layout"]["annotations"].append(heading(escape(title), 0, top, hover=hover, yshift=2))
        for position, run in enumerate(runs):
            place = {"xaxis": f"x{suffix}", "yaxis": f"y{suffix}"}
            style = {"color": RUN_COLOURS[position % 5], "dash": RUN_DASHES[position % 5]}
            if what == "loss":
                spec["data"] += _losses(run, position, losses, place)
            elif what.startswith("metrics/") or what == "overhead":
                spec["data"] += _line(run, what, place, style, position)
            elif what in whole:
                spec["data"] += _single(run, what, place, style, position)
            else:
                spec["data"] += _band(run, what, place, style, position)
        top = bottom - GAP / inner
    shown: set[str] = set()
    for position, run in enumerate(runs):
        loss = next((run.model(f"metrics/{name}") for name in losses if name in run.metrics), None)
        placed = [(alert, _height(run, loss, alert.epoch)) for alert in run.alerts]
        spec["data"] += alert_traces(placed, {"xaxis": "x", "yaxis": "y"}, legend=shown, label=run.label)
        _mark_verdict(spec, run, position, alone=len(runs) == 1)
    return spec


def _loss_order(name: str) -> tuple[bool, str]:
    return (name != "train_loss", name)


def _headlines(runs: Sequence[RunView]) -> list[str]:
    """The quantities of which the record holds a median, headline ones first in the order of the columns."""
    names = [
        column.removesuffix("/median") for run in runs for column in map(str, run.record.model) if "/median" in column
    ]
    return list(dict.fromkeys(names))


def _of_model(runs: Sequence[RunView]) -> list[str]:
    """The quantities with one value for the whole model that one of ``runs`` measured."""
    return [
        name
        for name, quantity in PROBE_QUANTITIES.items()
        if quantity.scope == "model"
        and any((values := run.model(name)) is not None and np.isfinite(values).any() for run in runs)
    ]


def _shown(name: str) -> str:
    """What the panel of a quantity shows of its layers."""
    worst = {"low": ", lowest layer dotted", "high": ", highest layer dotted"}.get(quantity_info(name).worst, "")
    return f"median, band of 10–90 % of the layers{worst}"


def _line(run: RunView, column: str, place: Spec, style: Spec, position: int) -> list[Spec]:
    values = run.model(column)
    if values is None or not np.isfinite(values).any():
        return []
    form = "%{y:.2%}" if column == "overhead" else "%{y:.4g}"
    return [
        {
            "type": "scatter",
            "mode": "lines",
            "x": run.epochs,
            "y": values,
            "line": {**style, "width": 1.5},
            "name": escape(run.label),
            "legendgroup": str(position),
            "showlegend": False,
            "hovertemplate": f"{form}<extra>{escape(run.label)}</extra>",
            **place,
        }
    ]


def _single(run: RunView, name: str, place: Spec, style: Spec, position: int) -> list[Spec]:
    """One value for the whole model, at the snapshots that have it: few, so that each is marked."""
    lines = _line(run, name, place, style, position)
    for trace in lines:
        keep = np.isfinite(trace["y"])
        trace.update(x=run.epochs[keep], y=trace["y"][keep], mode="lines+markers")
    return lines


def _losses(run: RunView, position: int, losses: Sequence[str], place: Spec) -> list[Spec]:
    """The losses of one run: the first as a solid line, the others dotted; the run's own entry of the legend."""
    lines = []
    for number, name in enumerate(losses):
        for line in _line(run, f"metrics/{name}", place, {"color": RUN_COLOURS[position % 5]}, position):
            label = f"{run.label}: {name.replace('_', ' ')}"
            line.update(name=escape(label), showlegend=True)
            line["hovertemplate"] = f"%{{y:.4g}}<extra>{escape(label)}</extra>"
            line["line"]["dash"] = RUN_DASHES[position % 5] if number == 0 else "dot"
            line["line"]["width"] = 2.2 if number == 0 else 1.4
            lines.append(line)
    return lines


def _band(run: RunView, name: str, place: Spec, style: Spec, position: int) -> list[Spec]:
    """Median as a line and the inner 80 % of the layers as a band."""
    low, high = run.model(f"{name}/q10"), run.model(f"{name}/q90")
    # Cheap snapshots have no summary of what needs a spectrum: leave them out, so that the line is not torn there.
    keep = run.measured(name)
    band: list[Spec] = []
    if low is not None and high is not None:
        edge = {"type": "scatter", "mode": "lines", "line": {"width": 0}, "x": run.epochs[keep], "hoverinfo": "skip"}
        group = {"legendgroup": str(position), "showlegend": False, **place}
        band = [
            {**edge, **group, "y": low[keep]},
            {**edge, **group, "y": high[keep], "fill": "tonexty", "fillcolor": faint(style["color"])},
        ]
    line = _line(run, f"{name}/median", place, style, position)
    for trace in line:
        trace.update(x=run.epochs[keep], y=trace["y"][keep])
        trace["line"]["width"] = 2
    return band + line + _worst(run, name, place, style, position)


def _worst(run: RunView, name: str, place: Spec, style: Spec, position: int) -> list[Spec]:
    """The layer at the end that is worth a look, as a thin line."""
    worst = quantity_info(name).worst
    if worst not in ("low", "high"):
        return []
    keep = run.measured(name)
    lines = _line(run, f"{name}/{'min' if worst == 'low' else 'max'}", place, {**style, "dash": "dot"}, position)
    for trace in lines:
        trace.update(x=run.epochs[keep], y=trace["y"][keep])
        trace["line"]["width"] = 1
        label = f"{run.label}, {'lowest' if worst == 'low' else 'highest'} layer"
        trace["hovertemplate"] = f"%{{y:.4g}}<extra>{escape(label)}</extra>"
    return lines


def _height(run: RunView, loss: np.ndarray | None, epoch: float) -> float:
    """Where on the loss panel the mark of ``epoch`` sits: on the run's loss where there is one."""
    if loss is not None:
        finite = np.flatnonzero(np.isfinite(loss))
        if len(finite):
            return float(np.interp(epoch, run.epochs[finite], loss[finite]))
    return 0.0


def _mark_verdict(spec: Spec, run: RunView, position: int, alone: bool) -> None:
    """Shade the time since which the verdict holds and mark the snapshot to keep."""
    verdict = run.verdict
    if verdict is None:
        return
    colour = STATE_COLOURS.get(verdict.state)
    end = float(run.epochs[-1]) if len(run.epochs) else 0.0
    if colour and verdict.since_epoch is not None:
        spec["layout"]["shapes"].append(
            {
                "type": "rect",
                "xref": "x",
                "yref": "paper",
                "x0": verdict.since_epoch,
                "x1": max(end, verdict.since_epoch),
                "y0": 0,
                "y1": 1,
                "fillcolor": colour,
                "line": {"width": 0},
                "layer": "below",
            }
        )
        note = f"{escape(run.label)}: {verdict.state}" if not alone else verdict.state
        spec["layout"]["annotations"].append(
            _flag(f"{escape(note)} since epoch {verdict.since_epoch:.4g}", verdict.since_epoch, position, INK)
        )
    if verdict.best_epoch is not None:
        spec["layout"]["shapes"].append(
            {
                "type": "line",
                "xref": "x",
                "yref": "paper",
                "x0": verdict.best_epoch,
                "x1": verdict.best_epoch,
                "y0": 0,
                "y1": 1,
                "line": {"color": RUN_COLOURS[position % 5], "dash": "dot", "width": 1.5},
            }
        )
        note = "snapshot to keep" if alone else f"{escape(run.label)}: snapshot to keep"
        spec["layout"]["annotations"].append(_flag(note, verdict.best_epoch, position + 1, GREY))


def _flag(text: str, epoch: float, row: int, colour: str) -> Spec:
    """A note at the top of the first panel, to the right of ``epoch``."""
    return {
        "text": text,
        "x": epoch,
        "y": 1,
        "xref": "x",
        "yref": "paper",
        "xanchor": "left",
        "yanchor": "top",
        "yshift": -16 * row,
        "showarrow": False,
        "font": {"size": 11, "color": colour},
        "bgcolor": "rgba(255,255,255,0.7)",
    }
