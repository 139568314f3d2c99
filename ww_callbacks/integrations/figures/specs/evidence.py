"""The evidence for a verdict: the quantity that raised it, its threshold, and the layers that crossed it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ww_callbacks.integrations.figures.alert_rules import (
    Rule,
    errors_relative_to,
    relative_to,
    rule_for,
    score_threshold,
)
from ww_callbacks.integrations.figures.palette import GREY, INK, RUN_DASHES, SEVERITIES, faint
from ww_callbacks.integrations.figures.run_summary import deciding_alerts
from ww_callbacks.integrations.figures.run_view import RunView
from ww_callbacks.integrations.figures.specs.epoch_markers import epoch_range, mark_verdicts
from ww_callbacks.integrations.figures.specs.timeline import SCORE, level
from ww_callbacks.integrations.figures.style import Spec, axis, over_time, panel
from ww_callbacks.integrations.figures.text import escape
from ww_callbacks.integrations.schema import Alert
from ww_callbacks.spectral.number_text import with_error

HEIGHT = 230
MOST_RUNS, MOST_KINDS, MOST_LAYERS = 3, 2, 5
LINE_COLOURS = ("#d55e00", "#882255", "#cc6677", "#8a5a2b", "#e69f00")


def evidence_panels(runs: Sequence[RunView]) -> list[Spec]:
    """For at most three of ``runs`` with a finding, the quantities that raised it."""
    found = [(run, deciding_alerts(run)) for run in runs]
    found = [(run, alerts) for run, alerts in found if alerts]
    found.sort(key=lambda pair: -SEVERITIES.index(pair[1][0].severity))
    panels = []
    for run, alerts in found[:MOST_RUNS]:
        for alert in alerts[:MOST_KINDS]:
            made = _panel(run, alert)
            if made is not None:
                if len(runs) > 1:
                    made["title"] = f"{run.label}: {made['title']}"
                panels.append(made)
    return panels


def _panel(run: RunView, alert: Alert) -> Spec | None:
    if alert.kind == "overtraining":
        return _overtraining(run)
    if alert.kind == "non-finite":
        return _non_finite(run)
    rule = rule_for(alert.kind, alert.layers, run)
    return None if rule is None else _layers(run, alert, rule)


def _layers(run: RunView, alert: Alert, rule: Rule) -> Spec:
    """The worst layers of the alert as lines, the others as a band, and the threshold."""
    when = run.measured(rule.quantity)
    values = relative_to(run.values(rule.quantity)[:, when], rule.relative)
    errors = errors_relative_to(run.values(rule.quantity)[:, when], run.errors(rule.quantity)[:, when], rule.relative)
    place = {name: row for row, name in enumerate(run.layers)}
    affected = [place[name] for name in alert.layers if name in place]
    worst = _worst_first(values, affected, rule)[:MOST_LAYERS]
    made = _time_panel(run, f"{alert.kind}: {rule.title}")
    others = np.setdiff1d(np.arange(len(run.layers)), affected)
    x = run.epochs[when]
    if len(others) > 1 and len(when):
        made["data"] += _band(x, values[others], f"the other {len(others)} layers")
    for number, row in enumerate(worst):
        name = escape(run.layers[row])
        made["data"].append(
            {
                **_line(x, values[row], LINE_COLOURS[number % len(LINE_COLOURS)], RUN_DASHES[number % len(RUN_DASHES)]),
                "name": name,
                "text": [*map(with_error, values[row], errors[row])],
                "hovertemplate": f"%{{text}}<extra>{name}</extra>",
            }
        )
    more = f" and {len(affected) - len(worst)} more" if len(affected) > len(worst) else ""
    made["key"] = [(LINE_COLOURS[n % len(LINE_COLOURS)], run.plain_names[row]) for n, row in enumerate(worst)]
    if more:
        made["key"].append(("", more.strip()))
    if len(others) > 1:
        made["key"].append((GREY, f"the other {len(others)} layers: median, 10–90 %"))
    made["key"].append((INK, "threshold (dotted)"))
    shown = [value for value in rule.thresholds if _near(values, value, rule)]
    made["layout"]["shapes"] += [level(value) for value in shown]
    if rule.log:
        made["layout"]["yaxis"]["type"] = "log"
    elif rule.relative == "highest":
        made["layout"]["yaxis"].update(range=[-0.03, 1.06], tickformat=".0%")
    else:
        _hold(made, shown)
    mark_verdicts(made, [run], flags=True)
    return made


def _worst_first(values: np.ndarray, rows: Sequence[int], rule: Rule) -> list[int]:
    """``rows`` by their last value, the worst first."""
    centre = sum(rule.thresholds) / len(rule.thresholds)

    def badness(row: int) -> float:
        known = values[row][np.isfinite(values[row])]
        if not len(known):
            return np.inf
        return {"low": -known[-1], "high": known[-1], "both": abs(known[-1] - centre)}[rule.worst]

    return sorted(rows, key=badness, reverse=True)


def _near(values: np.ndarray, threshold: float, rule: Rule) -> bool:
    """Whether to show a threshold: of several, only those near the values."""
    known = values[np.isfinite(values)]
    if len(rule.thresholds) == 1 or not len(known):
        return True
    room = np.ptp(known) or 1.0
    return bool(known.min() - room / 2 <= threshold <= known.max() + room / 2)


def _hold(made: Spec, levels: Sequence[float]) -> None:
    """Extend the axis to include the thresholds, because shapes do not."""
    x = made["layout"]["xaxis"]["range"]
    for value in levels:
        made["data"].append(
            {**_line(np.array(x), np.array([value, value]), GREY, "solid"), "opacity": 0, "hoverinfo": "skip"}
        )


def _overtraining(run: RunView) -> Spec | None:
    """The validation values with the best so far, or the score of the training signals with its threshold."""
    for name, best in (("val_loss", np.nanmin), ("val_accuracy", np.nanmax)):
        values = run.model(f"metrics/{name}")
        if values is not None and np.isfinite(values).sum() >= 3:
            made = _time_panel(run, f"overtraining: {name.replace('val_', 'validation ')}, and its best so far")
            trained = run.model(f"metrics/{name.replace('val_', 'train_')}")
            if trained is not None and np.isfinite(trained).any():
                made["data"].append(_named(run, trained, GREY, "dash", name.replace("val_", "training ")))
                made["key"].append((GREY, name.replace("val_", "training ") + " (dashed)"))
            made["data"].append(_named(run, values, LINE_COLOURS[0], "solid", name.replace("val_", "validation ")))
            made["key"].append((LINE_COLOURS[0], name.replace("val_", "validation ")))
            made["layout"]["shapes"].append(level(float(best(values))))
            mark_verdicts(made, [run], flags=True)
            return made
    score = run.model(SCORE)
    if score is None or not np.isfinite(score).any():
        return None
    made = _time_panel(run, "overtraining: probability that further training makes the model worse")
    made["data"].append(_named(run, score, LINE_COLOURS[0], "solid", "probability"))
    made["layout"]["shapes"].append(level(score_threshold()))
    made["layout"]["yaxis"].update(range=[-0.03, 1.03], tickformat=".0%")
    made["key"] = [(LINE_COLOURS[0], "probability"), (INK, "threshold of an alarm (dotted)")]
    mark_verdicts(made, [run], flags=True)
    return made


def _non_finite(run: RunView) -> Spec:
    """Number of layers that contain NaN or infinity."""
    made = _time_panel(run, "non-finite: layers that contain NaN or infinity")
    count = (run.status == "non-finite").sum(axis=0).astype(float)
    when = np.flatnonzero(run.full)
    made["data"].append(
        {
            **_line(run.epochs[when], count[when], LINE_COLOURS[0], "solid"),
            "line": {"color": LINE_COLOURS[0], "width": 2, "shape": "hv"},
            "hovertemplate": f"%{{y}} of {len(run.layers)} layers<extra></extra>",
        }
    )
    made["layout"]["yaxis"].update(rangemode="tozero", tickformat="d")
    mark_verdicts(made, [run], flags=True)
    return made


def _time_panel(run: RunView, title: str) -> Spec:
    return panel(
        title, HEIGHT, xaxis=over_time(range=epoch_range([run])), yaxis=axis(nticks=5), group="time", hovermode="x"
    )


def _named(run: RunView, values: np.ndarray, colour: str, dash: str, name: str) -> Spec:
    keep = np.isfinite(values)
    return {
        **_line(run.epochs[keep], values[keep], colour, dash),
        "name": name,
        "hovertemplate": f"%{{y:.4g}}<extra>{name}</extra>",
        "meta": {"run": run.label},
    }


def _line(x: np.ndarray, y: np.ndarray, colour: str, dash: str) -> Spec:
    return {
        "type": "scatter",
        "mode": "lines+markers" if len(x) <= 30 else "lines",
        "x": x,
        "y": y,
        "line": {"color": colour, "dash": dash, "width": 2},
        "marker": {"size": 4, "color": colour},
        "showlegend": False,
    }


def _band(x: np.ndarray, values: np.ndarray, name: str) -> list[Spec]:
    known = np.isfinite(values).any(axis=0)
    low, median, high = np.nanquantile(values[:, known], [0.1, 0.5, 0.9], axis=0)
    edge = {
        "type": "scatter",
        "mode": "lines",
        "line": {"width": 0},
        "x": x[known],
        "showlegend": False,
        "hoverinfo": "skip",
    }
    return [
        {**edge, "y": low},
        {**edge, "y": high, "fill": "tonexty", "fillcolor": faint(INK, 0.16)},
        {
            **edge,
            "y": median,
            "line": {"color": GREY, "width": 1.6},
            "hoverinfo": "all",
            "hovertemplate": f"%{{y:.4g}}<extra>{name}, median</extra>",
            "meta": {"role": "others"},
        },
    ]
