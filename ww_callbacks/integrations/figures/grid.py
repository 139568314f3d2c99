"""Joins panels into one plotly figure, in rows of at most three."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Sequence
from typing import Any

from ww_callbacks.integrations.figures.palette import PAPER
from ww_callbacks.integrations.figures.style import Spec, layout
from ww_callbacks.integrations.figures.text import escape, wrap

COLUMNS = 3
WIDTH = 1100
"""The width in pixels for which the layout is computed."""
BETWEEN, LEFT, RIGHT, BOTTOM = 66, 64, 24, 50
BAR = 90
LEGEND_LINE, LETTER = 20, 6.6


def joined(panels: Sequence[Spec], columns: int = COLUMNS) -> Spec:
    """One figure of ``panels``, in rows of at most ``columns``, with ``wide`` panels in separate rows."""
    rows = list(_rows(panels, columns))
    heights = [max(_inner(one) for one in row) for row in rows]
    names = {
        trace["name"]: None for one in panels for trace in one["data"] if trace.get("showlegend") and "name" in trace
    }
    keys = {text: colour for one in panels for colour, text in one["key"]}
    lines = math.ceil(sum(len(name) * LETTER + 46 for name in [*names, *keys]) / (WIDTH - LEFT - RIGHT))
    top = 34 + LEGEND_LINE * lines
    bars = any("coloraxis" in one["layout"] for one in panels)
    inner = sum(heights) + BETWEEN * (len(rows) - 1)
    margin = {"l": LEFT, "r": BAR if bars else RIGHT, "t": top, "b": BOTTOM}
    spec: Spec = {
        "data": [],
        "layout": layout(round(inner + top + BOTTOM), margin=margin, shapes=[], annotations=[], showlegend=bool(lines)),
    }
    spec["layout"]["legend"] = {"orientation": "h", "x": 0, "yref": "container", "y": 1, "yanchor": "top"}
    room = max(one["layout"]["margin"]["l"] for one in panels) / WIDTH
    first_of: dict[str, str] = {}
    shown: set[str] = set()
    upper, number = 1.0, 0
    for row, height in zip(rows, heights, strict=True):
        lower = max(upper - height / inner, 0.0)
        for one, domain in zip(
            row, _domains(len(row), 1 if row[0]["wide"] else min(columns, len(panels)), room), strict=True
        ):
            number += 1
            _place(spec, copy.deepcopy(one), number, domain, [lower, upper], first_of, shown)
        upper = lower - BETWEEN / inner
    spec["data"] += [_key(colour, text) for text, colour in keys.items()]
    return spec


def _rows(panels: Sequence[Spec], columns: int) -> Iterator[list[Spec]]:
    row: list[Spec] = []
    for one in panels:
        if row and (one["wide"] or len(row) == columns):
            yield row
            row = []
        row.append(one)
        if one["wide"]:
            yield row
            row = []
    if row:
        yield row


def _inner(one: Spec) -> float:
    margin = one["layout"]["margin"]
    return float(one["layout"]["height"] - margin["t"] - margin["b"])


def _domains(count: int, columns: int, room: float) -> list[list[float]]:
    """The share of the width of each of ``count`` panels in a row, with ``room`` for names between them."""
    width = (1 - room * (columns - 1)) / columns
    return [[left, min(left + width, 1.0)] for left in (at * (width + room) for at in range(count))]


def _place(
    spec: Spec,
    one: Spec,
    number: int,
    across: list[float],
    down: list[float],
    first_of: dict[str, str],
    shown: set[str],
) -> None:
    """Add the panel ``one`` as the axes ``number``."""
    suffix = "" if number == 1 else str(number)
    x, y = f"x{suffix}", f"y{suffix}"
    whole = spec["layout"]
    group = one["group"]
    matches = {"matches": first_of[group]} if group in first_of else {}
    if group:
        first_of.setdefault(group, x)
    whole[f"xaxis{suffix}"] = {**one["layout"]["xaxis"], "domain": across, "anchor": y, **matches}
    whole[f"yaxis{suffix}"] = {**one["layout"]["yaxis"], "domain": down, "anchor": x, "automargin": True}
    if "coloraxis" in one["layout"]:
        # Panels with the same colour scale share one colour bar.
        same = next((name for name, axis in whole.items() if name.startswith("coloraxis") and axis == _bar(one)), None)
        colours = same or f"coloraxis{suffix}"
        whole[colours] = _bar(one)
    for trace in one["data"]:
        trace.update(xaxis=x, yaxis=y)
        if "coloraxis" in trace:
            trace["coloraxis"] = colours
        if isinstance(trace.get("marker"), dict) and "coloraxis" in trace["marker"]:
            trace["marker"]["coloraxis"] = colours
        if trace.get("showlegend"):
            trace["showlegend"] = trace.get("name") not in shown
            shown.add(trace.get("name", ""))
        spec["data"].append(trace)
    if not one["data"]:  # axes without a trace would not be drawn
        spec["data"].append({"type": "scatter", "x": [None], "y": [None], "showlegend": False, "xaxis": x, "yaxis": y})
    for kind in ("shapes", "annotations"):
        for item in one["layout"][kind]:
            whole[kind].append({**item, "xref": _moved(item["xref"], x), "yref": _moved(item["yref"], y)})
    if one["title"]:
        whole["annotations"].append(_heading(one, across[0], down[1]))
    for name in ("barmode", "bargap", "hovermode", "boxmode"):
        if name in one["layout"]:
            whole[name] = one["layout"][name]


def _bar(one: Spec) -> Spec:
    """The panel's colour scale, with its bar to the right of the figure."""
    scale = dict(one["layout"]["coloraxis"])
    scale["colorbar"] = {
        name: value
        for name, value in scale["colorbar"].items()
        if name in ("title", "tickvals", "ticktext", "outlinewidth")
    } | {"thickness": 14, "len": 1, "y": 0.5}
    scale["colorbar"]["title"] = {**scale["colorbar"]["title"], "side": "right"}
    return scale


def _moved(reference: str, axis: str) -> str:
    """``x domain`` → ``x3 domain``."""
    return axis + reference[1:]


def _heading(one: Spec, x: float, y: float) -> Spec:
    return {
        "text": f"<b>{escape(one['title'])}</b>",
        "x": x,
        "y": y,
        "xref": "paper",
        "yref": "paper",
        "xanchor": "left",
        "yanchor": "bottom",
        "yshift": 4,
        "showarrow": False,
        "align": "left",
        "font": {"size": 12},
        **({"hovertext": wrap(one["about"]), "captureevents": True} if one["about"] else {}),
    }


def _key(colour: str, text: str) -> dict[str, Any]:
    """A legend entry for a colour without a line, or for text only."""
    colour = colour or "rgba(0,0,0,0)"
    marker = {
        "symbol": "square",
        "size": 12,
        "color": colour,
        "line": {"color": "#8a8a8a", "width": int(colour == PAPER)},
    }
    return {
        "type": "scatter",
        "mode": "markers",
        "x": [None],
        "y": [None],
        "marker": marker,
        "name": escape(text),
        "showlegend": True,
        "hoverinfo": "skip",
    }
