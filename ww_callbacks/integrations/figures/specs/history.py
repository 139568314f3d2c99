"""One layer over time: each of its quantities, with its uncertainty where one is known."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ww_callbacks.integrations.figures.palette import faint, run_style
from ww_callbacks.integrations.figures.run_view import RunView
from ww_callbacks.integrations.figures.specs.moments import epoch_range
from ww_callbacks.integrations.figures.style import Spec, axis, message_panel, over_time, panel
from ww_callbacks.integrations.figures.text import escape
from ww_callbacks.integrations.quantity_info import quantity_info

HEIGHT = 190
FEW = 60
"""Points up to which each is marked."""


def history_panels(runs: Sequence[RunView], layer: str, quantities: Sequence[str] | None = None) -> list[Spec]:
    """The quantities of ``layer`` over time, one panel each, the runs that watch it overlaid.

    Raises:
        ValueError: if no run watches that layer, or none measured one of ``quantities``.
    """
    holding = [(position, run) for position, run in enumerate(runs) if layer in run.layers]
    if not holding:
        raise ValueError(f"No run watches the layer `{layer}`.")
    known = dict.fromkeys(name for _, run in holding for name in run.quantities)
    unknown = [name for name in quantities or () if name not in known]
    if unknown:
        raise ValueError(f"No run measured `{unknown[0]}`. Expected some of: {', '.join(known)}.")
    names = list(quantities or sorted(known, key=lambda name: not quantity_info(name).headline))
    if not names or not any(len(run.steps) for _, run in holding):
        return [message_panel("No snapshot yet: the first one appears when training starts.")]
    shown = epoch_range([run for _, run in holding])
    panels = []
    for name in names:
        info = quantity_info(name)
        made = panel(
            info.title,
            HEIGHT,
            xaxis=over_time(range=shown),
            yaxis=axis(nticks=5),
            about=f"{name}: {info.definition}",
            group="time",
            hovermode="x",
        )
        for position, run in holding:
            if name in run.quantities:
                made["data"] += _traces(run, layer, name, position)
        panels.append(made)
    return panels


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


def _traces(run: RunView, layer: str, name: str, position: int) -> list[Spec]:
    row = run.layers.index(layer)
    when = run.measured(name)
    x, y, sure = run.epochs[when], run.values(name)[row, when], run.sure(name)[row, when]
    style = run_style(position)
    group = {"type": "scatter", "legendgroup": str(position), "showlegend": False, "meta": {"run": run.label}}
    traces: list[Spec] = []
    error = uncertainty(run, row, name)
    if error is not None:
        edge = {**group, "mode": "lines", "line": {"width": 0}, "x": x, "hoverinfo": "skip"}
        traces = [
            {**edge, "y": y - error[when]},
            {**edge, "y": y + error[when], "fill": "tonexty", "fillcolor": faint(style["color"], 0.2)},
        ]
    traces.append(
        {
            **group,
            "mode": "lines+markers" if len(x) <= FEW else "lines",
            "x": x,
            "y": np.where(sure, y, np.nan),
            "line": {**style, "width": 1.8},
            "marker": {"size": 5},
            "name": escape(run.label),
            "showlegend": True,
            "hovertemplate": "epoch %{x:.4g}: %{y:.4g}"
            + (" ± %{customdata:.2g}" if error is not None else "")
            + f"<extra>{escape(run.label)}</extra>",
            **({} if error is None else {"customdata": error[when]}),
        }
    )
    if not sure.all():
        traces.append(
            {
                **group,
                "mode": "markers",
                "x": x[~sure],
                "y": y[~sure],
                "marker": {"size": 6, "symbol": "circle-open", "color": style["color"]},
                "name": f"{escape(run.label)}, hollow: evidence does not suffice",
                "showlegend": True,
                "text": run.evidence[row, when][~sure].tolist(),
                "hovertemplate": f"epoch %{{x:.4g}}: %{{y:.4g}}, unsure: %{{text}}<extra>{escape(run.label)}</extra>",
            }
        )
    return traces
