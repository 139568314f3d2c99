"""What the figures share: colours that colour-blind readers tell apart, axes, words for hover texts.

Runs and marks use the Okabe-Ito palette; sequences use cividis; nothing is told by colour alone: runs also differ by
dash, severities by symbol, layers without sufficient evidence by hollow marks.
"""

from __future__ import annotations

import html
import re
import textwrap
from collections.abc import Sequence
from typing import Any

from ww_callbacks.integrations.quantity_info import quantity_info

Spec = dict[str, Any]
"""A figure as plotly's own description of it: ``data``, ``layout`` and perhaps ``frames``."""

BLUE, GREEN, PURPLE, SKY, ORANGE, VERMILION = "#0072B2", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#D55E00"
INK, GREY, LIGHT_GREY = "#333333", "#8a8a8a", "#cfcfcf"

RUN_COLOURS = (BLUE, GREEN, PURPLE, INK, SKY)
RUN_DASHES = ("solid", "dash", "dot", "dashdot", "longdash")
SEVERITY_COLOURS = {"info": SKY, "warning": ORANGE, "critical": VERMILION}
SEVERITY_SYMBOLS = {"info": "circle", "warning": "triangle-up", "critical": "x"}
SEVERITIES = ("info", "warning", "critical")

CIVIDIS = ((0.0, "#00224e"), (0.25, "#434e6c"), (0.5, "#7d7c78"), (0.75, "#bcae6c"), (1.0, "#fee838"))
"""Five stops of cividis (Nuñez, Anderton, Renslow 2018), which reads the same with and without colour blindness."""

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

ZERO_SCALE = ((0.0, "#8c3600"), (0.25, "#e79a55"), (0.5, "#f4f4f0"), (0.75, "#7aa9d6"), (1.0, "#123b78"))
"""Orange below zero, blue above."""


def rests_on_fit(name: str) -> bool:
    """Whether the quantity ``name`` is only as good as the power-law fit it is read from."""
    return quantity_info(name).family == "power law" or name in ("alpha", "alpha_weighted")


def escape(text: object) -> str:
    """``text`` for a place where plotly reads HTML; a layer's name may hold anything."""
    return html.escape(str(text), quote=False)


def wrap(text: str, width: int = 72) -> str:
    """``text`` escaped and broken into lines for a hover label."""
    return "<br>".join(escape(line) for line in textwrap.wrap(text, width) or [""])


def short_names(layers: Sequence[str], width: int = 30) -> list[str]:
    """Names for axis labels: without the components that all share, cut in the middle, still unique, escaped.

    >>> short_names(["model.layers.0.mlp.weight", "model.layers.1.mlp.weight"])
    ['0.mlp', '1.mlp']
    >>> short_names(["net/dense/kernel", "net/dense_1/kernel"])
    ['net/dense', 'net/dense_1']
    >>> short_names(["1.weight", "3.weight"])
    ['1.weight', '3.weight']
    """
    # Components at the even places, what parts them at the odd ones.
    parts = [re.split(r"([./])", name) for name in layers]
    if len(parts) > 1 and len({part[-1] for part in parts}) == 1 and all(len(part) > 4 for part in parts):
        parts = [part[:-2] for part in parts]
    shared = 0
    while len(parts) > 1 and min(map(len, parts)) > shared + 4 and len({part[shared] for part in parts}) == 1:
        shared += 2
    short = ["".join(part[shared:]) for part in parts]
    if len(set(short)) < len(short):
        short = list(layers)
    cut = [name if len(name) <= width else f"{name[: width // 2]}…{name[-(width // 2) :]}" for name in short]
    seen: dict[str, int] = {}
    for position, name in enumerate(cut):
        seen[name] = seen.get(name, 0) + 1
        if seen[name] > 1:
            cut[position] = f"{name} ({seen[name]})"
    return [escape(name) for name in cut]


def axis(title: str = "", **more: Any) -> Spec:
    """An axis in the style of all figures."""
    return {
        "title": {"text": title, "standoff": 8},
        "showline": True,
        "linecolor": GREY,
        "gridcolor": "#e8e8e8",
        "zeroline": False,
        "ticks": "outside",
        "ticklen": 4,
        "automargin": True,
        **more,
    }


def faint(colour: str, opacity: float = 0.15) -> str:
    """``#rrggbb`` with an opacity."""
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({red},{green},{blue},{opacity})"


def layout(height: int, **more: Any) -> Spec:
    """The layout in the style of all figures; ``uirevision`` keeps zoom and selection over a refresh."""
    return {
        "height": height,
        "font": {"family": "system-ui, 'Segoe UI', Helvetica, Arial, sans-serif", "size": 12, "color": INK},
        "paper_bgcolor": "white",
        "plot_bgcolor": "white",
        "margin": {"l": 60, "r": 30, "t": 46, "b": 50},
        "hoverlabel": {"align": "left", "namelength": -1},
        # In a row of its own at the very top, above the panels' titles.
        "legend": {"orientation": "h", "x": 0, "yref": "container", "y": 1, "yanchor": "top", "font": {"size": 11}},
        "uirevision": "keep",
        **more,
    }


def heading(text: str, x: float, y: float, *, hover: str = "", **more: Any) -> Spec:
    """A panel's title at the paper coordinates ``x`` (left) and ``y`` (bottom); ``hover`` explains it."""
    return {
        "text": f"<b>{text}</b>",
        "x": x,
        "y": y,
        "xref": "paper",
        "yref": "paper",
        "xanchor": "left",
        "yanchor": "bottom",
        "showarrow": False,
        "align": "left",
        "font": {"size": 12},
        **({"hovertext": hover, "captureevents": True} if hover else {}),
        **more,
    }


def explain(name: str) -> str:
    """Title and definition of a quantity, for a hover text."""
    known = quantity_info(name)
    return f"<b>{escape(known.title)}</b> ({escape(name)})" + (
        f"<br>{wrap(known.definition)}" if known.definition else ""
    )


def message_figure(message: str, height: int = 220) -> Spec:
    """A figure that says why there is nothing to draw."""
    hidden = {"visible": False}
    note = {
        "text": wrap(message, 90),
        "x": 0.5,
        "y": 0.5,
        "xref": "paper",
        "yref": "paper",
        "showarrow": False,
        "font": {"size": 14, "color": GREY},
    }
    return {"data": [], "layout": layout(height, xaxis=hidden, yaxis=hidden, annotations=[note])}
