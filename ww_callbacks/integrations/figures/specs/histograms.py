"""Histograms of alpha and log spectral norm over the layers: of several runs, or of the start and end of one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ww_callbacks.integrations.figures.palette import GREY, faint, run_style
from ww_callbacks.integrations.figures.run_view import RunView
from ww_callbacks.integrations.figures.style import Spec, axis, message_panel, panel
from ww_callbacks.integrations.figures.text import escape
from ww_callbacks.integrations.quantity_info import quantity_info

QUANTITIES = ("alpha", "log_spectral_norm")
HEIGHT = 300
MOST_OUTLINES = 4
"""Maximum number of overlaid histograms; more samples are drawn as box plots, one per row."""


@dataclass(frozen=True)
class _Side:
    """One run at one snapshot."""

    run: RunView
    column: int
    label: str
    colour: str
    dash: str

    def sample(self, name: str) -> np.ndarray:
        """The values with sufficient evidence."""
        if name not in self.run.quantities:
            return np.empty(0)
        values = self.run.values(name)[:, self.column]
        return values[np.isfinite(values) & self.run.sure(name)[:, self.column]]


def histograms_panels(runs: Sequence[RunView]) -> list[Spec]:
    """The values over the layers at the last epoch of each of ``runs``; for a single run, also at its first epoch.

    Up to four are overlaid histograms, more are box plots. Alpha's include only layers with sufficient evidence, and
    show their number.
    """
    sides = _sides(runs)
    if not sides:
        return [message_panel("No spectra yet: they appear with the first full snapshot.")]
    draw = _outlines if len(sides) <= MOST_OUTLINES else _boxes
    return [draw(sides, name) for name in QUANTITIES if any(name in side.run.quantities for side in sides)]


def _outlines(sides: Sequence[_Side], name: str) -> Spec:
    made = panel(
        f"{quantity_info(name).title} over the layers",
        HEIGHT,
        xaxis=axis(quantity_info(name).title, nticks=6),
        yaxis=axis("layers", rangemode="tozero", tickformat="d", nticks=6),
        about=f"{name}: {quantity_info(name).definition}",
        hovermode="x",
    )
    samples = [side.sample(name) for side in sides]
    made["key"] = [
        (side.colour, f"{side.label}: {_counted(sample, side, name)}")
        for side, sample in zip(sides, samples, strict=True)
    ]
    pooled = np.concatenate(samples)
    if not len(pooled):
        return made
    edges = _edges(pooled)
    for number, (side, sample) in enumerate(zip(sides, samples, strict=True)):
        count = np.histogram(sample, edges)[0]
        if count.max() <= 5:
            made["layout"]["yaxis"]["dtick"] = 1
        made["data"].append(
            {
                "type": "scatter",
                "mode": "lines",
                "x": np.repeat(edges, 2)[1:-1],
                "y": np.repeat(count, 2),
                "line": {"color": side.colour, "dash": side.dash, "width": 2},
                # Only the last one is filled: overlapping fills look like a third colour.
                **({"fill": "tozeroy", "fillcolor": faint(side.colour, 0.18)} if number == len(sides) - 1 else {}),
                "name": escape(side.label),
                "showlegend": True,
                "hovertemplate": "%{y} layers around %{x:.3g}<extra>" + escape(side.label) + "</extra>",
                "meta": {"run": side.run.label},
            }
        )
    return made


def _boxes(sides: Sequence[_Side], name: str) -> Spec:
    made = panel(
        f"{quantity_info(name).title} over the layers, last epoch of each run",
        90 + 26 * len(sides),
        xaxis=axis(quantity_info(name).title, nticks=6),
        yaxis=axis(
            type="category",
            categoryorder="array",
            categoryarray=[escape(side.label) for side in reversed(sides)],
            showgrid=False,
            tickfont={"size": 10},
        ),
        about=f"{name}: {quantity_info(name).definition}",
        hovermode="closest",
    )
    made["layout"]["margin"]["l"] = round(min(max(len(side.label) for side in sides) * 6.2, 190)) + 14
    for side in sides:
        sample = side.sample(name)
        made["data"].append(
            {
                "type": "box",
                "orientation": "h",
                "x": sample if len(sample) else [None],
                "y": [escape(side.label)] * max(len(sample), 1),
                "boxpoints": "all" if len(sample) <= 24 else "outliers",
                "jitter": 0.4,
                "pointpos": 0,
                "marker": {"size": 4, "color": side.colour},
                "line": {"width": 1.4, "color": side.colour},
                "fillcolor": faint(side.colour, 0.18),
                "name": escape(f"{side.label}: {_counted(sample, side, name)}"),
                "showlegend": False,
                "meta": {"run": side.run.label},
            }
        )
    return made


def _counted(sample: np.ndarray, side: _Side, name: str) -> str:
    suffices = "with enough evidence" if name == "alpha" else "with a value"
    return f"{len(sample)} of {len(side.run.layers)} layers {suffices}"


def _edges(pooled: np.ndarray) -> np.ndarray:
    low, high = float(pooled.min()), float(pooled.max())
    pad = max((high - low) * 0.02, 1e-3 * max(abs(low), 1))
    return np.linspace(low - pad, high + pad, int(np.clip(2 * np.sqrt(len(pooled)), 6, 30)) + 1)


def _sides(runs: Sequence[RunView]) -> list[_Side]:
    """The compared samples: run, snapshot, label."""
    full = [(position, run, np.flatnonzero(run.full)) for position, run in enumerate(runs)]
    full = [(position, run, when) for position, run, when in full if len(when)]
    if len(full) == 1 and len(full[0][2]) > 1:
        position, run, when = full[0]
        style = run_style(position)
        return [
            _Side(run, int(when[0]), f"epoch {run.epochs[when[0]]:.4g}", GREY, "dash"),
            _Side(run, int(when[-1]), f"epoch {run.epochs[when[-1]]:.4g}", style["color"], "solid"),
        ]
    return [
        _Side(
            run,
            int(when[-1]),
            f"{run.label}, epoch {run.epochs[when[-1]]:.4g}",
            run_style(position)["color"],
            run_style(position)["dash"],
        )
        for position, run, when in full
    ]
