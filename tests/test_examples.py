"""Each example runs, in a short form, with its one command."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def start(module, folder, *arguments, **environment):
    return subprocess.Popen(
        [sys.executable, "-m", f"examples.{module}", *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def ended(process) -> str:
    output, _ = process.communicate(timeout=250)
    assert process.returncode == 0, output[-3000:]
    return output


@pytest.fixture(scope="module")
def shown(tmp_path_factory):
    """What all of them print; two at a time."""
    folder = tmp_path_factory.mktemp("examples")
    jobs = {
        "lightning_mnist": (["--epochs", "5"], {}),
        "plain_loop": (["--epochs", "5"], {}),
        "keras_mnist": (["--epochs", "5"], {"KERAS_BACKEND": "jax"}),
        "hf_text": (["--steps", "20", "--width", "32", "--layers", "1"], {}),
        "demo": ([], {}),
    }
    output, running = {}, []
    for name, (arguments, environment) in jobs.items():
        running.append((name, start(name, folder, *arguments, **environment)))
        if len(running) == 2:
            output |= {n: ended(p) for n, p in running}
            running = []
    output |= {n: ended(p) for n, p in running}
    return output, folder


@pytest.mark.parametrize("name", ["lightning_mnist", "plain_loop", "keras_mnist", "hf_text"])
def test_each_example_watches_and_judges(shown, name):
    output, _ = shown
    assert "effective_rank" in output[name] and "Verdict: " in output[name]


def test_the_demo_stops_for_a_reason_and_says_where_to_look(shown):
    output, folder = shown
    text = output["demo"]
    assert "overtraining" in text and "tensorboard --logdir" in text
    assert "the callback did not stop this run" not in text
    assert list((folder / "runs" / "demo").rglob("best-step-*.ckpt"))


def test_what_is_missing_is_said(tmp_path):
    process = start("lightning_mnist", tmp_path, "--data", str(tmp_path), "--epochs", "1")
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 1 and "mnist-dir" in output
