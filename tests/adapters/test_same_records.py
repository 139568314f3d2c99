"""The same weights give the same quantities under the same names, to the last bit, in every framework."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(__file__).with_name("same_weights.py")
PLACES = ("record", "step", "epoch", "layer", "index", "status", "changed")
PROCESSES = {
    "torch": (("plain", "lightning", "huggingface"), {}),
    "keras on torch": (("keras",), {"KERAS_BACKEND": "torch"}),
    "keras on jax": (("keras",), {"KERAS_BACKEND": "jax"}),
    "keras on tensorflow": (("keras",), {"KERAS_BACKEND": "tensorflow"}),
}


def rows_of(folder):
    rows = [json.loads(line) for line in (folder / "spectral.jsonl").open()]
    layers = [{k: v for k, v in r.items() if k not in PLACES} for r in rows if r["record"] == "layer"]
    model = [{k: v for k, v in r.items() if "/" in k} for r in rows if r["record"] == "model"]
    return layers, model


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    folder = tmp_path_factory.mktemp("same")
    running = {}
    for name, (programs, environment) in PROCESSES.items():
        running[name] = subprocess.Popen(
            [sys.executable, str(PROGRAM), str(folder / name), *programs],
            env={**os.environ, **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd=folder,
        )
    for name, process in running.items():
        output, _ = process.communicate(timeout=250)
        assert process.returncode == 0, f"{name}: {output.decode()[-3000:]}"
    return {
        program if name == "torch" else name: rows_of(folder / name / program)
        for name, (programs, _) in PROCESSES.items()
        for program in programs
    }


@pytest.mark.parametrize("name", ["lightning", "huggingface", "keras on torch", "keras on jax", "keras on tensorflow"])
def test_the_same_weights_give_the_same_records(records, name):
    layers, model = records["plain"]
    other_layers, other_model = records[name]
    assert len(layers) == 6  # three layers, before training and after the epoch
    assert all(row["alpha"] is not None for row in layers) and "rand_distance" in layers[0]
    for mine, theirs in zip(layers, other_layers, strict=True):
        assert mine == theirs
    assert model[0].keys() == other_model[0].keys()
    scores = {k for k in model[0] if k.startswith("overtraining")}
    for mine, theirs in zip(model, other_model, strict=True):
        assert {k: v for k, v in mine.items() if k not in scores} == {
            k: v for k, v in theirs.items() if k not in scores
        }
