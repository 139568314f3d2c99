"""How alpha and the log spectral norm are spread over the layers: two runs, or the start and the end of one."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ww_callbacks.integrations.figures.run_view import RunView
from ww_callbacks.integrations.figures.style import (
    GREY,
    RUN_COLOURS,
    Spec,
    axis,
    escape,
    explain,
    heading,
    layout,
    message_figure,
)
from ww_callbacks.integrations.quantity_info import quantity_info

QUANTITIES = ("alpha", "log_spectral_norm")


def histograms_spec(runs: Sequence[RunView]) -> Spec:
    """Histograms over the layers of the first two of ``runs`` at their last epoch; of one run, its first epoch as well.

    Only layers whose alpha rests on sufficient evidence are counted in alpha's histogram; how many do is said.
    """
    sides = _sides(runs)
    if not sides:
        return message_figure("No spectra yet: they appear with the first full snapshot.")
    spec: Spec = {
        "data": [],
        "layout": layout(340, margin={"l": 64, "r": 30, "t": 66, "b": 54}, barmode="overlay", annotations=[]),
    }
    for number, name in enumerate(QUANTITIES):
        suffix, left = ("", 0.0) if number == 0 else ("2", 0.54)
        spec["layout"][f"xaxis{suffix}"] = axis(
            quantity_info(name).title, domain=[left, left + 0.46], anchor=f"y{suffix}"
        )
        spec["layout"][f"yaxis{suffix}"] = axis(
            "layers", anchor=f"x{suffix}", rangemode="tozero", tickformat="d", nticks=6
        )
        samples = [_sample(run, column, name) for run, column, _ in sides]
        counts = ", ".join(f"{len(kept)} of {total}" for kept, total in samples)
        spec["layout"]["annotations"].append(
            heading(
                f"{escape(quantity_info(name).title)} over the layers "
                f"<span style='font-weight:normal'>({counts} layers with "
                f"{'sufficient evidence' if name == 'alpha' else 'a value'})</span>",
                left,
                1,
                hover=explain(name),
                yshift=6,
            )
        )
        pooled = np.concatenate([kept for kept, _ in samples])
        if not len(pooled):
            continue
        low, high = float(pooled.min()), float(pooled.max())
        pad = max((high - low) * 0.02, 1e-3 * max(abs(low), 1))
        bins = int(np.clip(2 * np.sqrt(len(pooled)), 6, 30))
        edges = np.linspace(low - pad, high + pad, bins + 1)
        for position, ((kept, _), (_, _, label)) in enumerate(zip(samples, sides, strict=True)):
            colour = RUN_COLOURS[position] if position else GREY if _one_run(sides) else RUN_COLOURS[0]
            count = np.histogram(kept, edges)[0]
            if count.max() <= 5:
                spec["layout"][f"yaxis{suffix}"]["dtick"] = 1
            spec["data"].append(
                {
                    "type": "bar",
                    "x": (edges[:-1] + edges[1:]) / 2,
                    "y": count,
                    "width": float(edges[1] - edges[0]),
                    "opacity": 0.6,
                    "marker": {
                        "color": colour,
                        # The second side is hatched, so that the two differ without their colours as well.
                        "pattern": {"shape": "/" if position else "", "solidity": 0.35},
                        "line": {"color": colour, "width": 1},
                    },
                    "name": escape(label),
                    "legendgroup": str(position),
                    "showlegend": number == 0,
                    "hovertemplate": "%{y} layers around %{x:.3g}<extra>" + escape(label) + "</extra>",
                    "xaxis": f"x{suffix}",
                    "yaxis": f"y{suffix}",
                }
            )
    return spec


def _one_run(sides: Sequence[tuple[RunView, int, str]]) -> bool:
    return len(sides) == 2 and sides[0][0] is sides[1][0]


def _sides(runs: Sequence[RunView]) -> list[tuple[RunView, int, str]]:
    """What is compared: run, snapshot, label."""
    full = [(run, np.flatnonzero(run.full)) for run in runs]
    full = [(run, when) for run, when in full if len(when)]
    if not full:
        return []
    if len(full) == 1:
        run, when = full[0]
        chosen = [when[0], when[-1]] if len(when) > 1 else [when[-1]]
        return [(run, int(column), f"{run.label}, epoch {run.epochs[column]:.4g}") for column in chosen]
    return [(run, int(when[-1]), f"{run.label}, epoch {run.epochs[when[-1]]:.4g}") for run, when in full[:2]]


def _sample(run: RunView, column: int, name: str) -> tuple[np.ndarray, int]:
    """The values that count and the number of layers."""
    if name not in run.quantities:
        return np.empty(0), len(run.layers)
    values = run.values(name)[:, column]
    return values[np.isfinite(values) & run.sure(name)[:, column]], len(run.layers)
