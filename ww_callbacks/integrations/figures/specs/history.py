"""The history of one layer: each of its quantities, with its uncertainty if known."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ww_callbacks.integrations.figures.palette import faint, run_style
from ww_callbacks.integrations.figures.run_view import RunView
from ww_callbacks.integrations.figures.specs.epoch_markers import epoch_range
from ww_callbacks.integrations.figures.style import Spec, axis, message_panel, over_time, panel
from ww_callbacks.integrations.figures.text import escape
from ww_callbacks.integrations.quantity_info import quantity_info
from ww_callbacks.spectral.number_text import with_error

HEIGHT = 190
FEW = 60
"""Maximum number of points that are marked."""
MOST_BANDS = 3
"""Maximum number of runs with a band; more would hide one another."""


def history_panels(runs: Sequence[RunView], layer: str, quantities: Sequence[str] | None = None) -> list[Spec]:
    """The quantities of ``layer`` over time, one panel each, with runs overlaid.

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
    panels = _panels(names, [run for _, run in holding])
    for name, made in zip(names, panels, strict=True):
        for position, run in holding:
            if name in run.quantities:
                made["data"] += _traces(run, name, position, _course(run, layer, name), len(runs) <= MOST_BANDS)
    return panels


def history_frame(runs: Sequence[RunView]) -> list[Spec]:
    """The panels of every quantity with traces without values: the same for all layers.

    ``meta`` of a trace describes its values: ``run``, ``quantity``, and ``part``: the ``line``, the ``hollow`` marks,
    or the edges ``low`` and ``high`` of the band.
    """
    known = dict.fromkeys(name for run in runs for name in run.quantities)
    names = sorted(known, key=lambda name: not quantity_info(name).headline)
    panels = _panels(names, runs)
    for name, made in zip(names, panels, strict=True):
        for position, run in enumerate(runs):
            if name in run.quantities:
                nothing = np.array([np.nan])
                course = _Course(nothing, nothing, np.array([False]), nothing, [""])
                for trace in _traces(run, name, position, course, len(runs) <= MOST_BANDS):
                    made["data"].append({key: part for key, part in trace.items() if key not in _VALUES})
    return panels


_VALUES = ("x", "y", "text", "customdata")


def _panels(names: Sequence[str], runs: Sequence[RunView]) -> list[Spec]:
    """The panels of the quantities ``names``, without traces."""
    shown = epoch_range(runs)
    return [
        panel(
            quantity_info(name).title,
            HEIGHT,
            xaxis=over_time(range=shown),
            yaxis=axis(nticks=5),
            about=f"{name}: {quantity_info(name).definition}",
            group="time",
            hovermode="x",
        )
        for name in names
    ]


@dataclass(frozen=True)
class _Course:
    """A quantity of a layer at the snapshots that measured it."""

    epochs: np.ndarray
    values: np.ndarray
    sure: np.ndarray
    error: np.ndarray
    evidence: list[str]


def _course(run: RunView, layer: str, name: str) -> _Course:
    row, when = run.layers.index(layer), run.measured(name)
    return _Course(
        run.epochs[when],
        run.values(name)[row, when],
        run.sure(name)[row, when],
        run.errors(name)[row, when],
        run.evidence[row, when].tolist(),
    )


def _traces(run: RunView, name: str, position: int, course: _Course, banded: bool) -> list[Spec]:
    x, y, sure, error = course.epochs, course.values, course.sure, course.error
    style = run_style(position)
    meta = {"run": run.label, "quantity": name}
    uncertain = bool(np.isfinite(run.errors(name)).any())
    group = {"type": "scatter", "legendgroup": str(position), "showlegend": False}
    traces: list[Spec] = []
    if uncertain and banded:
        error = np.nan_to_num(error) if run.estimated(name) else error
        edge = {**group, "mode": "lines", "line": {"width": 0}, "x": x, "hoverinfo": "skip"}
        fill = {"fill": "tonexty", "fillcolor": faint(style["color"], 0.2)}
        traces = [
            {**edge, "y": y - error, "meta": {**meta, "part": "low"}},
            {**edge, "y": y + error, **fill, "meta": {**meta, "part": "high"}},
        ]
    said: Spec
    shown, said = "%{y:.4g}", {}
    if run.estimated(name):
        shown, said = "%{text}", {"text": [*map(with_error, y, course.error)]}
    elif uncertain:
        shown, said = "%{y:.4g} ± %{customdata:.2g}", {"customdata": error}
    traces.append(
        {
            **group,
            "mode": "lines+markers" if len(run.measured(name)) <= FEW else "lines",
            "x": x,
            "y": np.where(sure, y, np.nan),
            "line": {**style, "width": 1.8},
            "marker": {"size": 5},
            "name": escape(run.label),
            "showlegend": True,
            "hovertemplate": f"epoch %{{x:.4g}}: {shown}<extra>{escape(run.label)}</extra>",
            "meta": {**meta, "part": "line"},
            **said,
        }
    )
    if not sure.all():
        traces.append(
            {
                **group,
                "mode": "markers",
                "x": x,
                "y": np.where(sure, np.nan, y),
                "marker": {"size": 6, "symbol": "circle-open", "color": style["color"]},
                "name": f"{escape(run.label)}, hollow: evidence does not suffice",
                "showlegend": True,
                "text": course.evidence,
                "hovertemplate": f"epoch %{{x:.4g}}: %{{y:.4g}}, unsure: %{{text}}<extra>{escape(run.label)}</extra>",
                "meta": {**meta, "part": "hollow"},
            }
        )
    return traces
