"""What the figures share: axes, layouts, and the panel that every view is made of."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ww_callbacks.integrations.figures.palette import GREY, GRID, INK, PAPER
from ww_callbacks.integrations.figures.text import wrap
from ww_callbacks.integrations.quantity_info import quantity_info

Spec = dict[str, Any]
"""A figure as plotly's own description of it: ``data``, ``layout`` and perhaps ``frames``.

A *panel* is a figure with one pair of axes and, besides, a ``title`` (plain text), ``about`` (plain text that explains
it), ``key`` (pairs of colour and text that explain colours), ``wide`` (a row of its own), ``legend`` (whether its lines
are named below its title) and ``group`` (panels of the same group are zoomed together). The dashboards put panels into
a grid as wide as the window; :mod:`.grid` joins them to one figure.
"""

MARGIN = {"l": 58, "r": 16, "t": 8, "b": 44}


def rests_on_fit(name: str) -> bool:
    """Whether the quantity ``name`` is only as good as the power-law fit it is read from."""
    return quantity_info(name).family == "power law" or name in ("alpha", "alpha_weighted")


def axis(title: str = "", **more: Any) -> Spec:
    """An axis in the style of all figures."""
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
    """The axis of epochs; the dashboards may show steps or time on it."""
    return axis("epochs completed", nticks=8, **more)


def layout(height: int, **more: Any) -> Spec:
    """The layout in the style of all figures; ``uirevision`` keeps zoom and selection over a refresh."""
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
        about: what explains it.
        key: what colours mean that are no lines of a run: (colour, text).
        wide: whether it takes a row of its own.
        legend: whether its lines are named below its title.
        group: panels of the same group are zoomed together.
        more: of the layout.
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
    """A panel that says why there is nothing to draw."""
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
