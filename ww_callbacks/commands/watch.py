"""``ww-callbacks watch``: follow a running training in the terminal."""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ww_callbacks.integrations.record import Follower, RunRecord, Update
    from ww_callbacks.integrations.schema import Snapshot


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the arguments."""
    parser = subparsers.add_parser(
        "watch",
        help="follow a running training in the terminal",
        description="Follow a run while it trains, until its verdict: a live table in a terminal, plain lines "
        "elsewhere. The exit code is 1 if the verdict (with --once, the current state) is bad.",
    )
    parser.add_argument("run", metavar="RUN", type=Path, help="folder of the run, or its spectral.jsonl")
    parser.add_argument("--once", action="store_true", help="show the current state and exit")
    parser.add_argument("--json", action="store_true", help="one JSON line for each snapshot, alert and verdict")
    parser.add_argument(
        "--interval", type=_seconds, default=1.0, metavar="S", help="seconds between refreshes (default: 1)"
    )


def _seconds(text: str) -> float:
    value = float(text)
    if not value > 0:
        raise argparse.ArgumentTypeError(f"expected a number of seconds above 0, got {text}")
    return value


def run(args: argparse.Namespace) -> int:
    """Follow the run and return the exit code of its verdict."""
    import sys
    from pathlib import Path

    from ww_callbacks.integrations.record import Follower, read_run
    from ww_callbacks.integrations.record.reader import RECORD_NAME, find_runs, record_file

    if args.once:
        record = read_run(args.run)
        _once(record, args.json)
        return _exit_code(record)
    path = Path(args.run).expanduser()
    if path.is_dir() and not (path / RECORD_NAME).exists() and find_runs(path):
        record_file(path)  # raises, and lists the runs below
    # Wait for a run that starts later.
    follower = Follower(args.run)
    if args.json:
        _json_lines(follower, args.interval)
    elif sys.stdout.isatty():
        _live(follower, args.interval)
    else:
        _plain_lines(follower, args.interval)
    return _exit_code(follower.record)


def _exit_code(record: RunRecord | None) -> int:
    from ww_callbacks.commands import EXIT_FINDING, EXIT_OK
    from ww_callbacks.integrations.figures.run_summary import BAD

    return EXIT_FINDING if record is not None and _headline(record)["tone"] == BAD else EXIT_OK


def _headline(record: RunRecord) -> dict[str, str]:
    from dataclasses import asdict

    from ww_callbacks.integrations.figures.run_summary import headline
    from ww_callbacks.integrations.figures.run_view import views

    return asdict(headline(views(record)[0]))


def _updates(follower: Follower, interval: float) -> Iterator[Update]:
    """Yield updates until there is a verdict."""
    while True:
        update = follower.poll()
        yield update
        if update.verdict is not None:
            return
        time.sleep(interval)


def _once(record: RunRecord, as_json: bool) -> None:
    """The current state of the run, as one JSON object or as on the live screen."""
    from rich.console import Console

    from ww_callbacks.commands._screen import screen
    from ww_callbacks.integrations.figures.run_view import views

    view = views(record)[0]
    if as_json:
        from ww_callbacks.integrations.report.describe import describe_layers, describe_run

        _print_json({**describe_run(view), "layers": describe_layers(view)})
    else:
        console = Console()
        console.print(screen(view, len(view.layers), console.width))


def _live(follower: Follower, interval: float) -> None:
    """A screen that is redrawn at each snapshot."""
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

    from ww_callbacks.commands._screen import fitting_screen
    from ww_callbacks.integrations.figures.run_view import views

    console = Console()
    waiting = Text(f"waiting for a record at {follower.path} (Ctrl-C to stop)")
    with Live(waiting, console=console, auto_refresh=False) as live:
        for update in _updates(follower, interval):
            if update and follower.record is not None:
                live.update(fitting_screen(views(follower.record)[0], console), refresh=True)


def _plain_lines(follower: Follower, interval: float) -> None:
    """The lines that the run's console prints."""
    from ww_callbacks.integrations.sinks.console import ConsoleSink

    sink = ConsoleSink()
    waiting = True
    for update in _updates(follower, interval):
        if update.run is not None:
            sink.open(update.run, resumed=update.run.resumed_at is not None)
        elif waiting and follower.record is None:
            print(f"waiting for a record at {follower.path} (Ctrl-C to stop)", flush=True)
        waiting = False
        # An update may contain several snapshots: an alert follows the snapshot of its step.
        alerts = sorted(update.alerts, key=lambda alert: alert.step)
        for snapshot in _snapshots(update):
            while alerts and alerts[0].step < snapshot.step:
                sink.alert(alerts.pop(0))
            sink.snapshot(snapshot)
        for alert in alerts:
            sink.alert(alert)
        if update.verdict is not None:
            sink.close(update.verdict)


def _json_lines(follower: Follower, interval: float) -> None:
    """One object per snapshot, alert and verdict; ``dropped_from`` reports entries superseded by a resume."""
    from dataclasses import asdict

    for update in _updates(follower, interval):
        if update.run is not None:
            _print_json({"record": "run", **asdict(update.run)})
        if update.dropped_from is not None:
            _print_json({"record": "dropped", "dropped_from": update.dropped_from})
        rows = [
            {"record": "model", **{str(name): value for name, value in row.items()}}
            for row in update.model.to_dict("records")
        ]
        said = [{"record": "alert", **asdict(alert)} for alert in update.alerts]
        for row in sorted([*rows, *said], key=lambda row: row["step"]):  # stable: an alert follows its snapshot
            _print_json(row)
        if update.verdict is not None:
            _print_json({"record": "verdict", **asdict(update.verdict)})


def _print_json(value: dict[str, Any]) -> None:
    from ww_callbacks.integrations.report.packing import pack

    print(pack(value).decode(), flush=True)


def _snapshots(update: Update) -> Iterator[Snapshot]:
    """The new snapshots as the sinks take them."""
    from ww_callbacks.integrations.record.parser import LAYER_COLUMNS, METRICS, MODEL_COLUMNS
    from ww_callbacks.integrations.schema import LayerRow, Snapshot
    from ww_callbacks.spectral.measuring.accuracy import ERROR

    rows_at = dict(list(update.layers.groupby("step"))) if len(update.layers) else {}
    columns = [str(name) for name in update.layers.columns if name not in LAYER_COLUMNS]
    errors = [name for name in columns if name.endswith(ERROR) and name.removesuffix(ERROR) in columns]
    quantities = [name for name in columns if name not in errors]
    for model in update.model.to_dict("records"):
        rows = rows_at[model["step"]].to_dict("records") if model["step"] in rows_at else []
        known = {str(name): value for name, value in model.items() if name not in MODEL_COLUMNS}
        yield Snapshot(
            **{name: model[name] for name in MODEL_COLUMNS},
            rows=tuple(
                LayerRow(
                    row["layer"],
                    row["index"],
                    {name: row[name] for name in quantities},
                    row["status"],
                    row["changed"],
                    frozen=row["frozen"],
                    errors={name.removesuffix(ERROR): row[name] for name in errors if row[name] == row[name]},
                )
                for row in rows
            ),
            model={name: value for name, value in known.items() if not name.startswith(METRICS)},
            metrics={name.removeprefix(METRICS): value for name, value in known.items() if name.startswith(METRICS)},
        )
