"""Writes the report: the page, its data and its charting library in one file that needs no network."""

from __future__ import annotations

import base64
import gzip
import html
import os
import re
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from string import Template
from typing import Any

import numpy as np

from ww_callbacks.integrations.figures.run_view import Run, RunView, views
from ww_callbacks.integrations.figures.specs.history import history_frame
from ww_callbacks.integrations.figures.specs.spectrum import (
    NOTHING,
    Spectra,
    empty_spectra,
    missing_epochs,
    read_spectra,
    spread,
)
from ww_callbacks.integrations.figures.style import Spec, message_panel
from ww_callbacks.integrations.report.describe import describe_layers, describe_page, describe_quantities, describe_run
from ww_callbacks.integrations.report.packing import MANTISSA_BITS, compact
from ww_callbacks.integrations.report.plotly_script import plotly_gzipped
from ww_callbacks.integrations.report.view import draw

STATIC = Path(__file__).parent / "static"
MODULES = (
    *("dom", "theme", "axes", "plots", "address", "runs"),
    *("views/about", "views/table", "views/overview", "views/heat_map", "views/layer", "views/flow"),
    "app",
)
"""The page's scripts, in import order."""
MOST_SPECTRA, MOST_IN_ALL, LEAST_SPECTRA = 48, 3600, 6
"""Maximum number of epochs of a layer's spectrum in the report; fewer for many layers, to limit the file's size."""
BITS = {"heat_map": 12, "spectrum": 10}
"""Mantissa bits in views: errors of at most 1.2e-4 and 5e-4 of a value, less than a pixel."""

Progress = Callable[[int, int], None]


def write_report(runs: Run | Sequence[Run], path: str | os.PathLike[str], progress: Progress | None = None) -> Path:
    """Write the report on ``runs``, side by side, to ``path``.

    The page has the views of TensorBoard's tab, the verdict in words, the settings and versions, and the definitions of
    the quantities. The overview, the heat map and the histories contain every epoch; each layer's spectrum at most 48
    evenly spaced epochs, and fewer for more than 75 layers.

    Args:
        runs: the records or their paths.
        path: the HTML file; it is replaced atomically.
        progress: called with the number of finished parts and their total number.

    Raises:
        FileNotFoundError: if a path has no record.
        RecordError: if a record is damaged.
    """
    shown = views(runs)
    kept = max(min(MOST_SPECTRA, MOST_IN_ALL // max(sum(len(run.layers) for run in shown), 1)), LEAST_SPECTRA)
    parts = list(_parts(shown, kept))
    data = [_packed("plotly", plotly_gzipped())]
    for number, (name, make) in enumerate(parts):
        if progress is not None:
            progress(number, len(parts))
        made = compact(make(), BITS.get(name.partition("/")[0], MANTISSA_BITS))
        data.append(_packed(name, gzip.compress(made, compresslevel=6, mtime=0)))
    page = Template((STATIC / "page.html").read_text("utf-8")).substitute(
        title=html.escape(_title(shown)),
        style=(STATIC / "style.css").read_text("utf-8"),
        footer=html.escape(
            f"Made from {', '.join(str(run.record.path) for run in shown)}. Of each layer's spectrum at most {kept} "
            "epochs are in this file, evenly chosen."
        ),
        data="\n".join(data),
        app=_inline(script()),
    )
    target = Path(path)
    if target.is_dir():
        raise IsADirectoryError(f"{target} is a folder. Choose a file name, such as {target / 'report.html'}.")
    if not target.parent.is_dir():
        raise FileNotFoundError(f"The folder {target.parent} does not exist. Create it, or choose another.")
    temporary = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        temporary.write_text(page, "utf-8")
        temporary.replace(target)
    except OSError as error:
        raise OSError(
            f"The report could not be written to {target}: {(error.strerror or str(error)).lower()}."
        ) from error
    finally:
        temporary.unlink(missing_ok=True)
    if progress is not None:
        progress(len(parts), len(parts))
    return target


def script() -> str:
    """The report's modules joined into one, because a page opened from disk cannot import modules."""
    return re.sub(r"^export ", "", joined((*MODULES, "report")), flags=re.MULTILINE)


def joined(names: Sequence[str]) -> str:
    """The text of these modules, in import order, joined into one."""
    texts = [(STATIC / f"{name}.js").read_text("utf-8") for name in names]
    return "\n".join(re.sub(r"^import .*?;\n", "", text, flags=re.MULTILINE | re.DOTALL) for text in texts)


def _title(runs: Sequence[RunView]) -> str:
    names = [run.label for run in runs]
    days = sorted({run.record.run.started[:10] for run in runs})
    several = f"{', '.join(names[:3])} and {len(names) - 3} more" if len(names) > 4 else ", ".join(names)
    return f"Spectra of {several}, {' to '.join(dict.fromkeys([days[0], days[-1]]))}"


def _packed(name: str, compressed: bytes) -> str:
    text = base64.b64encode(compressed).decode("ascii")
    return f'<script type="text/plain" id="{name}">{text}</script>'


def _inline(script: str) -> str:
    """``script`` escaped for a script element, so that nothing in it ends the element."""
    return script.replace("</script", "<\\/script").replace("<!--", "<\\!--")


def _parts(runs: Sequence[RunView], spectra: int) -> Iterator[tuple[str, Callable[[], Any]]]:
    """The names of the page's data, each with the function that creates it."""
    quantities = describe_quantities(runs)
    layers = list(dict.fromkeys(layer for run in runs for layer in run.layers))
    yield (
        "state",
        lambda: {
            **describe_page(runs),
            "version": "report",
            "message": "",
            "layers": layers,
            "runs": [{**describe_run(run), "problem": ""} for run in runs],
        },
    )
    for view in ("evidence", "timeline", "flow", "random", "histograms"):
        yield view, partial(draw, view, runs)
    yield "alerts", partial(draw, "alerts", runs)
    yield "alerts/notes", partial(draw, "alerts", runs, notes=True)
    for number, quantity in enumerate(quantities):
        yield f"heat_map/{number}", partial(draw, "heat_map", runs, quantity=quantity)
        yield f"heat_map/{number}/relative", partial(_relative, runs, quantity)
    yield "history", partial(history_frame, runs)
    frame = empty_spectra()
    yield "spectrum", lambda: {"panels": frame.panels, "traces": frame.traces[0]}
    for number, run in enumerate(runs):
        yield f"layers/{number}", partial(describe_layers, run)
        for place, layer in enumerate(run.layers):
            yield f"spectrum/{number}/{place}", partial(_spectra, run, layer, spectra, frame)


def _relative(runs: Sequence[RunView], quantity: str) -> list[Spec]:
    """The heat map relative to each layer's first value, without the values, which the page computes."""
    panels = draw("heat_map", runs, quantity=quantity, relative=True)
    for trace in (trace for one in panels for trace in one["data"]):
        if (part := trace.get("meta", {}).get("part")) in ("sure", "unsure"):
            del trace["z"]
            if part == "unsure":
                trace.pop("text", None)
    return panels


def _spectra(run: RunView, layer: str, most: int, frame: Spectra) -> Any:
    """The spectra of a layer without the parts shared with ``frame``, or a panel with the reason why there are none."""
    try:
        steps = run.record.density_steps(layer)
        spectra = read_spectra(run, layer, spread(steps, most), axis_epochs=0)
    except ValueError as error:  # a damaged line
        return [message_panel(str(error))]
    if spectra is None:
        return [message_panel(NOTHING)]
    left = f" This report holds spectra of {most} of {len(steps)} epochs." if len(steps) > most else ""
    return {
        "layouts": [
            {name: part for name, part in own["layout"].items() if part != shared["layout"].get(name)}
            for own, shared in zip(spectra.panels, frame.panels, strict=True)
        ],
        "epochs": spectra.epochs,
        "traces": [
            [
                _columns(trace, shared)
                for *trace, shared in zip(*(epoch[side] for epoch in spectra.traces), empty, strict=True)
            ]
            for side, empty in enumerate(frame.traces[0])
        ],
        "ghost": spectra.ghost,
        "missing": f"{missing_epochs(run, layer)}{left}".strip(),
    }


def _columns(epochs: Sequence[Spec], shared: Spec) -> dict[str, list[Any]]:
    """The values of one trace that differ between epochs."""
    names = dict.fromkeys(name for trace in epochs for name in trace)
    return {
        name: [trace.get(name) for trace in epochs]
        for name in names
        if isinstance(shared.get(name), np.ndarray) or any(trace.get(name) != shared.get(name) for trace in epochs)
    }
