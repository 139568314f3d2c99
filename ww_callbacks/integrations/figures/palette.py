"""Colours that colour-blind readers can distinguish, for light and dark pages; never the only distinction.

Runs also differ by dash, severities by symbol, and layers without sufficient evidence have hollow marks. Figures are
made for a light page; :func:`dark` converts them for a dark page, and the dashboards do the same with the same table.
"""

from __future__ import annotations

import re
from typing import Any

BLUE, GREEN, PURPLE, SKY, ORANGE, VERMILION = "#0072b2", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#d55e00"
INK, GREY, LIGHT_GREY, GRID, PAPER = "#333333", "#8a8a8a", "#cfcfcf", "#e8e8e8", "#ffffff"

RUN_COLOURS = (BLUE, GREEN, PURPLE, INK, SKY, "#882255", "#999933", "#332288", "#cc6677", "#8a5a2b")
"""Okabe and Ito's colours without those of the severities, then Paul Tol's muted ones."""
RUN_DASHES = ("solid", "dash", "dot", "dashdot", "longdash")
SEVERITIES = ("info", "warning", "critical")
SEVERITY_COLOURS = {"info": SKY, "warning": ORANGE, "critical": VERMILION}
SEVERITY_SYMBOLS = {"info": "circle", "warning": "triangle-up", "critical": "x"}

CIVIDIS = ((0.0, "#00224e"), (0.25, "#434e6c"), (0.5, "#7d7c78"), (0.75, "#bcae6c"), (1.0, "#fee838"))
"""Five stops of cividis (Nuñez, Anderton, Renslow 2018), which looks the same with and without colour blindness."""

ALPHA_RANGE = (1.0, 8.0)
ALPHA_SCALE = tuple(
    ((alpha - ALPHA_RANGE[0]) / (ALPHA_RANGE[1] - ALPHA_RANGE[0]), colour)
    for alpha, colour in (
        (1.0, "#8c3600"),
        (2.0, "#f0923b"),
        (2.0, "#fdf6c4"),
        (6.0, "#7fc4c0"),
        (6.0, "#3f6fb0"),
        (8.0, "#10254f"),
    )
)
"""Colours of alpha: a step at 2 and one at 6, the ends of the range that WeightWatcher calls well trained."""

ZERO_SCALE = ((0.0, "#8c3601"), (0.25, "#e79a55"), (0.5, "#f4f4f0"), (0.75, "#7aa9d6"), (1.0, "#123b78"))
"""Orange below zero, blue above."""

DARK = {
    PAPER: "#1f2023",
    INK: "#e4e4e4",
    GREY: "#9a9a9a",
    LIGHT_GREY: "#55585c",
    GRID: "#3a3c40",
    BLUE: "#4aa3dc",
    GREEN: "#2cc79a",
    "#882255": "#d16a9c",
    "#332288": "#9d8df0",
    "#8a5a2b": "#c89058",
    "#8c3601": "#ffa45c",
    "#f4f4f0": "#2e3034",
    "#123b78": "#8fc0ff",
    "#00224e": "#1d3f6e",
}
"""Colours on light pages → colours on dark pages; others serve both."""

_COLOUR = re.compile(r"#[0-9a-f]{6}", re.IGNORECASE)
_WITH_OPACITY = re.compile(r"#[0-9a-f]{8}", re.IGNORECASE)


def run_style(position: int) -> dict[str, str]:
    """Colour and dash of the run at ``position``: ten colours by five dashes, the first fifty all different.

    >>> len({tuple(run_style(i).values()) for i in range(50)})
    50
    """
    colours, dashes = len(RUN_COLOURS), len(RUN_DASHES)
    return {"color": RUN_COLOURS[position % colours], "dash": RUN_DASHES[(position + position // colours) % dashes]}


def faint(colour: str, opacity: float = 0.15) -> str:
    """``#rrggbb`` with an opacity."""
    return f"{colour}{round(255 * opacity):02x}"


def written_out(value: Any) -> Any:
    """A figure, or a part of one, with each ``#rrggbbaa`` as ``rgba(…)``: plotly before 7 rejects the former in Python.

    >>> written_out({"fillcolor": "#0072b280", "line": {"color": "#0072b2"}})
    {'fillcolor': 'rgba(0,114,178,0.502)', 'line': {'color': '#0072b2'}}
    """
    if isinstance(value, dict):
        return {name: written_out(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [written_out(part) for part in value]
    if isinstance(value, str) and _WITH_OPACITY.fullmatch(value):
        red, green, blue, opacity = bytes.fromhex(value[1:])
        return f"rgba({red},{green},{blue},{opacity / 255:.3f})"
    return value


def dark(value: Any, *, coloured: bool = False) -> Any:
    """A figure, or a part of one, in the colours for a dark page.

    >>> dark({"line": {"color": "#333333"}, "name": "#333333"})
    {'line': {'color': '#e4e4e4'}, 'name': '#333333'}
    """
    if isinstance(value, dict):
        return {name: dark(part, coloured=coloured or "color" in name) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [dark(part, coloured=coloured) for part in value]
    if coloured and isinstance(value, str):
        return _COLOUR.sub(lambda found: DARK.get(found[0].lower(), found[0]), value)
    return value
