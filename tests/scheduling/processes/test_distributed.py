"""Two real gloo processes: shared layers, one writer, one verdict, sharded weights; the records of one process."""

import json

import numpy as np
import pandas as pd
import pytest

pl = pytest.importorskip("pytorch_lightning", reason="needs the extra lightning")
import torch

from tests.adapters.nets import fit, seeded
from tests.adapters.test_accuracy import SETTINGS, lightning
from tests.lifecycle.records import assert_same
from tests.scheduling.processes.launch import torchrun
from ww_callbacks.engine.engine import Engine
from ww_callbacks.integrations.record import read_run
from ww_callbacks.lightning import SpectralCallback
from ww_callbacks.scheduling.distributed import share
from ww_callbacks.spectral.layers import inspect
from ww_callbacks.spectral.layers.spec import LayerSpec
from ww_callbacks.spectral.measuring.registry import resolve

LAYERS = ["net.0.weight", "net.2.weight", "net.4.weight"]


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """Every scenario, run once: scenario → its folder and what the two processes told."""
    if not torch.distributed.is_available() or not torch.distributed.is_gloo_available():
        pytest.skip("this torch has no gloo")
    folder = tmp_path_factory.mktemp("both")
    said = torchrun("tests.scheduling.processes.two_processes", folder)

    def result(name):
        place = folder / name
        told = [place / f"rank-{rank}.json" for rank in (0, 1)]
        errors = "".join(path.read_text() for path in place.glob("error-*.txt")) if place.exists() else ""
        assert all(path.exists() for path in told), errors or said[-3000:]
        return place, *(json.loads(path.read_text()) for path in told)

    return result


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """The same training by one process."""
    folder = tmp_path_factory.mktemp("alone")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    fit(seeded(), SpectralCallback(log_dir=str(folder), verbose=0, every_n_epochs=1))
    torch.set_num_threads(threads)
    return folder


def test_two_processes_give_the_record_of_one_and_resume_like_one(both, alone):
    folder, first, second = both("ddp")
    assert_same(alone, folder / "record")
    assert sorted(first["own"] + second["own"]) == LAYERS and first["own"] and second["own"]
    assert (first["sinks"], second["sinks"]) == (2, 0), "one writer"
    for shared in ("alerts", "verdict", "stop", "directory"):
        assert first[shared] == second[shared]


def test_in_the_background(both, alone):
    folder, _, _ = both("background")
    a, b = read_run(alone), read_run(folder / "record")
    if b.model["left_out"].eq("").all():
        pd.testing.assert_frame_equal(a.layers, b.layers)
    else:  # the queue was full on one of them: both skipped the same snapshot
        assert set(b.model["step"]) < set(a.model["step"])


def test_estimates_are_those_of_one_process(both, tmp_path):
    folder, _, _ = both("estimates")
    lightning(tmp_path, SETTINGS)
    assert_same(tmp_path / "record", folder / "record")
    assert read_run(folder / "record").layers["effective_rank_error"].notna().any()


def test_within_a_budget_all_measure_what_the_first_chose(both):
    folder, first, second = both("budget")
    record = read_run(folder / "record")
    assert record.layers.groupby("step").size().eq(len(LAYERS)).all()
    assert first["verdict"] == second["verdict"]


def test_nan_on_one_process_only_stops_both_in_the_same_step(both):
    folder, first, second = both("one_sided_nan")
    assert "net.0.weight" not in second["own"] or "net.0.weight" not in first["own"]
    assert first["stop"] and second["stop"] and first["last"] == second["last"] == 8
    assert first["alerts"] == second["alerts"] and first["alerts"][-1][0] == "non-finite"
    rows = read_run(folder / "record").layers.query("step == 8").set_index("layer")
    assert rows.loc["net.0.weight", "status"] == "non-finite" and np.isnan(rows.loc["net.0.weight", "alpha"])
    assert rows.loc["net.2.weight", "status"] == "ok"


def test_weights_sharded_by_fsdp2(both, alone):
    folder, first, second = both("fsdp")
    assert first["sharded"] == "DTensor"
    assert sorted(first["own"] + second["own"]) == LAYERS
    assert_same(alone, folder / "record")
    assert sorted(p.name for p in (folder / "record").glob("w0*")) == ["w0-1.safetensors", "w0.safetensors"]


def test_tensor_parallel(both, alone):
    folder, first, _ = both("tensor_parallel")
    assert first["sharded"] == "DTensor"
    a, b = read_run(alone).layers, read_run(folder / "record").layers
    at_start = "step == 0"
    pd.testing.assert_frame_equal(a.query(at_start), b.query(at_start))
    # Split products are summed in another order, so the training itself differs in the last digits.
    pd.testing.assert_series_equal(a["frobenius_norm"], b["frobenius_norm"], rtol=1e-4)


def test_the_hf_trainer_under_torchrun(both):
    from tests.huggingface.test_resume import Model

    folder, first, second = both("huggingface")
    assert (first["sinks"], second["sinks"]) == (2, 0) and sorted(first["own"] + second["own"]) == LAYERS
    record = read_run(folder / "record")
    assert record.model["step"].tolist() == [0, 2, 4]
    model = Model()
    model.load_state_dict(torch.load(folder / "weights.pt", weights_only=True))
    quantities = [q for q in resolve() if not q.needs]
    rows = Engine([s for s in inspect(model) if not s.skipped], quantities).measure()
    last = record.layers.query("step == 4").set_index("layer")
    for row in rows:
        recorded = {q.name: last.loc[row.layer, q.name] for q in quantities}
        np.testing.assert_equal(recorded, dict(row.values))


@pytest.mark.parametrize("name", ["keeping", "keeping_sharded", "keeping_huggingface"])
def test_all_processes_keep_the_best_weights_together(both, name):
    """Saving is a collective: a process that did not take part would leave the others waiting for ever."""
    _, first, second = both(name)
    assert first["step"] == second["step"] > 0
    assert first["kept"] == second["kept"] and first["there"]
    assert first.get("same", True) and second.get("same", True), "both models hold the average that is in the file"


def test_shares_are_even():
    layers = [LayerSpec(str(i), (), "dense", "", (n, n), ((n, n),)) for i, n in enumerate([512] * 24 + [1024] * 6)]
    cost = {spec.name: spec.cost for spec in layers}
    shares = share(layers, 4)
    assert sorted(name for names in shares for name in names) == sorted(cost)
    loads = [sum(cost[name] for name in names) for names in shares]
    assert max(loads) <= 1.1 * min(loads)


def test_weights_partitioned_by_zero_3_are_refused_with_the_reason():
    from ww_callbacks.spectral.layers.selection import select

    model = torch.nn.Linear(4, 3)
    for parameter in model.parameters():  # what DeepSpeed leaves of a parameter on a process
        parameter.ds_id, parameter.data = 0, torch.empty(0)
    with pytest.raises(ValueError, match="ZeRO-3"):
        select(inspect(model))
