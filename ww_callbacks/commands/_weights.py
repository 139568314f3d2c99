"""Shared code of the subcommands on files of weights: arguments, progress, tables, output files."""

from __future__ import annotations

import argparse
import os
import re
import sys
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import pandas as pd

CONVENTIONS = ("matrix", "slices", "separate", "weightwatcher")
SUFFIXES = (".csv", ".parquet", ".html", ".json")

_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title><style>
body {{ font: 14px/1.4 system-ui, sans-serif; margin: 2rem; }}
table {{ border-collapse: collapse; font-variant-numeric: tabular-nums; }}
th, td {{ padding: .2rem .6rem; text-align: right; border-bottom: 1px solid #ddd; white-space: nowrap; }}
th {{ position: sticky; top: 0; background: #fff; }}
</style></head><body><h1>{title}</h1><p>{heading}</p>
{table}
</body></html>
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments for the choice of layers, the measurement, and the output."""
    parser.add_argument("--layers", nargs="+", default=(), metavar="PATTERN", help="names to include, e.g. 'encoder.*'")
    parser.add_argument("--exclude", nargs="+", default=(), metavar="PATTERN", help="names to exclude")
    parser.add_argument("--types", nargs="+", default=(), metavar="TYPE", help="kinds to include, such as conv")
    parser.add_argument("--min-eigenvalues", type=int, default=1, metavar="N", help="exclude smaller layers")
    parser.add_argument("--convolution", choices=CONVENTIONS, default="matrix", help="how kernels become matrices")
    parser.add_argument("--workers", type=int, metavar="N", help="layers measured in parallel; all cores by default")
    parser.add_argument(
        "--max-time", type=_seconds, metavar="TIME", help="start no further layer after 90s, 10m or 2h; cheapest first"
    )
    parser.add_argument(
        "--resume", type=Path, metavar="FILE", help="save rows to FILE when measured, and continue from those in it"
    )
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        action="append",
        default=[],
        metavar="FILE",
        help="write .csv, .parquet, .html, .json",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("-q", "--quiet", action="store_true", help="show no progress bar")


def _seconds(text: str) -> float:
    """A time such as ``90``, ``90s``, ``10m`` or ``2h`` in seconds."""
    factor = {"s": 1.0, "m": 60.0, "h": 3600.0}.get(text[-1:])
    try:
        seconds = float(text[:-1] if factor else text) * (factor or 1.0)
    except ValueError:
        seconds = 0.0
    if not 0.0 < seconds < float("inf"):
        raise argparse.ArgumentTypeError(f"expected a time such as 90s, 10m or 2h but got {text!r}")
    return seconds


@contextmanager
def interruptible(args: argparse.Namespace) -> Iterator[None]:
    """Report after Ctrl-C where the measured rows are, and exit like any interrupted command."""
    try:
        yield
    except KeyboardInterrupt:
        kept = args.resume is not None and args.resume.exists()
        how = f"its rows are in {args.resume}, and the command can resume from it" if kept else "nothing was saved"
        print(f"ww-callbacks {args.command}: interrupted: {how}{'' if kept else ' (see --resume)'}", file=sys.stderr)
        raise


def add_order(parser: argparse.ArgumentParser, concern: str) -> None:
    """Declare the order of the printed table."""
    parser.add_argument(
        "--sort",
        default="concern",
        metavar="ORDER",
        help=f"order of the printed table: concern (the default: {concern}), depth, or a column",
    )


def check_order(order: str, columns: Sequence[str]) -> None:
    """Raise for an order that the table will not have, before the work starts.

    Raises:
        ValueError: if there is no such order.
    """
    from ww_callbacks.spectral.printed_tables import ORDERS

    if order not in (*ORDERS, *columns):
        raise ValueError(f"Expected --sort to be one of {', '.join((*ORDERS, *columns))} but got {order!r}.")


def selection(args: argparse.Namespace) -> dict[str, Any]:
    """The arguments of ``spectral.analyze`` and ``spectral.compare`` that :func:`add_arguments` declared."""
    names = ("layers", "exclude", "types", "min_eigenvalues", "convolution", "workers", "max_time", "resume")
    return {name: getattr(args, name) for name in names}


def check_outputs(paths: Sequence[Path]) -> None:
    """Raise if an output cannot be written, before the work starts.

    Raises:
        ValueError: if a suffix is unknown.
        FileNotFoundError: if the folder does not exist.
        ImportError: if Parquet is requested and not installed.
    """
    for path in paths:
        if path.suffix not in SUFFIXES:
            raise ValueError(f"cannot write {path}: expected one of {', '.join(SUFFIXES)} but got {path.suffix!r}.")
        if not path.parent.is_dir():
            raise FileNotFoundError(f"cannot write {path}: the folder {path.parent} does not exist.")
        if path.suffix == ".parquet":
            try:
                import pyarrow  # noqa: F401
            except ImportError as error:
                raise ImportError(f'cannot write {path}: pip install "ww-callbacks[parquet]".') from error


def write(paths: Sequence[Path], title: str, heading: str, table: pd.DataFrame, document: Mapping[str, Any]) -> None:
    """Write ``table`` (``document``, for JSON) to each of ``paths``, by its suffix; HTML has values with their ±."""
    import html

    from ww_callbacks.spectral.printed_tables import with_errors_in_words

    for path in paths:
        if path.suffix == ".csv":
            table.to_csv(path, index=False)
        elif path.suffix == ".parquet":
            table.to_parquet(path, index=False)
        elif path.suffix == ".json":
            path.write_bytes(as_json(document))
        else:
            rows = with_errors_in_words(table).to_html(
                index=False, border=0, na_rep="–", float_format=lambda v: f"{v:.4g}"
            )
            page = _PAGE.format(title=html.escape(title), heading=html.escape(heading), table=rows)
            path.write_text(page, encoding="utf-8")


def as_json(document: Mapping[str, Any]) -> bytes:
    """Strictly valid JSON: NaN and infinities become null."""
    import orjson

    return orjson.dumps(document, option=orjson.OPT_INDENT_2 | orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_APPEND_NEWLINE)


def print_table(heading: str, table: pd.DataFrame, marks: Mapping[str, Mapping[str, str]], notes: str = "") -> None:
    """Print ``table`` as wide as the terminal is, or whole, as aligned text, if the output is not a terminal.

    A pipe is as wide as the environment variable ``COLUMNS`` says, if it is set.

    Args:
        heading: the line above it.
        table: the table.
        marks: column → value → style of a highlighted cell.
        notes: explanations, printed below.
    """
    from rich import box
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from ww_callbacks.integrations.sinks.console import shared_start

    console = Console(highlight=False)
    if not console.is_terminal and not os.environ.get("COLUMNS", "").isdigit():
        text = table.to_string(index=False, na_rep="–", float_format=lambda v: f"{v:.4g}")
        print(*filter(None, (heading, text, notes)), sep="\n\n")
        return
    console.print(escape(heading), end="\n\n")
    cells = {str(column): [_cell(value) for value in table[column]] for column in table}
    columns = _fitting(cells, console.width)
    if "layer" in columns:
        others = sum(3 + _width(column, cells[column]) for column in columns if column != "layer")
        room = max(console.width - others, _NAME)
        shared = shared_start(cells["layer"]) if max(map(len, cells["layer"]), default=0) > room else ""
        cells["layer"] = [broken(name.removeprefix(shared), room) for name in cells["layer"]]
        if shared:
            notes = "\n".join(filter(None, (f"The names of all layers begin with {shared}", notes)))
    shown = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for column in columns:
        numeric = table[column].dtype.kind in "fiu" or any(" ± " in cell for cell in cells[column])
        wraps = column in _FOLDED
        words = escape("\n".join(_head(column, cells[column])))
        justify: Literal["right", "left"] = "right" if numeric else "left"
        least = _width(column, cells[column]) if wraps else None
        shown.add_column(words, justify=justify, no_wrap=not wraps, min_width=least, overflow="fold")
    for i in range(len(table)):
        row = []
        for column in columns:
            text, style = escape(cells[column][i]), marks.get(column, {}).get(cells[column][i], "")
            row.append(f"[{style}]{text}[/]" if style else text)
        shown.add_row(*row)
    console.print(shown)
    if left := [column for column in cells if column not in columns]:
        named = [
            f"{column} (all {cells[column][0] or 'empty'})" if _is_constant(cells[column]) else column
            for column in left
        ]
        console.print(f"[dim]not shown, terminal too narrow: {escape(', '.join(named))}[/]")
    if notes:
        console.print(f"[dim]{escape(notes)}[/]")


_NAME = 24
"""Characters that a long name has at least."""
_HEAD = 9
"""Characters of a line of a column's head that are not too many above narrow cells."""
_FOLDED = ("layer", "what", "finding", "unusable_before")
_SIZES = ("matrices", "stored_as")
"""Columns that say less than the first quantity."""
_KEPT = ("layer", "status", "hint", "finding", "unusable_before", "what", "measured")


def _fitting(cells: Mapping[str, Sequence[str]], width: int) -> list[str]:
    """The columns that fit into ``width`` characters.

    Columns with equal values are dropped first, then the last ones, and the first quantity after the sizes; those that
    show problems stay.
    """
    constant = [column for column in cells if column != "layer" and _is_constant(cells[column])]
    later = [column for column in reversed(list(cells)) if column not in (*constant, *_KEPT)]
    later.sort(key=lambda column: column == next((own for own in cells if own not in (*_KEPT, *_SIZES)), ""))
    columns = list(cells)
    for column in (*constant, *later):
        if sum(3 + _width(column, cells[column]) for column in columns) - 3 <= width:
            break
        columns.remove(column)
    return columns


def _is_constant(cells: Sequence[str]) -> bool:
    return len(cells) > 1 and len(set(cells)) == 1


def _width(column: str, cells: Sequence[str]) -> int:
    """Characters that a column needs; a long text may be folded."""
    return max(max(map(len, _head(column, cells))), _cells_width(column, cells))


def _cells_width(column: str, cells: Sequence[str]) -> int:
    longest = max(map(len, cells), default=0)
    return min(longest, _NAME) if column in _FOLDED else longest


def broken(name: str, width: int) -> str:
    r"""A name in lines of at most ``width`` characters, broken after its dots, slashes and underscores.

    >>> broken("model.layers.10.self_attn.q_proj.weight", 24)
    'model.layers.10.self_\nattn.q_proj.weight'
    """
    lines = [""]
    for piece in re.split(r"(?<=[./_])", name):
        if lines[-1] and len(lines[-1]) + len(piece) > width:
            lines.append("")
        lines[-1] += piece
    return "\n".join(lines)


def _head(column: str, cells: Sequence[str]) -> list[str]:
    """The lines of a column's head: as wide as its cells, or a little wider where that saves lines.

    >>> _head("log_spectral_norm", ["0.2588"]), _head("alpha_evidence", ["few eigenvalues"])
    (['log', 'spectral', 'norm'], ['alpha evidence'])
    """
    words = column.split("_")
    width = max(_cells_width(column, cells), _HEAD, *map(len, words))
    return textwrap.wrap(" ".join(words), width)


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return "–" if value != value else f"{value:.4g}"
    return str(value)
