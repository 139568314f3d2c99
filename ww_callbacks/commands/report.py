"""``ww-callbacks report``: one HTML file on one run or several."""

from __future__ import annotations

import argparse
from pathlib import Path


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the arguments."""
    parser = subparsers.add_parser(
        "report",
        help="write one interactive HTML file on one run or several",
        description="Write one self-contained, interactive HTML file on one run or several side by side. It opens from "
        "the disk, without a network.",
    )
    parser.add_argument("runs", nargs="+", metavar="RUN", type=Path, help="folder of a run, or its spectral.jsonl")
    parser.add_argument(
        "-o", "--output", type=Path, default=Path("report.html"), help="the file (default: %(default)s)"
    )
    parser.add_argument("--json", action="store_true", help="print what was written as JSON, without a progress bar")


def run(args: argparse.Namespace) -> int:
    """Write the report and print its path."""
    import sys

    import orjson
    from rich.console import Console
    from rich.progress import Progress

    from ww_callbacks.commands import EXIT_OK
    from ww_callbacks.integrations.report import write_report

    with Progress(console=Console(stderr=True), disable=args.json or not sys.stderr.isatty(), transient=True) as bar:
        task = bar.add_task("drawing")
        path = write_report(args.runs, args.output, lambda done, total: bar.update(task, completed=done, total=total))
    size = path.stat().st_size
    if args.json:
        print(orjson.dumps({"report": str(path), "bytes": size, "runs": [str(given) for given in args.runs]}).decode())
    else:
        print(f"{path} ({size / 1e6:.1f} MB): {len(args.runs)} run{'s' if len(args.runs) > 1 else ''}")
    return EXIT_OK
