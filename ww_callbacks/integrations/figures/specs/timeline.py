"""The timeline of a run: the loss, the model-level quantities below, and the alert lane above."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ww_callbacks.integrations.figures.alert_rules import score_threshold
from ww_callbacks.integrations.figures.palette import GREY, INK, faint, run_style
from ww_callbacks.integrations.figures.run_summary import over_budget
from ww_callbacks.integrations.figures.run_view import RunView
from ww_callbacks.integrations.figures.specs.epoch_markers import epoch_range, mark_verdicts
from ww_callbacks.integrations.figures.style import Spec, axis, message_panel, over_time, panel
from ww_callbacks.integrations.figures.text import escape
from ww_callbacks.integrations.quantity_info import quantity_info
from ww_callbacks.spectral.aggregate.summary import ESTIMATED
from ww_callbacks.spectral.measuring.accuracy import ERROR
from ww_callbacks.spectral.number_text import with_error
from ww_callbacks.spectral.representation.quantities import PROBE_QUANTITIES

LOSS, PANEL = 250, 178
SCORE = "overtraining/score"
LOSS_DASHES = ("solid", "dot", "dashdot", "longdash")


def timeline_panels(runs: Sequence[RunView]) -> list[Spec]:
    """The panels of the overlaid ``runs``: losses, other metrics, the score of overtraining, the quantities."""
    if not any(len(run.steps) for run in runs):
        return [message_panel("No snapshot yet: the first one appears when training starts.")]
    panels = _loss_panels(runs)
    for name in sorted({name for run in runs for name in run.metrics if "accuracy" in name}):
        panels.append(_time_panel(name.replace("_", " "), "as reported by the training loop"))
        _add(panels[-1], runs, f"metrics/{name}")
    if any((score := run.model(SCORE)) is not None and (score > 0).any() for run in runs):
        panels.append(_score_panel(runs))
    for name in _headlines(runs):
        known = quantity_info(name)
        panels.append(_time_panel(f"{known.title}: {_shown(name, len(runs))}", f"{name}: {known.definition}"))
        for position, run in enumerate(runs):
            panels[-1]["data"] += _band(run, name, position, alone=len(runs) == 1)
    for name in _of_model(runs):
        known = quantity_info(name)
        panels.append(_time_panel(f"{known.title}: one value for the whole model", f"{name}: {known.definition}"))
        for position, run in enumerate(runs):
            panels[-1]["data"] += _single(run, name, position)
    costly = [run for run in runs if over_budget(run)]
    if costly:
        panels.append(_time_panel("callback's share of the time, above the budget", "The budget is `max_overhead`."))
        _add(panels[-1], costly, "overhead")
        panels[-1]["layout"]["yaxis"].update(tickformat="~%", rangemode="tozero")
    for one in panels:
        one["layout"]["xaxis"]["range"] = epoch_range(runs)
        mark_verdicts(one, runs, flags=one is panels[0])
    return panels


def _loss_panels(runs: Sequence[RunView]) -> list[Spec]:
    """The losses: for one run, one panel with a dash per loss; for several runs, one panel per loss with a dash per
    run.
    """
    losses = sorted(
        {name for run in runs for name in run.metrics if "loss" in name and name != "first_loss"}, key=_loss_order
    )
    together = [losses] if len(runs) == 1 or len(losses) < 2 else [[name] for name in losses]
    panels = [_loss_panel(runs, names) for names in together]
    if len(panels) == 1:
        panels[0]["wide"] = True
    else:  # next to others: as high as they are, so that a row has one line of titles
        for one in panels:
            one["layout"]["height"] = PANEL
    return panels


def _loss_panel(runs: Sequence[RunView], losses: Sequence[str]) -> Spec:
    named = [
        f"{name.replace('_', ' ')}{f' ({_DASH_WORDS[i]})' if len(losses) > 1 else ''}"
        for i, name in enumerate(losses[:4])
    ]
    title = ", ".join(named) if losses else "no loss was reported by the training loop"
    made = _time_panel(title, "as reported by the training loop", height=LOSS if losses else PANEL)
    for number, name in enumerate(losses):
        for position, run in enumerate(runs):
            for line in _line(run, f"metrics/{name}", position):
                label = f"{run.label}: {name.replace('_', ' ')}"
                line.update(name=escape(label), showlegend=True)
                line["hovertemplate"] = f"%{{y:.4g}}<extra>{escape(label)}</extra>"
                if len(losses) > 1:
                    line["line"]["dash"] = LOSS_DASHES[number % len(LOSS_DASHES)]
                line["line"]["width"] = 2.2 if number == 0 else 1.6
                made["data"].append(line)
    return made


_DASH_WORDS = ("line", "dotted", "dash-dotted", "dashed")


def _score_panel(runs: Sequence[RunView]) -> Spec:
    """The probability that further training makes the model worse, with the threshold of an alarm."""
    made = _time_panel(
        "probability that further training makes the model worse",
        f"{SCORE}: from the training signals, without validation values. Above the dotted line an epoch counts "
        "towards an alarm.",
    )
    _add(made, runs, SCORE)
    made["layout"]["yaxis"].update(range=[-0.03, 1.03], tickformat=".0%")
    made["layout"]["shapes"].append(level(score_threshold()))
    return made


def level(value: float) -> Spec:
    """A dotted line across the panel at the threshold ``value``."""
    return {
        "type": "line",
        "xref": "x domain",
        "x0": 0,
        "x1": 1,
        "yref": "y",
        "y0": value,
        "y1": value,
        "line": {"color": INK, "width": 1.4, "dash": "dot"},
    }


def _time_panel(title: str, about: str, height: int = PANEL) -> Spec:
    return panel(title, height, xaxis=over_time(), yaxis=axis(nticks=5), about=about, group="time", hovermode="x")


def _loss_order(name: str) -> tuple[bool, str]:
    return (name != "train_loss", name)


def _headlines(runs: Sequence[RunView]) -> list[str]:
    """The quantities with a median in the record, headline ones first, in the order of the columns."""
    names = [
        column.removesuffix("/median")
        for run in runs
        for column in map(str, run.record.model)
        if column.endswith("/median")
    ]
    return list(dict.fromkeys(names))


def _of_model(runs: Sequence[RunView]) -> list[str]:
    """The measured quantities with one value for the whole model."""
    return [
        name
        for name, quantity in PROBE_QUANTITIES.items()
        if quantity.scope == "model"
        and any((values := run.model(name)) is not None and np.isfinite(values).any() for run in runs)
    ]


def _shown(name: str, runs: int) -> str:
    """Which statistics of the layers the panel of a quantity shows."""
    if runs > 1:
        return "median over the layers"
    worst = {"low": ", lowest layer dotted", "high": ", highest layer dotted"}.get(quantity_info(name).worst, "")
    return f"median, 10–90 % of the layers{worst}"


def _add(made: Spec, runs: Sequence[RunView], column: str) -> None:
    for position, run in enumerate(runs):
        made["data"] += _line(run, column, position)


def _line(run: RunView, column: str, position: int) -> list[Spec]:
    values = run.model(column)
    if values is None or not np.isfinite(values).any():
        return []
    form = "%{y:.2%}" if column == "overhead" else "%{y:.4g}"
    return [
        {
            "type": "scatter",
            "mode": "lines" if np.isfinite(values).sum() > 1 else "markers",
            "x": run.epochs,
            "y": values,
            "line": {**run_style(position), "width": 1.8},
            "marker": {"color": run_style(position)["color"], "size": 7},
            "name": escape(run.label),
            "showlegend": False,
            "hovertemplate": f"{form}<extra>{escape(run.label)}</extra>",
            "meta": {"run": run.label},
        }
    ]


def _single(run: RunView, name: str, position: int) -> list[Spec]:
    """One value for the whole model, with a mark at each snapshot that has it."""
    lines = _line(run, name, position)
    for trace in lines:
        keep = np.isfinite(trace["y"])
        trace.update(x=run.epochs[keep], y=trace["y"][keep], mode="lines+markers")
    return lines


def _band(run: RunView, name: str, position: int, *, alone: bool) -> list[Spec]:
    """The median as a line; for a single run also the inner 80 % of the layers as a band, and the worst layer."""
    # Cheap snapshots have no summary of quantities that need a spectrum: skip them, so that the line is not
    # interrupted.
    keep = run.measured(name)
    lines = _statistic(run, name, "median", position)
    if alone:
        lines = _edges(run, name, keep) + lines + _worst(run, name)
    for trace in lines:
        trace.update(x=run.epochs[keep], y=trace["y"][keep])
        if "text" in trace:
            trace["text"] = [trace["text"][place] for place in keep]
    return lines


def _statistic(run: RunView, name: str, statistic: str, position: int) -> list[Spec]:
    """A statistic of ``name`` over the layers; its hover shows its error where values are estimates."""
    lines = _line(run, f"{name}/{statistic}", position)
    errors, estimated = run.model(f"{name}/{statistic}{ERROR}"), run.model(f"{name}/{ESTIMATED}")
    if errors is not None and estimated is not None:
        for trace in lines:
            among = [f", {count:.0f} of the layers estimated" if count > 0 else "" for count in estimated]
            values = map(with_error, trace["y"], errors)
            trace["text"] = [value + count for value, count in zip(values, among, strict=True)]
            trace["hovertemplate"] = trace["hovertemplate"].replace("%{y:.4g}", "%{text}")
    return lines


def _edges(run: RunView, name: str, keep: np.ndarray) -> list[Spec]:
    low, high = run.model(f"{name}/q10"), run.model(f"{name}/q90")
    if low is None or high is None:
        return []
    edge = {"type": "scatter", "mode": "lines", "line": {"width": 0}, "hoverinfo": "skip", "showlegend": False}
    edge |= {"x": run.epochs, "meta": {"run": run.label}}
    fill = {"fill": "tonexty", "fillcolor": faint(run_style(0)["color"], 0.18)}
    return [{**edge, "y": low}, {**edge, "y": high, **fill}]


def _worst(run: RunView, name: str) -> list[Spec]:
    """The worst layer as a thin line."""
    worst = quantity_info(name).worst
    if worst not in ("low", "high"):
        return []
    lines = _statistic(run, name, "min" if worst == "low" else "max", 0)
    for trace in lines:
        trace["line"] = {"color": GREY, "width": 1.2, "dash": "dot"}
        label = f"{run.label}, {'lowest' if worst == 'low' else 'highest'} layer"
        trace["hovertemplate"] = f"%{{{'text' if 'text' in trace else 'y:.4g'}}}<extra>{escape(label)}</extra>"
    return lines
