"""What the reproductions share: their arguments, and a report of tables, figures and remarks."""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"


def arguments(doc: str | None, argv: Sequence[str] | None, keep: bool = False) -> argparse.Namespace:
    """The arguments that every script takes, and ``--keep`` where training is long."""
    parser = argparse.ArgumentParser(description=(doc or "").partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="small data, a few seconds, nothing kept without --out")
    parser.add_argument("--out", type=Path, help="folder of the report (default: results/ beside the script)")
    parser.add_argument("--data", help="data folder (default: the environment variable WW_CALLBACKS_DATA)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1, help="threads of torch and of the linear algebra")
    if keep:
        parser.add_argument("--keep", type=Path, help="folder of trained networks, taken up by the next run")
    parsed = parser.parse_args(argv)
    if not parsed.quick and parsed.out is None:
        parsed.out = RESULTS
    return parsed


class Report:
    """Tables and remarks as Markdown, numbers as JSON, figures as SVG, under one name.

    Args:
        name: of the files.
        title: heading of the report.
        settings: how it was run.
    """

    def __init__(self, name: str, title: str, settings: Mapping[str, Any]) -> None:
        self.name = name
        self.numbers: dict[str, Any] = {}
        self._started = time.perf_counter()
        self._settings = dict(settings)
        self._figures: dict[str, Any] = {}
        self._parts = [f"# {title}", "Settings: " + "; ".join(f"{k} {_text(v)}" for k, v in settings.items()) + "."]

    def text(self, markdown: str) -> None:
        """Add a paragraph."""
        self._parts.append(markdown)

    def table(self, key: str, rows: Sequence[Mapping[str, Any]], caption: str) -> None:
        """Add a table, one row a mapping, and keep its numbers under ``key``."""
        self.numbers[key] = [dict(row) for row in rows]
        columns = list(dict.fromkeys(c for row in rows for c in row))
        lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
        lines += ["| " + " | ".join(_text(row.get(c, "")) for c in columns) + " |" for row in rows]
        self._parts.append(f"**{caption}**\n\n" + "\n".join(lines))

    def figure(
        self,
        key: str,
        title: str,
        x: str,
        y: str,
        lines: Mapping[str, tuple[Sequence[float], Sequence[float]]],
        log: Sequence[str] = (),
        markers: bool = False,
    ) -> None:
        """Add a figure of lines (or markers): name → (x, y); ``log`` names the logarithmic axes."""
        import plotly.graph_objects as go

        figure = go.Figure()
        for name, (xs, ys) in lines.items():
            figure.add_scatter(x=list(xs), y=list(ys), name=name, mode="markers" if markers else "lines+markers")
        figure.update_layout(xaxis_title=x, yaxis_title=y, template="plotly_white")
        figure.update_xaxes(type="log" if "x" in log else "linear")
        figure.update_yaxes(type="log" if "y" in log else "linear")
        self.plot(key, title, figure)

    def plot(self, key: str, title: str, figure: Any) -> None:
        """Add a plotly figure."""
        self._figures[key] = figure.update_layout(title=title, width=760, height=460)
        self._parts.append(f"![{title}]({self.name}_{key}.svg)")

    def write(self, folder: Path | None) -> str:
        """The report as Markdown; written to ``folder`` with its numbers and figures, if there is one."""
        seconds = time.perf_counter() - self._started
        where = f"{platform.machine()}, Python {platform.python_version()}"
        markdown = "\n\n".join([*self._parts, f"Took {seconds:.0f} s of wall time ({where})."]) + "\n"
        print(markdown, flush=True)
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
            (folder / f"{self.name}.md").write_text(markdown)
            numbers = {"settings": self._settings, "seconds": seconds, **self.numbers}
            (folder / f"{self.name}.json").write_text(json.dumps(_plain(numbers), indent=1) + "\n")
            _write_svgs({folder / f"{self.name}_{key}.svg": figure for key, figure in self._figures.items()})
        return markdown


_IMAGES = (
    "import sys, plotly.io as io\nfor p in sys.argv[1:]: io.read_json(p).write_image(p.removesuffix('json') + 'svg')"
)


def _write_svgs(figures: Mapping[Path, Any], seconds: float = 180) -> None:
    """Write each figure as SVG, in a separate process: its browser may be missing, or hang on a busy machine."""
    with tempfile.TemporaryDirectory() as folder:
        sources = {path: Path(folder) / f"{path.stem}.json" for path in figures}
        for path, figure in figures.items():
            figure.write_json(sources[path])
        command = [sys.executable, "-c", _IMAGES, *map(str, sources.values())]
        with contextlib.suppress(subprocess.TimeoutExpired):
            subprocess.run(command, timeout=seconds, capture_output=True, check=False)
        for path, source in sources.items():
            made = source.with_suffix(".svg")
            if made.exists():
                path.write_bytes(made.read_bytes())
            else:
                print(f"{path.name} could not be drawn (kaleido needs a browser); its numbers are in the JSON file.")


def _text(value: Any) -> str:
    if isinstance(value, float):
        return "" if math.isnan(value) else f"{value:.4g}"
    return str(value)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    if hasattr(value, "tolist"):
        return _plain(value.tolist())
    if isinstance(value, float):
        return None if not math.isfinite(value) else float(f"{value:.6g}")
    return value
