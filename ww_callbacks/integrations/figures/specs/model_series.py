"""A metric of the weights against the accuracy of a series of models, with the least-squares line of each series."""

from __future__ import annotations

from collections.abc import Mapping
from math import isfinite

from ww_callbacks.integrations.figures.grid import joined
from ww_callbacks.integrations.figures.palette import RUN_COLOURS
from ww_callbacks.integrations.figures.style import Spec, axis, layout, message_panel
from ww_callbacks.integrations.figures.text import escape
from ww_callbacks.spectral.aggregate.model_ranking import ModelSeries

SYMBOLS = ("circle", "square", "diamond", "triangle-up", "x")


def model_series_spec(series: Mapping[str, ModelSeries], metric: str, accuracy: str) -> Spec:
    """One mark per model, one colour and symbol per series; the legend shows its RMSE and Kendall's τ with the
    p-value.
    """
    drawn = {name: one for name, one in series.items() if len(one.points)}
    if not drawn:
        return joined([message_panel("No model has both numbers.")])
    spec: Spec = {"data": [], "layout": layout(430, xaxis=axis(escape(metric)), yaxis=axis(escape(accuracy)))}
    for position, (name, one) in enumerate(drawn.items()):
        colour = RUN_COLOURS[position % len(RUN_COLOURS)]
        points = one.points.sort_values("metric")
        spec["data"].append(
            {
                "type": "scatter",
                "mode": "markers",
                "x": points["metric"].tolist(),
                "y": points["accuracy"].tolist(),
                "text": [escape(label) for label in points.index],
                "name": f"{escape(name)}{_in_words(one)}",
                "legendgroup": name,
                "marker": {"size": 9, "color": colour, "symbol": SYMBOLS[position % len(SYMBOLS)]},
                "hovertemplate": f"%{{text}}<br>{escape(metric)} = %{{x:.4g}}<br>{escape(accuracy)} = %{{y:.4g}}"
                f"<extra>{escape(name)}</extra>",
            }
        )
        if isfinite(one.slope):
            spec["data"].append(
                {
                    "type": "scatter",
                    "mode": "lines",
                    "x": points["metric"].iloc[[0, -1]].tolist(),
                    "y": points["fitted"].iloc[[0, -1]].tolist(),
                    "line": {"color": colour, "width": 1.5},
                    "legendgroup": name,
                    "showlegend": False,
                    "hoverinfo": "skip",
                }
            )
    spec["layout"].update(hovermode="closest", showlegend=True)
    spec["layout"]["margin"]["t"] = 30 + 20 * len(drawn)
    spec["layout"]["legend"] = {"x": 0, "yref": "container", "y": 1, "yanchor": "top"}
    return spec


def _in_words(one: ModelSeries) -> str:
    if not isfinite(one.slope):
        return ": no line through one value"
    return f": RMSE {one.rmse:.3g}, τ = {one.kendall:.2f} (p = {one.kendall_p:.2g}, {one.models} models)"
