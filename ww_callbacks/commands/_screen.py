"""A run on one terminal screen: its status, the model-level quantities, the layers with problems first."""

from __future__ import annotations

import math

import numpy as np
from rich import box
from rich.console import Console, Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from ww_callbacks.commands._weights import broken
from ww_callbacks.integrations.figures.layer_status import LayerStatus, layer_statuses
from ww_callbacks.integrations.figures.palette import SEVERITIES
from ww_callbacks.integrations.figures.run_summary import BAD, GOOD, OPEN, WATCH, cost_in_words, headline
from ww_callbacks.integrations.figures.run_view import RunView
from ww_callbacks.integrations.quantity_info import quantity_info
from ww_callbacks.integrations.sinks.console import shared_start
from ww_callbacks.spectral.detectors.base import epoch_text
from ww_callbacks.spectral.measuring.accuracy import ERROR
from ww_callbacks.spectral.number_text import with_error

GAP, EDGES, NUMBER, SIGN = 3, 2, 9, 1
"""Characters between two columns, at the ends of a line, of a column of numbers, and of a sign."""
LEAST_ROWS = 3
"""Layers that are shown even if the terminal is too low."""
STATUS = 16
"""Characters of the status that fit next to a long name."""

STYLES = {GOOD: "green", WATCH: "yellow", BAD: "bold red", OPEN: "dim"}
SIGNS = {"critical": ("✕", "bold red"), "warning": ("▲", "yellow"), "info": ("●", "cyan"), "": (" ", "")}
COLUMNS = ("log_spectral_norm", "effective_rank", "scale_collapse")
BARS, BARS_LEAST, BARS_MOST = "▁▂▃▄▅▆▇█", 5, 40


def screen(run: RunView, rows: int, width: int) -> RenderableType:
    """The current state of ``run``, with at most ``rows`` layers, those with an alert first, ``width`` characters
    wide.
    """
    summary, shared = headline(run), shared_start(run.layers)
    text = Text(_progress(run), style="dim")
    for said, style in ((summary.text, "not dim"), (summary.advice, "not dim italic"), (summary.why, "dim")):
        if said:
            text.append("\n").append_text(_rich(said.replace(shared, "") if shared else said, style))
    title = Text(f"{run.label}: {summary.title}", style=STYLES[summary.tone])
    return Group(Panel(text, title=title, title_align="left"), _model(run, width), _layers(run, rows, width))


def fitting_screen(run: RunView, console: Console) -> RenderableType:
    """The screen with as many layers as the terminal is high."""
    rows = min(len(run.layers), console.height)
    while True:
        shown = screen(run, rows, console.width)
        excess = len(console.render_lines(shown, pad=False)) - (console.height - 1)
        if excess <= 0 or rows <= LEAST_ROWS:
            return shown
        rows = max(rows - excess, LEAST_ROWS)


def _rich(text: str, style: str) -> Text:
    """``text`` with text in backticks in bold."""
    parts = text.split("`")
    return Text.assemble(*((part, f"{style} bold" if place % 2 else style) for place, part in enumerate(parts)))


def _progress(run: RunView) -> str:
    if not len(run.steps):
        return "no snapshot yet"
    epoch, step = run.epochs[-1], run.steps[-1]
    known = epoch > 0 or step == 0  # the length of a first epoch may be unknown
    parts = [*([f"epoch {epoch_text(epoch)}"] if known else []), f"step {step}"]
    for name in run.metrics:
        values = run.model(f"metrics/{name}")
        if values is not None and math.isfinite(values[-1]):
            parts.append(f"{name.replace('_', ' ')} {values[-1]:.4g}")
    if cost := cost_in_words(run):
        parts.append(f"the callback cost {cost}")
    return " · ".join(parts)


def _model(run: RunView, width: int) -> Table:
    """The current model-level quantities and their history."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("over the layers")
    summarised = [name for name in run.quantities if _summarised(run, name)]
    known = {(name, part): _statistic(run, name, part) for name in summarised for part in ("median", "q10", "q90")}

    def number(part: str) -> int:
        return max([NUMBER, *(len(known[name, part]) for name in summarised)])

    for of_layers in ("{} of {} layers", "{}/{}"):  # the longer form if there is room for it
        titles = {name: _title(run, name, of_layers) for name in summarised}
        room = width - max(map(len, titles.values()), default=0) - number("median") - 2 * GAP - EDGES
        if room >= len("median so far"):
            break
    statistics = ["median"]
    quantiles = number("q10") + number("q90") + 2 * GAP
    if room - quantiles >= BARS_LEAST:  # in a narrow terminal, how it moved says more
        statistics += ["q10", "q90"]
        room -= quantiles
    for name in statistics:
        table.add_column({"q10": "10 %", "q90": "90 %"}.get(name, name), justify="right", no_wrap=True)
    bars = room >= BARS_LEAST
    if bars:
        table.add_column("median so far" if room >= len("median so far") else "so far", no_wrap=True)
    for quantity in summarised:
        median = run.model(f"{quantity}/median")
        if median is None:
            continue
        cells = [known[quantity, name] for name in statistics]
        history = [sparkline(median[run.measured(quantity)], min(room, BARS_MOST))] if bars else []
        table.add_row(Text(titles[quantity]), *cells, *history)
    return table


def _statistic(run: RunView, quantity: str, name: str) -> str:
    """The current statistic over the layers, with its error where values are estimates."""
    when = run.measured(quantity)
    values, errors = run.model(f"{quantity}/{name}"), run.model(f"{quantity}/{name}{ERROR}")
    if values is None or not len(when):
        return "–"
    return with_error(values[when[-1]], math.nan if errors is None else errors[when[-1]])


def _title(run: RunView, quantity: str, of_layers: str) -> str:
    """The quantity's name and, where it is not all of them, of how many layers its summary is."""
    when = run.measured(quantity)
    title = quantity_info(quantity).title
    if not len(when):
        return title
    known = run.sure(quantity)[:, when[-1]] & np.isfinite(run.values(quantity)[:, when[-1]])
    return title if known.all() else f"{title} ({of_layers.format(known.sum(), len(known))})"


def _summarised(run: RunView, quantity: str) -> bool:
    median = run.model(f"{quantity}/median")
    return median is not None and len(median) > 0


def sparkline(values: np.ndarray, width: int = BARS_MOST) -> str:
    """``values`` as a row of at most ``width`` bars between their minimum and maximum; a dot for missing values.

    The last bar is the last value.

    >>> sparkline(np.array([0.0, 1.0, np.nan, 2.0]))
    '▁▅·█'
    """
    if len(values) > width:
        values = values[np.linspace(len(values) - 1, 0, width).round()[::-1].astype(int)]
    finite = values[np.isfinite(values)]
    if not len(finite):
        return ""
    low, span = finite.min(), np.ptp(finite)
    place = [0.0 if span == 0 else (value - low) / span for value in values]
    return "".join(BARS[round(share * (len(BARS) - 1))] if math.isfinite(share) else "·" for share in place)


def _layers(run: RunView, rows: int, width: int) -> Table:
    """The layers: those with an alert first, then in depth order; numbers if there is room next to the text."""
    labels = dict(zip(run.layers, run.plain_names, strict=True))
    ordered = sorted(layer_statuses(run), key=lambda row: -SEVERITIES.index(row.severity) - 1 if row.severity else 0)
    shown = ordered[:rows]
    most = max(width - SIGN - STATUS - 3 * GAP, STATUS)
    labels = {name: broken(text, most) for name, text in labels.items()}
    names = max((len(line) for row in shown for line in labels[row.layer].split("\n")), default=5)
    words = min(max((len(row.in_words) for row in shown), default=8), 36)
    words = max(min(words, width - SIGN - names - 3 * GAP), len("status"))
    room = width - SIGN - names - words - 3 * GAP
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("")
    table.add_column("layer", no_wrap=True)
    table.add_column("status", min_width=words)
    alpha = "alpha" in run.quantities and room >= 14 + GAP
    if alpha:
        table.add_column("α", justify="right", no_wrap=True)
        room -= 14 + GAP
    columns = []
    for name in (name for name in COLUMNS if name in run.quantities):
        title = quantity_info(name).title
        room -= max(len(title), NUMBER, *(len(row.text(name)) for row in shown)) + GAP
        if room < 0:
            break
        columns.append(name)
        table.add_column(title, justify="right", no_wrap=True)
    for row in shown:
        sign, style = SIGNS[row.severity]
        cells = [_alpha(row)] if alpha else []
        cells += [Text(row.text(name)) for name in columns]
        table.add_row(Text(sign, style), Text(labels[row.layer]), Text(row.in_words, style), *cells)
    if len(ordered) > rows:
        table.caption = f"and {len(ordered) - rows} more layers"
    return table


def _alpha(row: LayerStatus) -> Text:
    text = row.text("alpha")
    return Text(text, style="dim" if text.startswith("(") else "")
