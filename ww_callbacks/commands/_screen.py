"""A run on one screen of a terminal: how it stands, the model-level quantities, the layers worth a look."""

from __future__ import annotations

import math

import numpy as np
from rich import box
from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from ww_callbacks.integrations.figures.layer_status import LayerStatus, layer_statuses
from ww_callbacks.integrations.figures.palette import SEVERITIES
from ww_callbacks.integrations.figures.run_summary import BAD, GOOD, OPEN, WATCH, headline
from ww_callbacks.integrations.figures.run_view import RunView
from ww_callbacks.integrations.quantity_info import quantity_info

FIXED_LINES = 24
"""Lines of the screen that are no layer's."""

STYLES = {GOOD: "green", WATCH: "yellow", BAD: "bold red", OPEN: "dim"}
SIGNS = {"critical": ("✕", "bold red"), "warning": ("▲", "yellow"), "info": ("●", "cyan"), "": (" ", "")}
COLUMNS = ("log_spectral_norm", "effective_rank", "scale_collapse")
BARS = "▁▂▃▄▅▆▇█"


def screen(run: RunView, rows: int) -> RenderableType:
    """``run`` as it stands, with at most ``rows`` layers, those with an alert first."""
    said = headline(run)
    text = Text(said.text)
    if said.advice:
        text.append(f"\n{said.advice}", style="italic")
    title = Text(f"{run.label}: {said.title}", style=STYLES[said.tone])
    return Group(
        Panel(text, title=title, title_align="left", subtitle=_progress(run), subtitle_align="right"),
        _model(run),
        _layers(run, rows),
    )


def _progress(run: RunView) -> Text:
    if not len(run.steps):
        return Text("no snapshot yet")
    parts = [f"epoch {run.epochs[-1]:.4g}", f"step {run.steps[-1]}"]
    for name in run.metrics:
        values = run.model(f"metrics/{name}")
        if values is not None and math.isfinite(values[-1]):
            parts.append(f"{name.replace('_', ' ')} {values[-1]:.4g}")
    overhead = run.model("overhead")
    if overhead is not None and math.isfinite(overhead[-1]):
        parts.append(f"callback {overhead[-1]:.2%} of the time")
    return Text(" · ".join(parts))


def _model(run: RunView) -> Table:
    """The model-level quantities and how they moved."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("over the layers")
    for name in ("median", "10 %", "90 %"):
        table.add_column(name, justify="right")
    table.add_column("median so far")
    for quantity in run.quantities:
        median = run.model(f"{quantity}/median")
        if median is None or not len(median):
            continue
        when = run.measured(quantity)
        low, high = run.model(f"{quantity}/q10"), run.model(f"{quantity}/q90")
        cells = [
            _number(column[when[-1]]) if column is not None and len(when) else "–" for column in (median, low, high)
        ]
        table.add_row(Text(quantity_info(quantity).title), *cells, sparkline(median[when]))
    return table


def sparkline(values: np.ndarray, width: int = 32) -> str:
    """``values`` as a row of at most ``width`` bars between their least and their greatest; a dot for what is missing.

    >>> sparkline(np.array([0.0, 1.0, np.nan, 2.0]))
    '▁▅·█'
    """
    if len(values) > width:
        values = values[np.linspace(0, len(values) - 1, width).round().astype(int)]
    finite = values[np.isfinite(values)]
    if not len(finite):
        return ""
    low, span = finite.min(), np.ptp(finite)
    place = [0.0 if span == 0 else (value - low) / span for value in values]
    return "".join(BARS[round(share * (len(BARS) - 1))] if math.isfinite(share) else "·" for share in place)


def _layers(run: RunView, rows: int) -> Table:
    """The layers: those with an alert first, then in depth order."""
    columns = [name for name in COLUMNS if name in run.quantities]
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("")
    table.add_column("layer", overflow="fold", min_width=12)
    if "alpha" in run.quantities:
        table.add_column("alpha", justify="right", no_wrap=True)
    for name in columns:
        table.add_column(quantity_info(name).title, justify="right", min_width=9)
    table.add_column("standing", no_wrap=True, overflow="ellipsis")
    ordered = sorted(layer_statuses(run), key=lambda row: -SEVERITIES.index(row.severity) - 1 if row.severity else 0)
    for row in ordered[:rows]:
        sign, style = SIGNS[row.severity]
        cells = [_alpha(row)] if "alpha" in run.quantities else []
        cells += [Text(_number(row.values[name])) for name in columns]
        table.add_row(Text(sign, style), Text(row.layer), *cells, Text(row.in_words, style))
    if len(ordered) > rows:
        table.caption = f"and {len(ordered) - rows} more layers"
    return table


def _alpha(row: LayerStatus) -> Text:
    value, error = row.values["alpha"], row.values.get("sigma", math.nan)
    text = _number(value) + (f" ± {error:.2g}" if math.isfinite(error) and math.isfinite(value) else "")
    if row.evidence in ("", "sufficient") or not math.isfinite(value):
        return Text(text)
    return Text(f"({text})", style="dim")


def _number(value: float) -> str:
    return f"{value:.4g}" if math.isfinite(value) else "–"
