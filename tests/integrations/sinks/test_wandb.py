"""What the real W&B SDK wrote offline, read back with its own tool."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
import wandb

from tests.integrations.samples import EDGES, alert, run_info, snapshot, verdict
from ww_callbacks.integrations.record import RecordSink
from ww_callbacks.integrations.sinks.wandb import WandbSink, _table


def start(folder: Path, **more):
    settings = wandb.Settings(silent=True, console="off", x_disable_stats=True)
    return wandb.init(mode="offline", dir=str(folder), project="spectra", settings=settings, **more)


def python(program: str, **environment: str) -> list[str]:
    """What ``program`` prints, run in a separate process that does not share this one's W&B service."""
    inherited = {name: value for name, value in os.environ.items() if name != "WANDB_SERVICE"}
    result = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        timeout=120,
        env={**inherited, **environment},
    )
    assert result.returncode == 0, result.stderr
    return result.stdout.splitlines()


def inspect(run) -> list[dict]:
    command = [Path(sys.executable).with_name("wandb"), "leet", "inspect", "--json", run.settings.sync_dir]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    return [json.loads(line) for line in lines]


def of(rows: list[dict], kind: str) -> list[dict]:
    return [row[kind] for row in rows if row["type"] == kind]


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> tuple[list[dict], Path]:
    folder = tmp_path_factory.mktemp("wandb")
    run = start(folder)
    sinks = [RecordSink(), WandbSink(run, per_layer=True, histograms=True)]
    for sink in sinks:
        sink.open(run_info(folder / "record"), resumed=False)
        for step in range(0, 30, 10):
            sink.snapshot(snapshot(step, densities=True))
        sink.alert(alert())
    run.log({"loss": 0.5})  # the run is not ours and continues
    for sink in reversed(sinks):
        sink.close(verdict())
    run.finish()
    return inspect(run), Path(run.settings.sync_dir)


def test_values_lie_on_their_own_axis(written):
    rows, _ = written
    history = [h["item"] for h in of(rows, "history") if "spectral/alpha/median" in h["item"]]
    assert [row["spectral/step"] for row in history] == [0, 10, 20]
    assert [row["spectral/epoch"] for row in history] == [0, 1, 2]
    for row in history:
        expected = snapshot(row["spectral/step"])
        assert all(row[f"spectral/{name}"] == value for name, value in expected.model.items())
        assert row["spectral_layers/net.2.weight/alpha"] == expected.rows[2].values["alpha"]
        assert "spectral_layers/net.1.weight/scale_collapse" not in row, "a missing value is no point"
    metrics = of(rows, "metric")
    globs = {metric["glob_name"]: metric["step_metric"] for metric in metrics if "glob_name" in metric}
    assert globs == {"spectral/*": "spectral/step", "spectral_layers/*": "spectral/step"}
    named = {metric["name"].replace("\\.", "."): metric.get("step_metric") for metric in metrics if "name" in metric}
    own = {"spectral/step": None, "spectral/epoch": None}
    sent = [*snapshot(0).model, "overhead"]
    layers = {name for name in named if name.startswith("spectral_layers/")}
    assert {f"spectral_layers/net.{i}.weight/alpha" for i in range(3)} < layers
    assert named == own | dict.fromkeys([*(f"spectral/{name}" for name in sent), *layers], "spectral/step"), "each once"
    assert len(metrics) == len(globs) + len(named)


def hidden(rows: list[dict]) -> set[str]:
    """The names that get no panel by themselves."""
    return {m["name"].replace("\\.", ".") for m in of(rows, "metric") if m.get("options", {}).get("hidden")}


def test_the_pages_own_panels_are_few(written):
    """W&B makes a panel of each name that is not hidden, those before the first slash in one section."""
    rows, _ = written
    own = {f"spectral/{name}" for name in [*snapshot(0).model, "overhead"]}
    shown = {name for name in own if name not in hidden(rows)}
    assert {name for name in shown if name.count("/") > 1} == {
        *(f"spectral/{name}/median" for name in ("alpha", "effective_rank", "relative_distance_from_init")),
        "spectral/alpha/share_sufficient",
    }
    assert "spectral_layers/net.2.weight/alpha" not in hidden(rows), "who asks for every layer sees it"


def test_quantiles_that_a_trainers_logger_sends_get_no_panels_either(tmp_path):
    run = start(tmp_path)
    sink = WandbSink(run, scalars=False)
    sink.open(run_info(tmp_path / "record"), resumed=False)
    sink.snapshot(snapshot(0))
    sink.close(None)
    run.finish()
    assert {"spectral/alpha/q10", "spectral/alpha/mean"} <= hidden(inspect(run))


def test_histograms_are_the_densities(written):
    rows, _ = written
    history = [h["item"] for h in of(rows, "history") if "spectral/alpha/median" in h["item"]]
    name = "spectral_layers/net.0.weight/log10_lambda"
    for row in history:
        assert row[f"{name}._type"] == "histogram"
        assert row[f"{name}.values"] == snapshot(row["spectral/step"], densities=True).rows[0].density["count"]
        assert row[f"{name}.bins"] == EDGES


def test_alert_settings_and_summary(written):
    rows, _ = written
    (sent,) = of(rows, "alert")
    assert sent["level"] == "ERROR" and sent["title"] == "Spectra: scale collapse in net.1.weight"
    assert all(part in sent["text"] for part in ("quarter of what it was", "scale_collapse -0.61", "weight decay"))
    config = {}
    for update in of(rows, "config"):
        config |= update["update"]
    assert config["spectral"] == run_info().settings
    summary = {}
    for update in of(rows, "summary"):
        summary |= update["update"]
    medians = [snapshot(step).model["alpha/median"] for step in (0, 10, 20)]
    assert summary["spectral/alpha/median"] == medians[-1]
    assert summary["spectral/alpha/lowest_median"] == min(medians)
    assert summary["spectral/alpha/highest_median"] == max(medians)
    assert summary["spectral/best/alpha/median"] == medians[1]
    assert (summary["spectral/best/step"], summary["spectral/best/epoch"]) == (10, 1)
    assert (summary["spectral/verdict"], summary["spectral/healthy"], summary["spectral/alerts"]) == (
        "collapsing",
        0,
        1,
    )
    assert summary["spectral/signal/scale_collapse"] == 0.61
    left_out = [name for name in summary if name.startswith("spectral_layers/") or name.endswith(("/q10", "/mean"))]
    assert all("/log10_lambda." in name for name in left_out), "a histogram is shown by its last one"


def test_one_table_of_all_layers_and_epochs(written):
    rows, folder = written
    (item,) = [h["item"] for h in of(rows, "history") if "spectral/layers._type" in h["item"]]
    assert (item["spectral/layers._type"], item["spectral/layers.nrows"]) == ("table-file", 9)
    tables = folder / "files" / "media" / "table" / "spectral"
    (worst,) = tables.glob("worst_layers_*.table.json")
    assert {row[0] for row in json.loads(worst.read_text())["data"]} <= {f"net.{i}.weight" for i in range(3)}
    (file,) = tables.glob("layers_*.table.json")
    table = json.loads(file.read_text())
    row = dict(zip(table["columns"], table["data"][5], strict=True))
    assert (row["step"], row["layer"]) == (10, "net.2.weight")
    assert row["alpha"] == snapshot(10).rows[2].values["alpha"] and row["alpha_evidence"] == "sufficient"


def test_tables_and_charts_come_during_the_run_too_under_names_without_spaces(tmp_path):
    run = start(tmp_path)
    sinks = [RecordSink(), WandbSink(run, per_layer=True)]
    for sink in sinks:
        sink.open(run_info(tmp_path / "record"), resumed=False)
    for step in range(0, 90, 10):
        for sink in sinks:
            sink.snapshot(snapshot(step, padding=12))
        run.log({"loss": step})
    during = Path(run.settings.sync_dir) / "files" / "media" / "table" / "spectral"
    for sink in sinks:
        sink.close(verdict(signals={"scale collapse/worst layer": 0.61}))
    run.finish()
    rows = inspect(run)
    history = [h["item"] for h in of(rows, "history")]
    shown = [row["spectral/step"] for row in history if "spectral/layers._type" in row]
    assert shown == [30, 70, 80]  # after 4 and 8 snapshots, and at the end
    (last,) = sorted(during.glob("charts/alpha_table_*.json"), key=os.path.getmtime)[-1:]
    told = json.loads(last.read_text())
    lines = {key: [(x, y) for x, k, y in told["data"] if k == key] for key in ("q10", "median", "max")}
    assert told["columns"] == ["step", "lineKey", "lineVal"]
    for key, points in lines.items():
        assert points == [(step, snapshot(step, padding=12).model[f"alpha/{key}"]) for step in range(0, 90, 10)]
    summary = {}
    for update in of(rows, "summary"):
        summary |= update["update"]
    names = {name.partition(".")[0] for row in [*history, summary] for name in row if name.startswith("spectral")}
    assert not [name for name in names if " " in name]
    kept = {name.partition(".")[0] for name in summary if name.startswith("spectral")}
    assert len(kept) < 60 and "spectral/signal/scale_collapse/worst_layer" in kept, sorted(kept)


def test_the_figures_are_there_as_plotly(written):
    rows, folder = written
    (item,) = [h["item"] for h in of(rows, "history") if "spectral/figures/timeline._type" in h["item"]]
    for name in ("timeline", "heat_map", "correlation_flow", "histograms"):
        assert item[f"spectral/figures/{name}._type"] == "plotly-file"
        figure = json.loads((folder / "files" / item[f"spectral/figures/{name}.path"]).read_text())
        assert figure["data"]


def test_a_resumed_run_goes_on_along_its_axis(tmp_path):
    run = start(tmp_path)
    sink = WandbSink(run)
    sink.open(run_info(tmp_path, resumed_at=20), resumed=True)
    sink.snapshot(snapshot(30))
    sink.close(None)
    run.finish()
    (row,) = [h["item"] for h in of(inspect(run), "history")]
    assert row["spectral/step"] == 30, "W&B's own step starts again at 0; the axis does not"


def test_a_run_of_its_own_is_ended_and_another_is_not(tmp_path):
    program = f"""
import wandb
from pathlib import Path
from ww_callbacks.integrations.sinks.wandb import WandbSink
from tests.integrations.samples import run_info, verdict
from tests.integrations.sinks.test_wandb import start
sink = WandbSink()
sink.open(run_info({str(tmp_path)!r}), False)
assert wandb.run is not None and wandb.run.id == "run-1"
sink.close(None)
assert wandb.run is None
mine = start(Path({str(tmp_path)!r}))
sink = WandbSink()
sink.open(run_info(), False)
sink.close(verdict())
assert wandb.run is mine
mine.finish()
"""
    python(program, WANDB_MODE="offline", WANDB_SILENT="true", WANDB_CONSOLE="off")


def test_scalars_that_another_logger_sends_are_not_sent_twice(tmp_path):
    run = start(tmp_path)
    sink = WandbSink(run, scalars=False, axis="epoch")
    sink.open(run_info(tmp_path), resumed=False)
    sink.snapshot(snapshot(0))
    sink.alert(alert())
    sink.close(verdict())
    run.finish()
    rows = inspect(run)
    assert not of(rows, "history") and len(of(rows, "alert")) == 1
    assert {m["step_metric"] for m in of(rows, "metric") if "glob_name" in m} == {"spectral/epoch"}


def test_a_long_run_gives_a_table_that_wandb_can_show():
    import pandas as pd

    class Record:
        layers = pd.DataFrame(
            {
                "step": [step for step in range(1000) for _ in range(100)],
                "kind": "full",
                "layer": [f"net.{i}" for _ in range(1000) for i in range(100)],
                "alpha": [math.nan, 2.0] * 50_000,
            }
        )

    table = _table(Record)  # type: ignore[arg-type]
    steps = sorted({row[0] for row in table.data})
    assert len(table.data) == 10_000 and steps[-1] == 999 and steps[1] - steps[0] == 10


def test_killed_wandb_is_an_error_at_once_and_the_program_ends_well(tmp_path):
    program = f"""
import os, signal, subprocess, time
from pathlib import Path
from ww_callbacks.integrations.sinks.wandb import WandbSink
from tests.integrations.samples import alert, run_info, snapshot, verdict
from tests.integrations.sinks.test_wandb import start
run = start(Path({str(tmp_path)!r}))
sink = WandbSink(run)
sink.open(run_info(), False)
sink.snapshot(snapshot(0))
children = [pid for task in Path("/proc/self/task").iterdir() for pid in (task / "children").read_text().split()]
assert children
for child in children:
    os.kill(int(child), signal.SIGKILL)
time.sleep(0.5)
for call in (lambda: sink.snapshot(snapshot(1)), lambda: sink.alert(alert()), lambda: sink.close(verdict())):
    before = time.perf_counter()
    try:
        call()
    except Exception as error:
        print(time.perf_counter() - before < 5)
"""
    assert python(program) == ["True"] * 3
