"""Writing the report: the page, its data and its charting library in one file that needs no network."""

from __future__ import annotations

import base64
import gzip
import html
import os
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from string import Template
from typing import Any

from ww_callbacks.integrations.figures.run_view import Run, RunView, views
from ww_callbacks.integrations.figures.specs.spectrum import NOTHING, read_spectra, spread
from ww_callbacks.integrations.figures.style import message_figure
from ww_callbacks.integrations.report.describe import describe_layers, describe_quantities, describe_run
from ww_callbacks.integrations.report.packing import pack
from ww_callbacks.integrations.report.plotly_script import plotly_js
from ww_callbacks.integrations.report.view import draw

STATIC = Path(__file__).parent / "static"
MOST_SPECTRA = 48
"""Epochs of a layer's spectrum that the report holds at most, so that it stays a file one can send."""

Progress = Callable[[int, int], None]


def write_report(runs: Run | Sequence[Run], path: str | os.PathLike[str], progress: Progress | None = None) -> Path:
    """Write the report on ``runs``, side by side, to ``path``.

    The page has the views that TensorBoard's tab has, the verdict in words, the settings and versions, and what the
    quantities mean. Every epoch is in the overview, the heat map and the histories; of each layer's spectrum at most
    48 epochs are kept, evenly chosen.

    Args:
        runs: the records or their paths.
        path: the HTML file; it is replaced as a whole or not at all.
        progress: called with the number of parts that are done and their number in all.

    Raises:
        FileNotFoundError: for a path at which there is no record.
        RecordError: for a record that is damaged.
        ImportError: if plotly is not installed.
    """
    shown = views(runs)
    library = plotly_js().decode()
    parts = list(_parts(shown))
    data = []
    for number, (name, make) in enumerate(parts):
        if progress is not None:
            progress(number, len(parts))
        packed = base64.b64encode(gzip.compress(pack(make()), compresslevel=6, mtime=0)).decode("ascii")
        data.append(f'<script type="text/plain" id="{name}">{packed}</script>')
    script = (STATIC / "app.js").read_text("utf-8") + (STATIC / "report.js").read_text("utf-8")
    page = Template((STATIC / "page.html").read_text("utf-8")).substitute(
        title=html.escape(f"Spectra of {', '.join(run.label for run in shown)}"),
        style=(STATIC / "style.css").read_text("utf-8"),
        footer=html.escape(f"Of each layer's spectrum at most {MOST_SPECTRA} epochs are in this file, evenly chosen."),
        data="\n".join(data),
        plotly=_inline(library),
        app=_inline(script),
    )
    target = Path(path)
    beside = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        beside.write_text(page, "utf-8")
        beside.replace(target)
    finally:
        beside.unlink(missing_ok=True)
    if progress is not None:
        progress(len(parts), len(parts))
    return target


def _inline(script: str) -> str:
    """``script`` for a script element: nothing in it may look like the element's end."""
    return script.replace("</script", "<\\/script").replace("<!--", "<\\!--")


def _parts(runs: Sequence[RunView]) -> Iterator[tuple[str, Callable[[], Any]]]:
    """The names that the page knows its data by, each with what makes the data."""
    quantities = describe_quantities(runs)
    layers = list(dict.fromkeys(layer for run in runs for layer in run.layers))
    yield (
        "state",
        lambda: {
            "version": "report",
            "message": "",
            "quantities": quantities,
            "layers": layers,
            "runs": [{**describe_run(run), "problem": ""} for run in runs],
        },
    )
    for view in ("timeline", "flow", "histograms"):
        yield view, partial(draw, view, runs)
    for number, quantity in enumerate(quantities):
        yield f"heat_map/{number}", partial(draw, "heat_map", runs, quantity=quantity)
    for number, layer in enumerate(layers):
        yield f"history/{number}", partial(draw, "history", runs, layer=layer)
    for number, run in enumerate(runs):
        yield f"layers/{number}", partial(describe_layers, run)
        for place, layer in enumerate(run.layers):
            yield f"spectrum/{number}/{place}", partial(_spectra, run, layer)


def _spectra(run: RunView, layer: str) -> Any:
    """The spectra of a layer as the page takes them, or a figure that says why there is none."""
    try:
        spectra = read_spectra(run, layer, spread(run.record.density_steps(layer), MOST_SPECTRA))
    except ValueError as error:  # a damaged line
        return message_figure(str(error))
    if spectra is None:
        return message_figure(NOTHING)
    return {"layout": spectra.layout, "epochs": spectra.epochs, "traces": spectra.traces}
