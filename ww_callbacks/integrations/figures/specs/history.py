"""One layer over time: each of its quantities, with its uncertainty where one is known."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from ww_callbacks.integrations.figures.run_view import RunView
from ww_callbacks.integrations.figures.style import (
    RUN_COLOURS,
    RUN_DASHES,
    Spec,
    axis,
    escape,
    explain,
    faint,
    heading,
    layout,
    message_figure,
)
from ww_callbacks.integrations.quantity_info import quantity_info

COLUMNS = 3
PANEL, GAP, TOP, BOTTOM = 150, 66, 84, 50


def history_spec(runs: Sequence[RunView], layer: str, quantities: Sequence[str] | None = None) -> Spec:
    """The quantities of ``layer`` over time, one panel each, the runs that watch it overlaid.

    Raises:
        ValueError: if no run watches that layer, or none measured one of ``quantities``.
    """
    holding = [run for run in runs if layer in run.layers]
    if not holding:
        raise ValueError(f"No run watches the layer `{layer}`.")
    known = dict.fromkeys(name for run in holding for name in run.quantities)
    unknown = [name for name in quantities or () if name not in known]
    if unknown:
        raise ValueError(f"No run measured `{unknown[0]}`. Expected some of: {', '.join(known)}.")
    names = list(quantities or sorted(known, key=lambda name: not quantity_info(name).headline))
    if not names or not any(len(run.steps) for run in holding):
        return message_figure("No snapshot yet: the first one appears when training starts.")
    rows = math.ceil(len(names) / COLUMNS)
    inner = rows * PANEL + (rows - 1) * GAP
    height = TOP + BOTTOM + inner
    spec: Spec = {"data": [], "layout": layout(height, margin={"l": 56, "r": 20, "t": TOP, "b": BOTTOM})}
    spec["layout"]["annotations"] = []
    for number, name in enumerate(names):
        row, column = divmod(number, COLUMNS)
        top = 1 - row * (PANEL + GAP) / inner
        left = column * (1 + 0.06) / COLUMNS
        suffix = "" if number == 0 else str(number + 1)
        lowest = number + COLUMNS >= len(names)
        spec["layout"][f"xaxis{suffix}"] = axis(
            "epochs completed" if lowest else "",
            domain=[left, min(left + (1 - 0.06 * (COLUMNS - 1)) / COLUMNS, 1)],
            anchor=f"y{suffix}",
            **({} if number == 0 else {"matches": "x"}),
        )
        spec["layout"][f"yaxis{suffix}"] = axis(
            domain=[max(top - PANEL / inner, 0), top], anchor=f"x{suffix}", nticks=5, tickformat=".3~g"
        )
        spec["layout"]["annotations"].append(
            heading(escape(quantity_info(name).title), left, top, hover=explain(name), yshift=4)
        )
        place = {"xaxis": f"x{suffix}", "yaxis": f"y{suffix}"}
        for position, run in enumerate(runs):
            if run in holding and name in run.quantities:
                spec["data"] += _traces(run, layer, name, position, place, first=number == 0)
    return spec


def uncertainty(run: RunView, layer: int, name: str) -> np.ndarray | None:
    """The standard error of the quantity over time, shape (T,), where one is known.

    alpha's is σ = (α − 1)/√n of its maximum-likelihood estimate over the n eigenvalues of the tail; alpha_weighted =
    α·log10 λ_1 carries it times the size of log10 λ_1, λ_1 being known exactly.
    """
    if name == "alpha" and "sigma" in run.quantities:
        return run.values("sigma")[layer]
    if name == "alpha_weighted" and {"sigma", "log_spectral_norm"} <= set(run.quantities):
        return run.values("sigma")[layer] * np.abs(run.values("log_spectral_norm")[layer])
    return None


def _traces(run: RunView, layer: str, name: str, position: int, place: Spec, first: bool) -> list[Spec]:
    row = run.layers.index(layer)
    when = run.measured(name)
    x, y, sure = run.epochs[when], run.values(name)[row, when], run.sure(name)[row, when]
    colour = RUN_COLOURS[position % 5]
    group = {"type": "scatter", "legendgroup": str(position), "showlegend": False, **place}
    traces: list[Spec] = []
    error = uncertainty(run, row, name)
    if error is not None:
        edge = {**group, "mode": "lines", "line": {"width": 0}, "x": x, "hoverinfo": "skip"}
        traces = [
            {**edge, "y": y - error[when]},
            {**edge, "y": y + error[when], "fill": "tonexty", "fillcolor": faint(colour, 0.2)},
        ]
    few = len(x) <= 60
    reasons = np.where(sure, "", run.evidence[row, when])
    spread = np.full(len(x), np.nan) if error is None else error[when]
    traces.append(
        {
            **group,
            "mode": "lines+markers" if few else "lines",
            "x": x,
            "y": np.where(sure, y, np.nan),
            "line": {"color": colour, "dash": RUN_DASHES[position % 5], "width": 1.8},
            "marker": {"size": 5},
            "name": escape(run.label),
            "showlegend": first,
            "customdata": spread,
            "hovertemplate": "epoch %{x:.4g}: %{y:.4g}"
            + (" ± %{customdata:.2g}" if error is not None else "")
            + f"<extra>{escape(run.label)}</extra>",
        }
    )
    if not sure.all():
        traces.append(
            {
                **group,
                "mode": "markers",
                "x": x[~sure],
                "y": y[~sure],
                "marker": {"size": 6, "symbol": "circle-open", "color": colour},
                "name": f"{escape(run.label)}, hollow: evidence does not suffice",
                "showlegend": first,
                "text": reasons[~sure].tolist(),
                "hovertemplate": "epoch %{x:.4g}: %{y:.4g}, not to be trusted: %{text}"
                f"<extra>{escape(run.label)}</extra>",
            }
        )
    return traces
