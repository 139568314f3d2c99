"""Every sink through the same life: opened, fed with what a run may bring, closed, closed again, used again."""

from __future__ import annotations

import copy
import logging
import math
import pickle
import random

import numpy as np
import pytest
import wandb

from tests.integrations.samples import EDGES, alert, run_info, snapshot, verdict
from ww_callbacks.integrations.record import RecordSink, read_run
from ww_callbacks.integrations.schema import LayerRow, Snapshot
from ww_callbacks.integrations.sinks.console import ConsoleSink
from ww_callbacks.integrations.sinks.loggers import LoggerSink
from ww_callbacks.integrations.sinks.tensorboard import TensorBoardSink
from ww_callbacks.integrations.sinks.wandb import WandbSink

NAMES = ["a" * 300, "<b onclick=x>|*_`\n</b>", "层.重量[q]", ""]


@pytest.fixture(scope="module")
def wandb_run(tmp_path_factory):
    settings = wandb.Settings(silent=True, console="off", x_disable_stats=True)
    with wandb.init(mode="offline", dir=str(tmp_path_factory.mktemp("wandb")), settings=settings) as run:
        yield run


@pytest.fixture(params=["record", "tensorboard", "wandb", "console", "loggers"])
def make(request, tmp_path, wandb_run):
    makers = {
        "record": lambda: RecordSink(tmp_path),
        "tensorboard": lambda: TensorBoardSink(tmp_path, per_layer=True, histograms=True),
        "wandb": lambda: WandbSink(wandb_run, per_layer=True, histograms=True),
        "console": ConsoleSink,
        "loggers": lambda: LoggerSink(lambda values, step: None, "CSVLogger", per_layer=True),
    }
    return makers[request.param]


def odd_snapshots() -> list[Snapshot]:
    base = snapshot(40)
    nothing = {"log10_lambda_edges": [], "count": [], "candidates": {"xmin": [], "D": [], "alpha": []}}
    counted = {"log10_lambda_edges": EDGES, "count": [1] * 64}
    missing = {"alpha": math.nan, "alpha_evidence": "", "effective_rank": math.inf}
    rows = [
        LayerRow(NAMES[0], 0, missing, "non-finite", True, nothing),
        LayerRow(NAMES[1], 1, {"alpha": np.float64(2.5), "alpha_evidence": "sufficient"}, "ok", False, counted),
        LayerRow(NAMES[2], 2, {"alpha": np.float32(3.5), "alpha_evidence": "sufficient"}, "failed: did not converge"),
        LayerRow(NAMES[3], 3, {}, "zero"),
    ]
    changes: list[dict] = [
        {
            "rows": tuple(rows),
            "model": {"alpha/median": math.nan, "alerts": np.int64(3)},
            "metrics": {"loss": math.inf},
        },
        {"rows": (), "model": {}, "metrics": {}, "overhead": math.nan, "seconds": math.nan},
        {"kind": "cheap", "epoch": 0.0, "left_out": "half of it"},
    ]
    return [Snapshot(**{**vars(base), "step": base.step + k, **change}) for k, change in enumerate(changes)]


def test_one_life_and_another(make, tmp_path):
    state = random.getstate(), np.random.get_state()[1].tolist()
    handlers, level = list(logging.root.handlers), logging.root.level
    sink = make()
    assert isinstance(sink.name, str) and sink.name
    for life in range(2):
        sink.open(run_info(tmp_path, run_id=f"life-{life}"), resumed=False)
        for step in range(0, 30, 10):
            sink.snapshot(snapshot(step, densities=True))
        for odd in odd_snapshots():
            sink.snapshot(odd)
        sink.alert(alert(layers=tuple(NAMES)))
        sink.alert(alert(layers=(), evidence={}, recommendation="", severity="info"))
        sink.close(verdict(confidence=None, best_step=None, best_epoch=None) if life else None)
        sink.close(None)
    sink.open(run_info(tmp_path, run_id="life-1", resumed_at=20), resumed=True)
    sink.snapshot(snapshot(30))
    sink.close(verdict())
    assert (random.getstate(), np.random.get_state()[1].tolist()) == state
    assert (logging.root.handlers, logging.root.level) == (handlers, level)


def test_closing_what_was_never_opened_is_harmless(make):
    make().close(None)
    make().close(verdict())


def test_a_record_keeps_what_other_sinks_may_leave_out(tmp_path):
    sink = RecordSink(tmp_path)
    sink.open(run_info(tmp_path), resumed=False)
    for odd in odd_snapshots():
        sink.snapshot(odd)
    sink.alert(alert(layers=tuple(NAMES)))
    sink.close(None)
    record = read_run(tmp_path)
    assert record.layers["layer"].tolist()[:4] == NAMES and record.alerts[0].layers == tuple(NAMES)
    assert record.layers["status"].tolist()[:4] == ["non-finite", "ok", "failed: did not converge", "zero"]
    assert record.layers["alpha"].tolist()[1:3] == [2.5, 3.5] and math.isnan(record.layers["alpha"][0])
    assert record.model["left_out"].tolist() == ["", "", "half of it"]
    assert record.density(NAMES[1])[0]["count"] == [1] * 64 and record.density(NAMES[0])[0]["count"] == []


@pytest.mark.parametrize("how", [copy.deepcopy, lambda sink: pickle.loads(pickle.dumps(sink))])
def test_a_copied_record_sink_writes_through_a_file_of_its_own(tmp_path, how):
    sink = RecordSink(tmp_path)
    sink.open(run_info(tmp_path), resumed=False)
    other = how(sink)
    sink.snapshot(snapshot(0))
    sink.close(None)
    other.snapshot(snapshot(1))
    other.close(None)
    assert read_run(tmp_path).model["step"].tolist() == [0, 1]


def test_any_logger_gets_the_finite_scalars():
    got = []
    sink = LoggerSink(lambda values, step: got.append((values, step)), "CSVLogger", per_layer=True)
    sink.open(run_info(), resumed=False)
    sink.snapshot(snapshot(10))
    ((values, step),) = got
    assert step == 10
    expected = {f"spectral/{name}": value for name, value in snapshot(10).model.items()} | {"spectral/overhead": 0.012}
    assert {name: value for name, value in values.items() if name.startswith("spectral/")} == expected
    assert values["spectral_layers/net.2.weight/alpha"] == snapshot(10).rows[2].values["alpha"]
    assert "spectral_layers/net.1.weight/scale_collapse" not in values
    assert not any(isinstance(value, str) for value in values.values())
