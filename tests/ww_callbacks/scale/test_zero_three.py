"""Weights partitioned by DeepSpeed ZeRO-3 over two real gloo processes, gathered one layer at a time."""

import json
from importlib.util import find_spec

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs torch")

from integrations.record import read_run
from spectral.layers import inspect
from spectral.registry import resolve
from tests.ww_callbacks.scale.launch import torchrun
from ww_callbacks.engine import Engine

pytestmark = pytest.mark.skipif(find_spec("deepspeed") is None, reason="needs deepspeed")
LAYERS = ["0.weight", "2.weight", "5.weight"]


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    folder = tmp_path_factory.mktemp("both")
    said = torchrun("tests.ww_callbacks.scale.zero_three", folder)
    told = [folder / f"rank-{rank}.json" for rank in (0, 1)]
    assert all(path.exists() for path in told), said[-3000:]
    return folder, *(json.loads(path.read_text()) for path in told)


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
    weights = torch.load(folder / f"weights-{epoch}.pt", weights_only=True)
    model = {name: weights[name].numpy() for name in LAYERS}
    quantities = [q for q in resolve() if not q.needs]
    recorded = read_run(folder / "record").layers.query(f"step == {2 * epoch}").set_index("layer")
    assert sorted(recorded.index) == LAYERS
    for row in Engine([s for s in inspect(model) if not s.skipped], quantities).measure():
        np.testing.assert_equal({q.name: recorded.loc[row.layer, q.name] for q in quantities}, dict(row.values))


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
