"""JAX users' own loops: every kind of pytree, without torch."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("jax", reason="needs jax")
pytest.importorskip("equinox", reason="needs the extra dev")
pytest.importorskip("flax", reason="needs the extra dev")

from ww_callbacks import SpectralMonitor

ROOT = Path(__file__).parents[2]
NAMES = {
    "dictionary": ["params/in/kernel", "params/out/kernel"],
    "lists": ["0/0", "1/0"],
    "dataclass_tree": ["0/kernel", "1/kernel"],
    "half": ["params/in/kernel", "params/out/kernel"],
    "equinox": ["layers/0/weight", "layers/1/weight"],
    "by observe": ["0/kernel", "1/kernel"],
    "nnx": ["first/kernel", "last/kernel"],
}


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    command = [sys.executable, "-m", "tests.adapters.jax_loops", str(tmp_path_factory.mktemp("loops"))]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=200)
    assert run.returncode == 0, run.stderr[-3000:]
    return json.loads(run.stdout.splitlines()[-1])


@pytest.mark.parametrize("model", NAMES)
def test_the_weights_of_now_are_measured(found, model):
    told = found[model]
    assert told["layers"] == NAMES[model] == told["analysed"]
    np.testing.assert_allclose(told["norms"], told["expected_norms"], rtol=1e-6)
    assert all(distance > 0.01 for distance in told["moved"])
    np.testing.assert_allclose(told["train_loss"], told["expected_loss"], rtol=1e-5)
    assert told["state"] == "healthy"
    assert model == "nnx" or told["best"].startswith("best-step-")


def test_arrays_that_never_change_are_said_with_the_remedy(found):
    told = found["stands still"]
    assert told["moved"] == [0.0, 0.0]
    assert len(told["said"]) == 1 and "SpectralMonitor(lambda: params)" in told["said"][0]


def test_a_function_that_returns_no_weights_is_refused(tmp_path):
    with pytest.raises(TypeError, match="return the current weights"):
        SpectralMonitor(lambda: None, log_dir=str(tmp_path))


def test_entries_of_a_dictionary_may_be_replaced(tmp_path):
    weights = {"a": np.eye(4), "b": np.eye(3)}
    with SpectralMonitor(weights, log_dir=str(tmp_path), verbose=0) as monitor:
        weights["a"] = 2.0 * weights["a"]
        monitor.observe(step=1, epoch=1)
    assert monitor.history["frobenius_norm"].tolist() == pytest.approx([2.0, 3**0.5, 4.0, 3**0.5])


def test_weights_of_a_module_are_not_handed_over(tmp_path):
    torch = pytest.importorskip("torch")
    with (
        SpectralMonitor(torch.nn.Linear(3, 4), log_dir=str(tmp_path), verbose=0) as monitor,
        pytest.raises(TypeError, match="read from the module itself"),
    ):
        monitor.observe(step=1, epoch=1, weights={})
