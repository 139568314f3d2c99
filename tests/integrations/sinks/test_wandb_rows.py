"""The user's own rows in W&B, with our callback and without it: the real SDK, offline, its file read back."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

wandb = pytest.importorskip("wandb", reason="needs the extra wandb")

from tests.integrations.samples import run_info, snapshot, verdict
from ww_callbacks.integrations.sinks.wandb import WandbSink

TIMES = ("_runtime", "_timestamp")


def start(folder):
    settings = wandb.Settings(silent=True, console="off", x_disable_stats=True)
    return wandb.init(mode="offline", dir=str(folder), settings=settings, reinit="create_new")


def read_back(folder):
    """Every row of a run's file, without times."""
    command = [Path(sys.executable).with_name("wandb"), "leet", "inspect", "--json", folder]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    rows = [row["history"]["item"] for row in map(json.loads, lines) if row["type"] == "history"]
    return [{k: v for k, v in row.items() if k not in TIMES} for row in rows]


def of_the_user(rows):
    """What the user logged: rows without what is ours."""
    mine = [{k: v for k, v in row.items() if not k.startswith("spectral")} for row in rows]
    return [row for row in mine if row.keys() - {"_step"}]


def sent_by_us(rows):
    """The steps of our snapshots."""
    return [row["spectral/step"] for row in rows if "spectral/alpha/median" in row]


def with_step(run, at):
    run.log({"loss": at / 10}, step=at)


def without_step(run, at):
    run.log({"loss": at / 10})


def in_pieces(run, at):
    run.log({"loss": at / 10}, commit=False)
    run.log({"acc": at / 20}, commit=False)
    run.log({"rate": 0.1})


def every_tenth_step(run, at):
    if at % 10 == 0:
        run.log({"loss": at / 10}, step=at)


def both(run, at):
    run.log({"loss": at / 10}, step=2 * at)
    run.log({"acc": at / 20}, step=2 * at)
    run.log({"rate": 0.1})


def nothing(run, at):
    pass


@pytest.mark.parametrize("log", [with_step, without_step, in_pieces, every_tenth_step, both, nothing])
@pytest.mark.parametrize("ours", [1, 4, 7])
def test_nothing_of_the_users_is_lost_or_renumbered(tmp_path, log, ours):
    """Snapshots come before the user's first row, between rows, several between two, and after the last one."""
    found = []
    for watched in (False, True):
        run = start(tmp_path)
        sink = WandbSink(run)
        if watched:
            sink.open(run_info(tmp_path), resumed=False)
            sink.snapshot(snapshot(0))
        for at in range(1, 23):
            log(run, at)
            if watched and at % ours == 0:
                sink.snapshot(snapshot(at))
        if watched:
            sink.close(verdict())
        run.log({"test_acc": 0.9}, step=40)
        run.log({"test_loss": 0.3})
        run.finish()
        found.append(read_back(run.settings.sync_dir))
    bare, rows = found
    assert of_the_user(rows) == of_the_user(bare) and of_the_user(bare)
    assert sent_by_us(rows) == [0, *range(ours, 23, ours)], "each snapshot once, in order"


def test_a_run_that_is_never_finished_has_all_rows_when_the_interpreter_exits(tmp_path):
    program = f"""
from pathlib import Path
from tests.integrations.samples import run_info, snapshot
from tests.integrations.sinks.test_wandb_rows import start
from ww_callbacks.integrations.sinks.wandb import WandbSink
run = start(Path({str(tmp_path)!r}))
sink = WandbSink(run)
sink.open(run_info(), resumed=False)
for step in range(5):
    sink.snapshot(snapshot(step))
run.log({{"loss": 1.0}}, step=3)
print(run.settings.sync_dir)
"""
    own = {name: value for name, value in os.environ.items() if name != "WANDB_SERVICE"}  # not that of other tests
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, env=own)
    assert done.returncode == 0, done.stderr
    rows = read_back(done.stdout.splitlines()[-1])
    assert sent_by_us(rows) == [0, 1, 2, 3, 4]
    assert of_the_user(rows) == [{"loss": 1.0, "_step": 3}]


def test_a_disabled_run_is_left_alone(tmp_path):
    run = wandb.init(mode="disabled", dir=str(tmp_path), reinit="create_new")
    sink = WandbSink(run)
    sink.open(run_info(tmp_path), resumed=False)
    for step in range(3):
        sink.snapshot(snapshot(step))
    sink.close(verdict())
    run.finish()


def test_what_is_not_documented_is_still_there(tmp_path):
    """``OpenRows`` says what happens without it."""
    from wandb.sdk.wandb_run import TeardownHook, TeardownStage

    assert TeardownHook(print, TeardownStage.EARLY).call is print
    run = start(tmp_path)
    assert isinstance(run._teardown_hooks, list)
    run.finish()
