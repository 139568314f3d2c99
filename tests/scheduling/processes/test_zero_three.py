"""Weights partitioned by DeepSpeed ZeRO-3 over real gloo processes, gathered one layer at a time."""

import json
from importlib.util import find_spec

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs torch")

from tests.scheduling.processes.launch import torchrun
from ww_callbacks.engine.engine import Engine
from ww_callbacks.integrations.record import read_run
from ww_callbacks.spectral.layers import inspect
from ww_callbacks.spectral.measuring.registry import resolve

pytestmark = pytest.mark.skipif(find_spec("deepspeed") is None, reason="needs deepspeed")
LAYERS = ["0.weight", "2.weight", "5.weight"]


def run(folder, processes):
    said = torchrun("tests.scheduling.processes.zero_three", folder, processes)
    told = [folder / f"rank-{rank}.json" for rank in range(processes)]
    assert all(path.exists() for path in told), said[-3000:]
    return folder, *(json.loads(path.read_text()) for path in told)


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    return run(tmp_path_factory.mktemp("both"), 2)


def assert_values(record, step, weights):
    """The record has at ``step`` what one process measures of ``weights``, bit for bit."""
    quantities = [q for q in resolve() if not q.needs]
    recorded = read_run(record).layers.query("step == @step").set_index("layer")
    rows = Engine([s for s in inspect(weights) if not s.skipped], quantities).measure()
    assert sorted(recorded.index) == sorted(row.layer for row in rows)
    for row in rows:
        np.testing.assert_equal({q.name: recorded.loc[row.layer, q.name] for q in quantities}, dict(row.values))


def loaded(path, layers):
    weights = torch.load(path, weights_only=True)
    return {name: weights[name].numpy() for name in layers}


def test_training_is_not_disturbed_and_weights_stay_partitioned(both):
    for told in both[1:]:
        assert told["undisturbed"]
        assert told["left"]["0.weight"] == told["left"]["2.weight"] == 0
        assert told["left"]["5.weight"] == 48, "DeepSpeed keeps small ones whole, and so do we"


def test_layers_are_shared_and_one_process_writes(both):
    _, first, second = both
    assert sorted(first["own"] + second["own"]) == LAYERS and first["own"] and second["own"]
    assert first["sinks"] > 0 and second["sinks"] == 0 and first["directory"] == second["directory"]


@pytest.mark.parametrize("epoch", [1, 2])
def test_the_values_are_those_of_the_gathered_weights(both, epoch):
    folder, *_ = both
    assert_values(folder / "record", 2 * epoch, loaded(folder / f"weights-{epoch}.pt", LAYERS))


def test_the_distances_are_from_the_weights_before_training(both):
    folder, *_ = both
    recorded = read_run(folder / "record").layers.set_index(["step", "layer"])["distance_from_init"]
    torch.manual_seed(0)
    weights = torch.load(folder / "weights-2.pt", weights_only=True)
    # The first layer is the first that the seed fills.
    distance = (weights["0.weight"] - torch.nn.Linear(12, 24).weight).norm().item()
    assert recorded[0].eq(0).all() and distance > 0
    np.testing.assert_allclose(recorded[4, "0.weight"], distance, rtol=1e-6)


def test_keeping_the_best_weights_is_refused(both):
    for told in both[1:]:
        assert "sharded over processes" in told["keep_best"]


def test_the_hf_trainer(both):
    folder, first, second = both
    layers = ["net.0.weight", "net.2.weight", "net.4.weight"]
    assert sorted(first["huggingface"] + second["huggingface"]) == layers
    assert read_run(folder / "huggingface").model["step"].tolist() == [0, 2, 4]
    assert_values(folder / "huggingface", 4, loaded(folder / "weights-huggingface.pt", layers))


def test_one_process_with_several_workers(tmp_path):
    folder, told = run(tmp_path, 1)
    assert told["undisturbed"] and told["left"]["0.weight"] == 0 and "sharded" in told["keep_best"]
    assert_values(folder / "record", 4, loaded(folder / "weights-2.pt", LAYERS))


def test_adapters_are_measured_with_their_base(both):
    pytest.importorskip("peft", reason="needs peft")
    from tests.adapters.nets import adapted

    folder, *_ = both
    model = adapted()
    model.load_state_dict(torch.load(folder / "weights-lora.pt", weights_only=True))
    assert_values(folder / "lora", 1, model)
    assert read_run(folder / "lora").layers["layer"].str.contains("lora_update").sum() == 4, "two layers, two snapshots"
