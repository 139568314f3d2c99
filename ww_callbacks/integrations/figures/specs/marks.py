"""Alerts as marks: a symbol where one was given, and a line back to when it began."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ww_callbacks.integrations.figures.style import (
    INK,
    SEVERITIES,
    SEVERITY_COLOURS,
    SEVERITY_SYMBOLS,
    Spec,
    escape,
    wrap,
)
from ww_callbacks.integrations.schema import Alert


def alert_traces(
    placed: Iterable[tuple[Alert, float | str]], place: Spec, legend: set[str], label: str = ""
) -> list[Spec]:
    """Two traces a severity, lines and symbols; alerts at the same epoch and height share the worst one's symbol.

    Args:
        placed: the alerts, each with its height on the y axis.
        place: the axes.
        legend: the severities that the figure's legend has already; those drawn here are added.
        label: the run's name, for the hover text.
    """
    groups: dict[tuple[float, float | str], list[Alert]] = {}
    for alert, height in placed:
        groups.setdefault((alert.epoch, height), []).append(alert)
    drawn: dict[str, list[tuple[float, float | str]]] = {}
    for spot, alerts in groups.items():
        alerts.sort(key=lambda alert: -SEVERITIES.index(alert.severity))
        drawn.setdefault(alerts[0].severity, []).append(spot)
    traces: list[Spec] = []
    for severity in SEVERITIES:
        spots = drawn.get(severity)
        if not spots:
            continue
        since_x: list[float | None] = []
        since_y: list[float | str | None] = []
        for epoch, height in spots:
            since_x += [min(alert.since_epoch for alert in groups[epoch, height]), epoch, None]
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
                "x": [epoch for epoch, _ in spots],
                "y": [height for _, height in spots],
                "marker": {
                    "symbol": SEVERITY_SYMBOLS[severity],
                    "size": 12,
                    "color": colour,
                    "line": {"color": INK, "width": 1},
                },
                "name": f"{severity} alert",
                "showlegend": severity not in legend,
                "legendgroup": severity,
                "text": [describe_alerts(groups[spot], label) for spot in spots],
                "hovertemplate": "%{text}<extra></extra>",
                "meta": {"role": "alerts"},
                **place,
            }
        )
        legend.add(severity)
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
