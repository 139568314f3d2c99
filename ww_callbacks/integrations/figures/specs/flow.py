"""The correlation flow: alpha along the depth of the model, epochs overlaid, and against the distance from random."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ww_callbacks.integrations.figures.run_view import RunView
from ww_callbacks.integrations.figures.style import (
    CIVIDIS,
    GREY,
    INK,
    RUN_COLOURS,
    Spec,
    axis,
    escape,
    explain,
    heading,
    layout,
    message_figure,
)

MOST_EPOCHS = 9
GAP = 0.16
EPOCH_SCALE = (*CIVIDIS[:-1], (1.0, "#e8ce3a"))
"""cividis with a darker end, that shows on white."""


def flow_spec(runs: Sequence[RunView]) -> Spec:
    """Alpha against depth (above) and, where it was measured, rand_distance against alpha (below), one column a run.

    Up to nine epochs are overlaid, evenly chosen, the first and the last always among them.
    """
    drawn = [run for run in runs if "alpha" in run.quantities and len(run.measured("alpha"))]
    if not drawn:
        return message_figure("No alpha yet: it appears with the first full snapshot.")
    lower_row = any("rand_distance" in run.quantities for run in drawn)
    floor = 0.5 + GAP / 2 if lower_row else 0.0
    height = 760 if lower_row else 430
    spec: Spec = {"data": [], "layout": layout(height, margin={"l": 64, "r": 90, "t": 40, "b": 60}, annotations=[])}
    spec["layout"].update(hovermode="closest", showlegend=False, shapes=[])
    finite = np.concatenate([_last_sure(run) for run in drawn])
    top = max(8.0, float(np.quantile(finite, 0.99)) * 1.1) if len(finite) else 8.0
    width = 1 / len(drawn)
    for position, run in enumerate(drawn):
        left = position * width + (0.03 if position else 0)
        right = (position + 1) * width - (0.03 if len(drawn) > 1 else 0)
        suffix = _suffix(2 * position + 1)
        spec["layout"][f"xaxis{suffix}"] = {
            **axis("layers from input to output", domain=[left, right], anchor=f"y{suffix}"),
            **_depth_ticks(run),
        }
        spec["layout"][f"yaxis{suffix}"] = axis(
            "alpha" if position == 0 else "", domain=[floor, 1], anchor=f"x{suffix}", range=[0.8, top]
        )
        spec["layout"]["shapes"] += [_level(suffix, level) for level in (2, 6)]
        title = f"{escape(run.label)}: alpha against depth"
        spec["layout"]["annotations"].append(heading(title, left, 1, hover=explain("alpha"), yshift=6))
        spec["data"] += _epochs(run, {"xaxis": f"x{suffix}", "yaxis": f"y{suffix}"})
        if lower_row:
            _against_random(spec, run, _suffix(2 * position + 2), [left, right], first=position == 0)
    first = min(float(run.epochs[run.measured("alpha")][0]) for run in drawn)
    last = max(float(run.epochs[run.measured("alpha")][-1]) for run in drawn)
    spec["layout"]["coloraxis"] = {
        "colorscale": EPOCH_SCALE,
        "cmin": first,
        "cmax": max(last, first + 1e-9),
        "colorbar": {
            "title": {"text": "epoch", "side": "right"},
            "thickness": 14,
            "len": 1 - floor,
            "y": (1 + floor) / 2,
        },
    }
    _colour_lines(spec, first, last)
    return spec


def _depth_ticks(run: RunView) -> Spec:
    """The layers' names under the axis, as long as there is room for them."""
    if len(run.layers) > 24:
        return {}
    return {"tickvals": list(range(len(run.layers))), "ticktext": run.short_names, "tickfont": {"size": 10}}


def _level(suffix: str, level: float) -> Spec:
    """A dotted line across the panel at a value of alpha."""
    return {
        "type": "line",
        "xref": f"x{suffix} domain",
        "x0": 0,
        "x1": 1,
        "yref": f"y{suffix}",
        "y0": level,
        "y1": level,
        "line": {"color": GREY, "width": 1, "dash": "dot"},
    }


def _suffix(number: int) -> str:
    return "" if number == 1 else str(number)


def _last_sure(run: RunView) -> np.ndarray:
    """The last alphas that evidence supports."""
    when = run.measured("alpha")[-1]
    values = run.values("alpha")[:, when]
    return values[run.sure("alpha")[:, when] & np.isfinite(values)]


def _epochs(run: RunView, place: Spec) -> list[Spec]:
    """One line an epoch along the depth; layers without sufficient evidence as hollow grey marks of the last epoch."""
    when = run.measured("alpha")
    chosen = when[np.unique(np.linspace(0, len(when) - 1, MOST_EPOCHS).round().astype(int))]
    depth = np.arange(len(run.layers))
    traces: list[Spec] = []
    for column in chosen:
        values, sure = run.values("alpha")[:, column], run.sure("alpha")[:, column]
        last = column == chosen[-1]
        keep = sure & np.isfinite(values)
        traces.append(
            {
                "type": "scatter",
                "mode": "lines+markers",
                # Broken where a layer says nothing: no line is drawn past it.
                "x": depth,
                "y": np.where(keep, values, np.nan),
                "marker": {
                    "size": 7 if last else 4 if len(depth) < 40 else 2,
                    "color": np.full(len(depth), run.epochs[column]),
                    "coloraxis": "coloraxis",
                },
                "line": {"width": 2.6 if last else 1.1},
                "text": run.short_names,
                "name": f"epoch {run.epochs[column]:.4g}",
                "hovertemplate": "%{text}<br>alpha = %{y:.3g}"
                f"<extra>{escape(run.label)}, epoch {run.epochs[column]:.4g}</extra>",
                "meta": {"role": "flow", "epoch": float(run.epochs[column])},
                **place,
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
                    "text": [
                        f"{run.short_names[row]}: {escape(run.evidence[row, column])}" for row in np.flatnonzero(hollow)
                    ],
                    "hovertemplate": "%{text}<br>alpha = %{y:.3g}, not to be trusted<extra></extra>",
                    **place,
                }
            )
    return traces


def _colour_lines(spec: Spec, first: float, last: float) -> None:
    """Give the lines the colour that the colour axis gives their marks (plotly colours only the marks)."""
    stops = spec["layout"]["coloraxis"]["colorscale"]
    for trace in spec["data"]:
        meta = trace.get("meta", {})
        if meta.get("role") == "flow":
            share = (meta["epoch"] - first) / (last - first) if last > first else 1.0
            trace["line"]["color"] = _between(stops, share)


def _between(stops: Sequence[tuple[float, str]], share: float) -> str:
    """The colour at ``share`` of a colour scale."""
    places = [place for place, _ in stops]
    parts = np.array([[int(colour[i : i + 2], 16) for i in (1, 3, 5)] for _, colour in stops])
    red, green, blue = (round(float(np.interp(share, places, parts[:, i]))) for i in range(3))
    return f"rgb({red},{green},{blue})"


def _against_random(spec: Spec, run: RunView, suffix: str, domain: Sequence[float], first: bool) -> None:
    """Add rand_distance of every layer against its alpha, at the last snapshot that has both."""
    middle = 0.5 - GAP / 2
    place = {"xaxis": f"x{suffix}", "yaxis": f"y{suffix}"}
    same = {} if first else {"x": {"matches": "x2"}, "y": {"matches": "y2"}}
    spec["layout"][f"xaxis{suffix}"] = axis("alpha", domain=domain, anchor=f"y{suffix}", **same.get("x", {}))
    spec["layout"][f"yaxis{suffix}"] = axis(
        "rand_distance" if first else "", domain=[0, middle], anchor=f"x{suffix}", **same.get("y", {})
    )
    title = f"{escape(run.label)}: distance from random against alpha"
    spec["layout"]["annotations"].append(heading(title, domain[0], middle, hover=explain("rand_distance"), yshift=6))
    both: list[int] = []
    if "rand_distance" in run.quantities:
        random, alpha = run.values("rand_distance"), run.values("alpha")
        both = np.flatnonzero((np.isfinite(random) & np.isfinite(alpha)).any(axis=0)).tolist()
    if not both:
        note = {"text": "rand_distance was not measured in this run", "font": {"color": GREY}, "showarrow": False}
        corner = {"x": domain[0] + 0.01, "y": middle / 2, "xref": "paper", "yref": "paper", "xanchor": "left"}
        spec["layout"]["annotations"].append({**note, **corner})
        for name in ("xaxis", "yaxis"):
            spec["layout"][f"{name}{suffix}"].update(showticklabels=False, ticks="", showgrid=False)
        spec["data"].append({"type": "scatter", "x": [None], "y": [None], "showlegend": False, **place})
        return
    column = both[-1]
    random, alpha, sure = random[:, column], alpha[:, column], run.sure("alpha")[:, column]
    depth = np.arange(len(run.layers))
    for keep, symbol, colour, name in (
        (sure, "circle", RUN_COLOURS[0], ""),
        (~sure, "circle-open", GREY, ", not to be trusted"),
    ):
        keep = keep & np.isfinite(random) & np.isfinite(alpha)
        if keep.any():
            spec["data"].append(
                {
                    "type": "scatter",
                    "mode": "markers",
                    "x": alpha[keep],
                    "y": random[keep],
                    "marker": {"size": 9, "symbol": symbol, "color": colour, "line": {"color": INK, "width": 0.6}},
                    "text": [run.short_names[row] for row in depth[keep]],
                    "hovertemplate": f"%{{text}}<br>alpha = %{{x:.3g}}{name}<br>rand_distance = %{{y:.3g}}"
                    f"<extra>epoch {run.epochs[column]:.4g}</extra>",
                    **place,
                }
            )
