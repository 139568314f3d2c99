"""Shared style of the figures: axes, layouts, and the panels that views consist of."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ww_callbacks.integrations.figures.palette import GREY, GRID, INK, PAPER
from ww_callbacks.integrations.figures.text import wrap
from ww_callbacks.integrations.quantity_info import quantity_info

Spec = dict[str, Any]
"""A plotly figure specification: ``data``, ``layout`` and optionally ``frames``.

A *panel* is a figure with one pair of axes and, besides, a ``title`` (plain text), ``about`` (plain text that explains
it), ``key`` (pairs of colour and text that explain colours), ``wide`` (a separate row), ``legend`` (whether its lines
are named below its title) and ``group`` (panels of the same group are zoomed together). The dashboards put panels into
a grid as wide as the window; :mod:`.grid` joins them to one figure.
"""

MARGIN = {"l": 58, "r": 16, "t": 8, "b": 44}


def rests_on_fit(name: str) -> bool:
    """Whether the quantity ``name`` depends on the power-law fit."""
    return quantity_info(name).family == "power law" or name in ("alpha", "alpha_weighted")


def axis(title: str = "", **more: Any) -> Spec:
    """An axis in the common style."""
    return {
        "title": {"text": title, "standoff": 6, "font": {"size": 11}},
        "showline": True,
        "linecolor": GREY,
        "gridcolor": GRID,
        "zeroline": False,
        "ticks": "outside",
        "ticklen": 4,
        "tickfont": {"size": 11},
        "exponentformat": "power",
        **more,
    }


def over_time(**more: Any) -> Spec:
    """The axis of epochs; the dashboards can show steps or time instead."""
    return axis("epochs completed", nticks=8, **more)


def layout(height: int, **more: Any) -> Spec:
    """The layout in the common style; ``uirevision`` keeps zoom and selection across refreshes."""
    return {
        "height": height,
        "font": {"family": "system-ui, 'Segoe UI', Helvetica, Arial, sans-serif", "size": 12, "color": INK},
        "paper_bgcolor": PAPER,
        "plot_bgcolor": PAPER,
        "margin": dict(MARGIN),
        "hoverlabel": {"align": "left", "namelength": -1},
        "showlegend": False,
        "uirevision": "keep",
        **more,
    }


def panel(
    title: str,
    height: int,
    *,
    xaxis: Spec,
    yaxis: Spec,
    data: Sequence[Spec] = (),
    about: str = "",
    key: Sequence[tuple[str, str]] = (),
    wide: bool = False,
    legend: bool = False,
    group: str = "",
    **more: Any,
) -> Spec:
    """A panel; see :data:`Spec`.

    Args:
        title: its title, plain text.
        height: in pixels, margins included.
        xaxis: the axis across.
        yaxis: the axis upwards.
        data: the traces.
        about: an explanation.
        key: the meaning of colours that are not lines of a run: (colour, text).
        wide: whether it takes a separate row.
        legend: whether its lines are named below its title.
        group: panels of the same group are zoomed together.
        more: further entries of the layout.
    """
    return {
        "data": list(data),
        "layout": layout(height, xaxis=xaxis, yaxis=yaxis, shapes=[], annotations=[], **more),
        "title": title,
        "about": about,
        "key": list(key),
        "wide": wide,
        "legend": legend,
        "group": group,
    }


def message_panel(message: str, height: int = 160) -> Spec:
    """An empty panel that shows the reason."""
    hidden = {"visible": False}
    made = panel("", height, xaxis=dict(hidden), yaxis=dict(hidden), wide=True)
    made["layout"]["annotations"] = [
        {
            "text": wrap(message, 60),
            "x": 0.5,
            "y": 0.5,
            "xref": "x domain",
            "yref": "y domain",
            "showarrow": False,
            "font": {"size": 13, "color": GREY},
        }
    ]
    return made
