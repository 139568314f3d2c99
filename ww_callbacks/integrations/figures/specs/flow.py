"""The correlation flow: alpha along the depth of the model, and rand_distance against alpha."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from ww_callbacks.integrations.figures.names import BETWEEN
from ww_callbacks.integrations.figures.palette import BLUE, GREY, INK
from ww_callbacks.integrations.figures.run_view import RunView
from ww_callbacks.integrations.figures.style import Spec, axis, message_panel, panel
from ww_callbacks.integrations.figures.text import escape
from ww_callbacks.integrations.quantity_info import quantity_info
from ww_callbacks.spectral.detectors.base import epoch_text

MOST_EPOCHS = 9
HEIGHT, RANDOM_HEIGHT = 330, 280
MOST_TICKS = 12
EPOCH_SCALE = ((0.0, "#3a6fb0"), (0.5, "#8a8783"), (1.0, "#b98000"))
"""Blue to amber of cividis, limited to colours that are visible on light and dark pages."""
TICK_ANGLE, LETTER = 40, 5.6


def flow_panels(runs: Sequence[RunView]) -> list[Spec]:
    """Alpha against depth, one panel per run.

    Up to nine evenly spaced epochs are overlaid, including the first and the last.
    """
    drawn = [run for run in runs if "alpha" in run.quantities and len(run.measured("alpha"))]
    if not drawn:
        return [message_panel("No alpha yet: it appears with the first full snapshot.")]
    finite = np.concatenate([_last_sure(run) for run in drawn])
    top = max(8.0, float(np.quantile(finite, 0.99)) * 1.1) if len(finite) else 8.0
    first = min(float(run.epochs[run.measured("alpha")][0]) for run in drawn)
    last = max(float(run.epochs[run.measured("alpha")][-1]) for run in drawn)
    return [_along_depth(run, top, first, last, alone=len(runs) == 1) for run in drawn]


def random_panels(runs: Sequence[RunView]) -> list[Spec]:
    """rand_distance against alpha, one panel per run that measured it."""
    return [_against_random(run, alone=len(runs) == 1) for run in runs if "rand_distance" in run.quantities]


def _along_depth(run: RunView, top: float, first: float, last: float, *, alone: bool) -> Spec:
    made = panel(
        "α against depth" if alone else f"{run.label}: α against depth",
        HEIGHT,
        xaxis={**axis("layers from input to output", range=[-0.5, len(run.layers) - 0.5]), **_depth_ticks(run)},
        yaxis=axis("α", range=[0.8, top], nticks=6),
        about=f"alpha: {quantity_info('alpha').definition}. Dotted: 2 and 6. A line stops where the evidence does not "
        "suffice.",
        hovermode="closest",
    )
    scale = {"colorscale": EPOCH_SCALE, "cmin": first, "cmax": max(last, first + 1e-9)}
    made["layout"]["shapes"] = [_level(level) for level in (2, 6)]
    below = 40 + max(map(len, made["layout"]["xaxis"]["ticktext"])) * LETTER * math.sin(math.radians(TICK_ANGLE))
    made["layout"]["margin"].update(b=round(below))
    made["layout"]["height"] += max(round(below) - 66, 0)  # long names do not reduce the space for the lines
    made["data"] = _epochs(run, scale)
    made["key"] = [
        (_between(EPOCH_SCALE, 0.0), f"epoch {epoch_text(first)}"),
        (_between(EPOCH_SCALE, 1.0), f"epoch {epoch_text(last)}"),
    ]
    if any(trace.get("meta", {}).get("role") == "unsure" for trace in made["data"]):
        made["key"].append((GREY, "hollow: too little evidence for α"))
    return made


def _depth_ticks(run: RunView) -> Spec:
    """The layers' names under the axis if there is room, otherwise those of the blocks."""
    rows = list(range(len(run.layers)))
    names = run.short_names
    if len(rows) > MOST_TICKS:
        starts = run.blocks
        rows = starts[:: -(-len(starts) // MOST_TICKS)]
        names = [name.split(BETWEEN)[0] for name in names]
    return {
        "tickvals": rows,
        "ticktext": [names[row] for row in rows],
        "tickfont": {"size": 10},
        "tickangle": -TICK_ANGLE,
    }


def _level(level: float) -> Spec:
    """A dotted line across the panel at a value of alpha."""
    line = {"color": GREY, "width": 1, "dash": "dot"}
    return {"type": "line", "xref": "x domain", "x0": 0, "x1": 1, "yref": "y", "y0": level, "y1": level, "line": line}


def _last_sure(run: RunView) -> np.ndarray:
    """The last alphas with sufficient evidence."""
    when = run.measured("alpha")[-1]
    values = run.values("alpha")[:, when]
    return values[run.sure("alpha")[:, when] & np.isfinite(values)]


def _epochs(run: RunView, scale: Spec) -> list[Spec]:
    """One line per epoch along the depth; layers without sufficient evidence have hollow grey marks in the last
    epoch.
    """
    when = run.measured("alpha")
    chosen = when[np.unique(np.linspace(0, len(when) - 1, MOST_EPOCHS).round().astype(int))]
    depth = np.arange(len(run.layers))
    names = [escape(layer) for layer in run.layers]
    traces: list[Spec] = []
    for column in chosen:
        values, sure = run.values("alpha")[:, column], run.sure("alpha")[:, column]
        last = column == chosen[-1]
        keep = sure & np.isfinite(values)
        colour = _between(EPOCH_SCALE, (run.epochs[column] - scale["cmin"]) / (scale["cmax"] - scale["cmin"]))
        traces.append(
            {
                "type": "scatter",
                "mode": "lines+markers",
                # Interrupted at layers without a value.
                "x": depth,
                "y": np.where(keep, values, np.nan),
                "marker": {"size": 7 if last else 4 if len(depth) < 40 else 2, "color": colour},
                "line": {"width": 2.6 if last else 1.1, "color": colour},
                "text": names,
                "name": f"epoch {epoch_text(run.epochs[column])}",
                "hovertemplate": "%{text}<br>α = %{y:.3g}"
                f"<extra>{escape(run.label)}, epoch {epoch_text(run.epochs[column])}</extra>",
                "meta": {"role": "flow", "epoch": float(run.epochs[column]), "run": run.label},
            }
        )
        hollow = ~sure & np.isfinite(values)
        if last and hollow.any():
            traces.append(
                {
                    "type": "scatter",
                    "mode": "markers",
                    "x": depth[hollow],
                    "y": values[hollow],
                    "marker": {"size": 8, "symbol": "circle-open", "color": GREY, "line": {"width": 1.5}},
                    "text": [f"{names[row]}: {escape(run.evidence[row, column])}" for row in np.flatnonzero(hollow)],
                    "hovertemplate": "%{text}<br>α = %{y:.3g}, unsure<extra></extra>",
                    "meta": {"role": "unsure", "run": run.label},
                }
            )
    return traces


def _between(stops: Sequence[tuple[float, str]], share: float) -> str:
    """The colour at the position ``share`` of a colour scale."""
    places = [place for place, _ in stops]
    parts = np.array([[int(colour[i : i + 2], 16) for i in (1, 3, 5)] for _, colour in stops])
    return "#" + "".join(f"{round(float(np.interp(share, places, parts[:, i]))):02x}" for i in range(3))


def _against_random(run: RunView, *, alone: bool) -> Spec:
    """rand_distance of every layer against its alpha, at the last snapshot with both."""
    distance = quantity_info("rand_distance").title
    title = f"{distance} against α"
    made = panel(
        title if alone else f"{run.label}: {title}",
        RANDOM_HEIGHT,
        xaxis=axis("α"),
        yaxis=axis(distance),
        about=f"rand_distance: {quantity_info('rand_distance').definition}",
        group="random",
        hovermode="closest",
    )
    random, alpha = run.values("rand_distance"), run.values("alpha")
    both = np.flatnonzero((np.isfinite(random) & np.isfinite(alpha)).any(axis=0))
    if not len(both):
        return made
    column = both[-1]
    random, alpha, sure = random[:, column], alpha[:, column], run.sure("alpha")[:, column]
    depth = np.arange(len(run.layers))
    for keep, symbol, colour, name in ((sure, "circle", BLUE, ""), (~sure, "circle-open", GREY, ", unsure")):
        keep = keep & np.isfinite(random) & np.isfinite(alpha)
        if keep.any():
            made["data"].append(
                {
                    "type": "scatter",
                    "mode": "markers",
                    "x": alpha[keep],
                    "y": random[keep],
                    "marker": {"size": 8, "symbol": symbol, "color": colour, "line": {"color": INK, "width": 0.6}},
                    "text": [escape(run.layers[row]) for row in depth[keep]],
                    "hovertemplate": f"%{{text}}<br>α = %{{x:.3g}}{name}<br>{distance} = %{{y:.3g}}"
                    f"<extra>epoch {epoch_text(run.epochs[column])}</extra>",
                }
            )
    if not sure.all():
        made["key"] = [(GREY, "hollow: too little evidence for α")]
    return made
