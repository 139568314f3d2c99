"""The spectrum of one layer: its density with reference curves, and the fit distance D against xmin.

Both panels show one epoch; a slider selects it among those in the record.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ww_callbacks.integrations.figures.grid import joined
from ww_callbacks.integrations.figures.palette import BLUE, GREEN, GREY, INK, PURPLE, VERMILION, faint
from ww_callbacks.integrations.figures.run_view import SUFFICIENT, RunView
from ww_callbacks.integrations.figures.style import Spec, axis, message_panel, panel
from ww_callbacks.integrations.figures.text import escape
from ww_callbacks.integrations.quantity_info import quantity_info
from ww_callbacks.spectral.detectors.base import epoch_text

BULK_POINTS = 28
AXIS_EPOCHS = 24
SLIDER, TITLE = 70, 22
HEIGHT = 340
Density = Mapping[str, Any]


NOTHING = (
    "No spectral density of this layer is in the record. It is kept with `densities=True`, from the first full "
    "snapshot on, and only for a layer whose weights are finite and not all zero."
)


@dataclass(frozen=True)
class Spectra:
    """The spectra of one layer, ready to be drawn.

    Attributes:
        panels: the two panels without traces, with axes for all epochs.
        epochs: the available epochs.
        traces: for each epoch that was read, the traces of both panels, always the same number in the same order.
        ghost: the outline of the first epoch's density, drawn behind the others.
        ghost_epoch: the epoch of that outline.
    """

    panels: tuple[Spec, Spec]
    epochs: list[float]
    traces: list[tuple[list[Spec], list[Spec]]]
    ghost: Spec
    ghost_epoch: float

    def at(self, position: int) -> list[Spec]:
        """The two panels with the traces of one epoch."""
        density, distance = self.traces[position]
        ghost = [self.ghost] if self.epochs[position] != self.ghost_epoch else []
        return [{**self.panels[0], "data": ghost + density}, {**self.panels[1], "data": distance}]


def spectrum_spec(run: RunView, layer: str) -> Spec:
    """The spectrum of ``layer`` with plotly's slider over the epochs, starting at the last one.

    Raises:
        ValueError: if the run does not watch that layer.
    """
    spectra = read_spectra(run, layer)
    if spectra is None:
        return joined([message_panel(NOTHING)])
    spec = joined([{**one, "wide": False} for one in spectra.at(len(spectra.traces) - 1)], columns=2)
    spec["layout"].update(showlegend=True, title={"text": escape(f"{run.label}: {layer}"), "font": {"size": 13}})
    spec["layout"]["margin"]["t"] += TITLE
    spec["layout"]["height"] += TITLE
    if len(spectra.traces) > 1:
        behind = {**spectra.ghost, "xaxis": "x", "yaxis": "y"}
        spec["data"] = [behind, *(trace for trace in spec["data"] if trace.get("name") != behind["name"])]
        spec["frames"] = [
            {
                "name": str(position),
                "data": [{**t, "xaxis": "x", "yaxis": "y"} for t in density]
                + [{**t, "xaxis": "x2", "yaxis": "y2"} for t in distance],
                "traces": list(range(1, 1 + len(density) + len(distance))),
            }
            for position, (density, distance) in enumerate(spectra.traces)
        ]
        spec["layout"]["sliders"] = [_slider([epoch_text(epoch) for epoch in spectra.epochs])]
        spec["layout"]["height"] += SLIDER
        spec["layout"]["margin"]["b"] += SLIDER
    return spec


def spectrum_panels(run: RunView, layer: str, epoch: float | None = None) -> list[Spec]:
    """The spectrum of ``layer`` at the epoch nearest to ``epoch``, the last one by default.

    Only the drawn epoch is read, so the cost does not depend on the length of the run. ``layout.meta`` of the first
    panel contains all ``epochs`` and, as ``at``, the index of the drawn one.

    Raises:
        ValueError: if the run does not watch that layer.
    """
    steps = _steps(run, layer)
    if not steps:
        return [message_panel(NOTHING)]
    epochs = _epochs(run, steps)
    at = len(steps) - 1 if epoch is None else int(np.argmin(np.abs(np.asarray(epochs) - epoch)))
    spectra = read_spectra(run, layer, [steps[at]])
    if spectra is None:
        return [message_panel(NOTHING)]
    density, distance = spectra.at(0)
    return [
        {
            **density,
            "layout": {
                **density["layout"],
                "meta": {"epochs": epochs, "at": at, "missing": missing_epochs(run, layer)},
            },
        },
        distance,
    ]


def read_spectra(
    run: RunView, layer: str, steps: Sequence[int] | None = None, axis_epochs: int = AXIS_EPOCHS
) -> Spectra | None:
    """The spectra of ``layer`` at ``steps``, or all; None if there are none.

    The axes also fit this many evenly spaced further epochs, so that they do not change with the slider.

    Raises:
        ValueError: if the run does not watch that layer.
    """
    known = _steps(run, layer)
    wanted = known if steps is None else list(steps)
    read = run.record.density(layer, {*wanted, *spread(known, axis_epochs)})
    densities = [density for density in read if sum(density["count"]) > 0]
    drawn = [density for density in densities if density["step"] in set(wanted)]
    if not drawn:
        return None
    reasons = dict(zip(run.steps.tolist(), run.evidence[run.layers.index(layer)].tolist(), strict=True))
    traces = [_traces(density, reasons.get(density["step"], "")) for density in drawn]
    epochs = _epochs(run, [density["step"] for density in drawn])
    (first,) = _epochs(run, [densities[0]["step"]])
    return Spectra(_panels(densities), epochs, traces, _ghost(densities[0], first), first)


def empty_spectra() -> Spectra:
    """Panels and traces without values, common to all layers and epochs."""
    nothing = {"step": 0, "log10_lambda_edges": [0.0, 1.0], "count": [1.0]}
    return Spectra(_panels([nothing]), [0.0], [_traces(nothing, "")], _ghost(nothing, 0.0), 0.0)


def missing_epochs(run: RunView, layer: str) -> str:
    """Why some snapshots have no spectrum of ``layer``, in a sentence; empty if all have one."""
    has = np.isin(run.steps, _steps(run, layer))
    missing = ~has
    if not missing.any():
        return ""
    row = run.layers.index(layer)
    status = run.status[row]
    errors = [run.errors(name)[row] for name in run.quantities if run.estimated(name)]
    estimated = np.isfinite(errors).any(axis=0) if errors else np.zeros(len(has), dtype=bool)
    reasons = {
        "measured only norms and distances": missing & ~run.full,
        "found the weights non-finite or all zero": missing & run.full & np.isin(status, ["non-finite", "zero"]),
        "needed none, because estimates or earlier values are near enough (`accuracy=`)": missing & estimated,
        "could not measure this layer": missing & run.full & np.array([str(s).startswith("failed") for s in status]),
    }
    parts = [f"{int(which.sum())} {words}" for words, which in reasons.items() if which.any()]
    rest = int(missing.sum()) - sum(int(which.sum()) for which in reasons.values())
    parts += [f"{rest} kept none (`densities=False`, or the layer was left out)"] if rest else []
    return f"{int(missing.sum())} of {len(has)} snapshots have no spectrum of this layer: {', '.join(parts)}."


def spread(steps: Sequence[int], most: int) -> list[int]:
    """At most ``most`` evenly spaced ``steps``, including the first and the last."""
    chosen = np.unique(np.linspace(0, len(steps) - 1, min(most, len(steps))).round().astype(int))
    return [steps[position] for position in chosen]


def _steps(run: RunView, layer: str) -> list[int]:
    if layer not in run.layers:
        raise ValueError(
            f"The run {run.label} does not watch the layer `{layer}`; it watches {len(run.layers)} others."
        )
    return run.record.density_steps(layer)


def _epochs(run: RunView, steps: Sequence[int]) -> list[float]:
    known = dict(zip(run.steps.tolist(), run.epochs.tolist(), strict=True))
    return [known[step] for step in steps]


def _number(density: Density, name: str) -> float:
    value = density.get(name)
    return float("nan") if value is None else float(value)


def _traces(density: Density, evidence: str) -> tuple[list[Spec], list[Spec]]:
    """The traces of one epoch, always the same number in the same order, so that animation frames match."""
    edges, count = _bins(density)
    height = count / (count.sum() * np.diff(edges))
    floor, top = height[height > 0].min() / 3, height.max() * 2
    alpha, sigma, xmin = (_number(density, name) for name in ("alpha", "sigma", "xmin"))
    tail = _number(density, "num_pl_spikes")
    sure = evidence in ("", SUFFICIENT)
    fit_x = np.array([xmin, _number(density, "xmax")])
    # The tail's density (α−1)/xmin·(λ/xmin)^−α, weighted with the share of eigenvalues in the tail.
    fit_y = tail / count.sum() * (alpha - 1) / xmin * (fit_x / xmin) ** -alpha if xmin > 0 else fit_x * np.nan
    fit = f"power law: α = {alpha:.3g} ± {sigma:.2g} ({tail:.0f} eigenvalues)" if tail > 0 else "power law: no fit"
    bulk_x, bulk_y = marchenko_pastur(_number(density, "mp_minus"), _number(density, "mp_plus"), edges[0])
    candidates = density.get("candidates") or {}
    tried = np.asarray(candidates.get("xmin", []), dtype=float)
    colour = VERMILION if sure else GREY
    return [
        {
            "type": "bar",
            "x": edges[:-1],
            "offset": 0,
            "width": np.diff(edges),
            "y": np.where(height > 0, height, np.nan),
            "marker": {"color": faint(BLUE, 0.35), "line": {"color": BLUE, "width": 0.6}},
            "name": f"eigenvalues λ of W ({count.sum():.0f})",
            "showlegend": True,
            "hovertemplate": "λ from %{x:.4g}<br>density %{y:.3g}<extra></extra>",
            "meta": {"role": "density"},
        },
        _line(bulk_x, bulk_y, "Marchenko–Pastur bulk of a random W", GREEN, "solid", 2.5),
        _line(
            fit_x,
            fit_y,
            fit if sure else f"{fit}; unsure: {escape(evidence)}",
            colour,
            "solid" if sure else "dash",
            3 if sure else 2,
        ),
        _upright(_number(density, "shuffled_max"), floor, top, "largest λ of the shuffled W", PURPLE, "dash"),
        _upright(xmin, floor, top, f"xmin = {xmin:.3g}", INK, "dot"),
    ], [
        {
            **_line(tried, np.asarray(candidates.get("D", []), dtype=float), "D against xmin", BLUE, "solid", 2),
            "mode": "lines+markers",
            "marker": {"size": 4},
            "customdata": np.asarray(candidates.get("alpha", []), dtype=float),
            "hovertemplate": "xmin = %{x:.4g}<br>D = %{y:.4g}<br>α would be %{customdata:.3g}<extra></extra>",
            "showlegend": False,
        },
        {
            **_line(np.array([xmin]), np.array([_number(density, "D")]), "chosen xmin", colour, "", 2),
            "mode": "markers",
            "marker": {
                "size": 13,
                "symbol": "diamond" if sure else "diamond-open",
                "color": colour,
                "line": {"color": INK if sure else GREY, "width": 1},
            },
            "hovertemplate": "chosen xmin = %{x:.4g}<br>D = %{y:.4g}<extra></extra>",
            "showlegend": False,
        },
    ]


def _ghost(density: Density, epoch: float) -> Spec:
    """The outline of a density, drawn behind another."""
    edges, count = _bins(density)
    height = count / (count.sum() * np.diff(edges))
    x, y = np.repeat(edges, 2)[1:-1], np.repeat(np.where(height > 0, height, np.nan), 2)
    return {**_line(x, y, f"epoch {epoch_text(epoch)}", GREY, "solid", 1.5), "meta": {"role": "ghost"}}


def marchenko_pastur(minus: float, plus: float, smallest: float) -> tuple[np.ndarray, np.ndarray]:
    """Density per eigenvalue of the Marchenko–Pastur law with the edges λ− and λ+.

    With λ± = s²(√N ± √M)², s²M = ((√λ+ − √λ−)/2)², so that the density √((λ+ − λ)(λ − λ−)) / (2π s²M λ) follows from
    the edges alone. For a square matrix λ− is 0: the grid then begins at ``smallest``.

    Returns:
        λ, on a grid that is fine in λ and in log λ, and the density; empty if there is no bulk.
    """
    if not (np.isfinite(minus) and np.isfinite(plus) and 0 <= minus < plus):
        return np.empty(0), np.empty(0)
    start = max(minus, min(smallest, plus * 1e-2), plus * 1e-8)
    grid = np.union1d(np.geomspace(start, plus, BULK_POINTS), np.linspace(start, plus, BULK_POINTS))
    # A point close to each edge, where the density rises like a square root and a log axis cannot show its zero.
    grid = np.union1d(grid, [start * (1 + 1e-4), plus * (1 - 1e-4)])
    spread = ((np.sqrt(plus) - np.sqrt(minus)) / 2) ** 2
    density = np.sqrt(np.clip((plus - grid) * (grid - minus), 0, None)) / (2 * np.pi * spread * grid)
    inside = density > 0
    return grid[inside], density[inside]


def _line(x: np.ndarray, y: np.ndarray, name: str, colour: str, dash: str, width: float) -> Spec:
    return {
        "type": "scatter",
        "mode": "lines",
        "x": x,
        "y": y,
        "name": name,
        "line": {"color": colour, "width": width, **({"dash": dash} if dash else {})},
        "showlegend": len(x) > 0,
        "hovertemplate": "λ = %{x:.4g}<br>%{y:.3g}<extra>" + name + "</extra>",
    }


def _upright(x: float, bottom: float, top: float, name: str, colour: str, dash: str) -> Spec:
    there = np.isfinite(x) and x > 0
    return {
        **_line(np.array([x, x] if there else []), np.array([bottom, top] if there else []), name, colour, dash, 2),
        "hovertemplate": f"{name}<br>λ = %{{x:.4g}}<extra></extra>",
    }


def _panels(densities: Sequence[Density]) -> tuple[Spec, Spec]:
    """The two panels, with axes for all of ``densities``."""
    low = min(density["log10_lambda_edges"][0] for density in densities)
    high = max(density["log10_lambda_edges"][-1] for density in densities)
    ends = [
        np.log10(value)
        for density in densities
        for value in (_number(density, "mp_plus"), _number(density, "shuffled_max"))
        if np.isfinite(value) and value > 0
    ]
    high = max([high, *ends]) + 0.1
    heights = [_log_heights(density) for density in densities]
    bottom, top = min(a for a, _ in heights), max(b for _, b in heights)
    log = log_axis(high - low)
    return (
        panel(
            "spectral density",
            HEIGHT,
            xaxis=axis("eigenvalue λ = σ²", range=[low - 0.1, high], **log),
            yaxis=axis("density", range=[bottom - 0.4, top + 0.3], **log_axis(max(top - bottom, 1.5))),
            legend=True,
            hovermode="closest",
            bargap=0,
        ),
        panel(
            "distance D of the fit against xmin",
            HEIGHT,
            xaxis=axis("xmin tried", **log),
            yaxis=axis("D", rangemode="tozero", nticks=6),
            about=f"D: {quantity_info('D').definition}",
            hovermode="closest",
        ),
    )


def log_axis(decades: float) -> Spec:
    """The ticks of a log axis, few enough that plotly does not rotate their labels into the axis title.

    >>> [log_axis(decades)["dtick"] for decades in (1.2, 4.0, 6.5, 14.0)]
    ['D2', 1, 2, 3]
    """
    return {"type": "log", "dtick": "D2" if decades < 1.5 else math.ceil(decades / 6), "tickangle": 0}


def _bins(density: Density) -> tuple[np.ndarray, np.ndarray]:
    """Edges λ and counts, with neighbouring bins merged if they contain few eigenvalues."""
    edges = 10.0 ** np.asarray(density["log10_lambda_edges"], dtype=float)
    count = np.asarray(density["count"], dtype=float)
    together = 4 if count.sum() < 100 else 2 if count.sum() < 400 else 1
    if len(count) % together:
        return edges, count
    return edges[::together], count.reshape(-1, together).sum(axis=1)


def _log_heights(density: Density) -> tuple[float, float]:
    """log10 of the lowest and the highest density of an epoch."""
    edges, count = _bins(density)
    height = (count / (count.sum() * np.diff(edges)))[count > 0]
    return float(np.log10(height.min())), float(np.log10(height.max()))


def _slider(epochs: Sequence[str]) -> Spec:
    return {
        "active": len(epochs) - 1,
        "currentvalue": {"prefix": "epoch ", "font": {"size": 13}},
        "pad": {"t": 56},
        "x": 0,
        "len": 1,
        "ticklen": 3,
        "steps": [
            {
                "label": epoch,
                "method": "animate",
                "args": [
                    [str(position)],
                    {"mode": "immediate", "frame": {"duration": 0, "redraw": True}, "transition": {"duration": 0}},
                ],
            }
            for position, epoch in enumerate(epochs)
        ],
    }
