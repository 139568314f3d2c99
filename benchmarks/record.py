"""Cost of the run's own record and of the sinks: writing, reading, following, memory over a long run.

The record is one of 100 layers, 1,000 snapshots and 25 quantities; next to its reader, in the same run, pandas' own.
Memory is what 10,000 snapshots of 10 layers, sent to record, TensorBoard and console, add after the first hundred.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from benchmarks import _report
from ww_callbacks.integrations.record import Follower, RecordSink, read_run
from ww_callbacks.integrations.schema import LayerInfo, LayerRow, RunInfo, Snapshot
from ww_callbacks.integrations.sinks.console import ConsoleSink
from ww_callbacks.integrations.sinks.tensorboard import TensorBoardSink

LAYERS, SNAPSHOTS, QUANTITIES = 100, 1000, 25
LONG, LONG_LAYERS, WARM_UP = 10_000, 10, 100


def main() -> None:
    """Run, print, and write the JSON if asked."""
    asked = _report.arguments(__doc__).parse_args()
    rows: list[dict[str, Any]] = []
    figures: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        figures |= _long_run(Path(folder, "long"), rows)
        figures |= _write_and_read(Path(folder, "record"), rows)
    settings = {"layers": LAYERS, "snapshots": SNAPSHOTS, "quantities": QUANTITIES, "long_snapshots": LONG}
    _report.write(asked.json, settings, rows, figures)


def _write_and_read(folder: Path, rows: list[dict[str, Any]]) -> dict[str, float]:
    run = _run(folder, LAYERS)
    sink = RecordSink()
    sink.open(run, resumed=False)
    taken = _snapshots(run, SNAPSHOTS + 1, QUANTITIES)
    written = [_timed(lambda s=s: sink.snapshot(s)) for s in taken[:-1]]  # type: ignore[misc]
    path = folder / "spectral.jsonl"
    read = [_timed(lambda: read_run(folder)) for _ in range(3)]
    frame = [_timed(lambda: pd.read_json(path, lines=True).query("record == 'layer'")) for _ in range(3)]
    follower = Follower(folder)
    first = _timed(follower.poll)
    sink.snapshot(taken[-1])
    poll = _timed(follower.poll)
    sink.close(None)
    rows.append({"what": "read", "seconds": read})
    rows.append({"what": "pandas", "seconds": frame})
    return {
        "write_ms": 1e3 * float(np.median(written)),
        "record_mb": path.stat().st_size / 1e6,
        "read_s": min(read),
        "pandas_read_s": min(frame),
        "first_poll_s": first,
        "poll_ms": 1e3 * poll,
    }


def _long_run(folder: Path, rows: list[dict[str, Any]]) -> dict[str, float]:
    run = _run(folder, LONG_LAYERS)
    sinks = [RecordSink(), TensorBoardSink(folder), ConsoleSink(write=lambda line: None)]
    for sink in sinks:
        sink.open(run, resumed=False)
    pattern = _snapshots(run, WARM_UP, QUANTITIES)
    seconds = []
    early = 0.0
    for step in range(LONG):
        taken = Snapshot(**{**vars(pattern[step % WARM_UP]), "step": step, "epoch": float(step)})
        seconds.append(_timed(lambda: [sink.snapshot(taken) for sink in sinks]))  # noqa: B023
        if step == WARM_UP:
            early = _resident_mb()
    growth = _resident_mb() - early
    for sink in sinks:
        sink.close(None)
    tenths = [1e3 * float(np.median(part)) for part in np.array_split(seconds[WARM_UP:], 10)]
    rows.append({"what": "milliseconds a snapshot, by tenths of the run", "median": tenths})
    return {"rss_growth_mb": growth, "snapshot_ms_last_over_first": tenths[-1] / tenths[0]}


def _run(folder: Path, layers: int) -> RunInfo:
    infos = tuple(
        LayerInfo(f"net.blocks.{i}.weight", i, "dense", "Linear", (64, 64), ((64, 64),)) for i in range(layers)
    )
    return RunInfo("benchmark", "plain", "2026-01-01T00:00:00+00:00", {}, {}, infos, str(folder))


def _snapshots(run: RunInfo, count: int, quantities: int) -> list[Snapshot]:
    rng = np.random.default_rng(0)
    names = ["alpha", "effective_rank", *(f"quantity_{i}" for i in range(quantities - 3))]
    found = []
    for step in range(count):
        values = rng.normal(3.0, 1.0, (len(run.layers), len(names))).tolist()
        rows = tuple(
            LayerRow(info.name, info.index, {**dict(zip(names, row, strict=True)), "alpha_evidence": "sufficient"})
            for info, row in zip(run.layers, values, strict=True)
        )
        model = {f"alpha/{statistic}": float(rng.random()) for statistic in ("mean", "median", "q10", "q90")}
        found.append(Snapshot(step, float(step), "full", rows, model, {"train_loss": 0.1}, 0.1, 0.01, float(step)))
    return found


def _timed(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def _resident_mb() -> float:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) / 1024
    return float("nan")


if __name__ == "__main__":
    main()
