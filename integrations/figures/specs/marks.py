"""Alerts as marks: a symbol where one was given, and a line back to when it began."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from integrations.figures.style import (
    INK,
    SEVERITIES,
    SEVERITY_COLOURS,
    SEVERITY_SYMBOLS,
    Spec,
    escape,
    wrap,
)
from integrations.schema import Alert


def alert_traces(placed: Iterable[tuple[Alert, float | str]], place: Spec, legend: bool, label: str = "") -> list[Spec]:
    """Two traces a severity, lines and symbols; alerts at the same epoch and height share one symbol.

    Args:
        placed: the alerts, each with its height on the y axis.
        place: the axes.
        legend: whether the severities get entries in the legend.
        label: the run's name, for the hover text.
    """
    grouped: dict[str, dict[tuple[float, float | str], list[Alert]]] = {}
    for alert, height in placed:
        grouped.setdefault(alert.severity, {}).setdefault((alert.epoch, height), []).append(alert)
    traces: list[Spec] = []
    for severity in SEVERITIES:
        groups = grouped.get(severity)
        if not groups:
            continue
        since_x: list[float | None] = []
        since_y: list[float | str | None] = []
        for (epoch, height), alerts in groups.items():
            since_x += [min(alert.since_epoch for alert in alerts), epoch, None]
            since_y += [height, height, None]
        colour = SEVERITY_COLOURS[severity]
        traces.append(
            {
                "type": "scatter",
                "mode": "lines",
                "x": since_x,
                "y": since_y,
                "line": {"color": colour, "width": 3},
                "hoverinfo": "skip",
                "showlegend": False,
                "legendgroup": severity,
                **place,
            }
        )
        traces.append(
            {
                "type": "scatter",
                "mode": "markers",
                "x": [epoch for epoch, _ in groups],
                "y": [height for _, height in groups],
                "marker": {
                    "symbol": SEVERITY_SYMBOLS[severity],
                    "size": 12,
                    "color": colour,
                    "line": {"color": INK, "width": 1},
                },
                "name": f"{severity} alert",
                "showlegend": legend,
                "legendgroup": severity,
                "text": [describe_alerts(alerts, label) for alerts in groups.values()],
                "hovertemplate": "%{text}<extra></extra>",
                "meta": {"role": "alerts"},
                **place,
            }
        )
    return traces


def describe_alerts(alerts: Sequence[Alert], label: str = "", most: int = 4) -> str:
    """What a hover label says of alerts given together."""
    parts = [escape(label)] if label else []
    for alert in alerts[:most]:
        where = ", ".join(alert.layers[:3]) + (f" and {len(alert.layers) - 3} more" if len(alert.layers) > 3 else "")
        parts.append(f"<b>{escape(alert.kind)}</b> ({alert.severity})")
        parts += [wrap(where)] if where else []
        parts.append(f"since epoch {alert.since_epoch:.4g}, said at {alert.epoch:.4g}")
        parts += [wrap(alert.message), f"<i>{wrap(alert.recommendation)}</i>"]
    if len(alerts) > most:
        parts.append(f"and {len(alerts) - most} more")
    return "<br>".join(parts)
