"""The alert lane: a narrow strip over the epochs, one row per kind and run, with bars over the time of each alert."""

from __future__ import annotations

from collections.abc import Sequence

from ww_callbacks.integrations.figures.palette import INK, SEVERITIES, SEVERITY_COLOURS, SEVERITY_SYMBOLS, faint
from ww_callbacks.integrations.figures.run_view import RunView
from ww_callbacks.integrations.figures.specs.epoch_markers import epoch_range
from ww_callbacks.integrations.figures.style import Spec, axis, over_time, panel
from ww_callbacks.integrations.figures.text import escape, wrap
from ww_callbacks.integrations.schema import Alert
from ww_callbacks.spectral.detectors.base import epoch_text

ROW = 30
"""Height of a row in pixels."""
BAR = 0.72
"""Position of the bar in its row, below the kind's name."""
MOST_ROWS = 12


def alert_lane(runs: Sequence[RunView], notes: bool = False) -> Spec | None:
    """The alert lane of ``runs``, one row per kind of alert and run; None if it is empty.

    Args:
        runs: the runs.
        notes: whether to show notes as well.
    """
    rows = _rows(runs, notes)
    if not rows:
        return None
    shown = rows[:MOST_ROWS]
    strip = panel(
        "Alerts",
        12 + ROW * len(shown),
        xaxis=over_time(range=epoch_range(runs), showticklabels=False, ticks="", showgrid=False, showline=False),
        yaxis=axis(
            range=[len(shown), 0], showticklabels=False, ticks="", showgrid=False, showline=False, fixedrange=True
        ),
        about="A bar starts where the alert began, its mark is where it was reported: ● note, ▲ warning, ✕ critical.",
        key=[("", f"and {len(rows) - len(shown)} more in other runs")] if len(rows) > len(shown) else [],
        wide=True,
        group="time",
        hovermode="closest",
    )
    strip["layout"]["xaxis"]["title"]["text"] = ""
    strip["layout"]["margin"].update(t=4, b=8)
    for row, (kind, run, alerts) in enumerate(shown):
        strip["layout"]["annotations"].append(
            {
                "text": escape(kind if len(runs) == 1 else f"{run.label}: {kind}"),
                "x": 0,
                "y": row,
                "xref": "x domain",
                "yref": "y",
                "xanchor": "left",
                "yanchor": "top",
                "showarrow": False,
                "font": {"size": 11, "color": INK},
            }
        )
        strip["data"] += _bar(run, alerts, row + BAR)
    return strip


def _rows(runs: Sequence[RunView], notes: bool) -> list[tuple[str, RunView, list[Alert]]]:
    """Kind, run and alerts: the worst and earliest kinds first, with runs in their order."""
    found = [
        (kind, run, [a for a in run.alerts if a.kind == kind and (notes or a.severity != "info")])
        for kind in _kinds(runs, notes)
        for run in runs
    ]
    return [row for row in found if row[2]]


def _kinds(runs: Sequence[RunView], notes: bool) -> list[str]:
    """The kinds of alert, the worst and the earliest first."""
    first: dict[str, tuple[int, float]] = {}
    for run in runs:
        for alert in run.alerts:
            if notes or alert.severity != "info":
                rank = (-SEVERITIES.index(alert.severity), alert.since_epoch)
                first[alert.kind] = min(first.get(alert.kind, rank), rank)
    return sorted(first, key=lambda kind: first[kind])


def _bar(run: RunView, alerts: Sequence[Alert], height: float) -> list[Spec]:
    """The bar of a kind in one run, with a mark at each report; the worst if several were reported together."""
    worst = max(alerts, key=lambda alert: SEVERITIES.index(alert.severity))
    since = min(alert.since_epoch for alert in alerts)
    now = max([alert.epoch for alert in alerts] + ([float(run.epochs[-1])] if len(run.epochs) else []))
    reported: dict[float, list[Alert]] = {}
    for alert in sorted(alerts, key=lambda alert: -SEVERITIES.index(alert.severity)):
        reported.setdefault(alert.epoch, []).append(alert)
    colour = SEVERITY_COLOURS[worst.severity]
    group = {"type": "scatter", "showlegend": False, "meta": {"role": "alerts", "run": run.label}}
    return [
        {
            **group,
            "mode": "lines",
            "x": [since, now],
            "y": [height, height],
            "line": {"color": faint(colour, 0.6), "width": 7},
            "hoverinfo": "skip",
        },
        {
            **group,
            "mode": "markers",
            "x": list(reported),
            "y": [height] * len(reported),
            "marker": {
                "symbol": [SEVERITY_SYMBOLS[alerts[0].severity] for alerts in reported.values()],
                "size": 10,
                "color": [SEVERITY_COLOURS[alerts[0].severity] for alerts in reported.values()],
                "line": {"color": INK, "width": 1},
            },
            "name": f"{worst.severity} alert",
            "text": [describe_alerts(alerts, run.label) for alerts in reported.values()],
            "hovertemplate": "%{text}<extra></extra>",
        },
    ]


def describe_alerts(alerts: Sequence[Alert], label: str = "", most: int = 4) -> str:
    """The hover label of alerts reported together."""
    parts = [escape(label)] if label else []
    for alert in alerts[:most]:
        where = ", ".join(alert.layers[:3]) + (f" and {len(alert.layers) - 3} more" if len(alert.layers) > 3 else "")
        parts.append(f"<b>{escape(alert.kind)}</b> ({'note' if alert.severity == 'info' else alert.severity})")
        parts += [wrap(where)] if where else []
        parts.append(f"since epoch {epoch_text(alert.since_epoch)}, reported at {epoch_text(alert.epoch)}")
        parts += [wrap(alert.message), f"<i>{wrap(alert.recommendation)}</i>"]
    if len(alerts) > most:
        parts.append(f"and {len(alerts) - most} more")
    return "<br>".join(parts)
