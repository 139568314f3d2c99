"""The bar goes by cost, and Ctrl-C says at once what it waits for."""

import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import safetensors.numpy

from ww_callbacks import spectral
from ww_callbacks.commands._progress import LayersDone

SLOW = """
import hashlib, sys
from ww_callbacks.commands import main
from ww_callbacks.commands._progress import LayersDone
from ww_callbacks.spectral import analysis
real, begin = analysis.measure_layer, LayersDone.begin
def slowly(*arguments, **options):
    hashlib.pbkdf2_hmac("sha256", b"", b"", ROUNDS)  # like LAPACK: nothing of Python runs on this thread meanwhile
    return real(*arguments, **options)
def told(self, name):
    begin(self, name)
    print("begun", name, flush=True)
analysis.measure_layer, LayersDone.begin = slowly, told
sys.exit(main())
"""


class Bar:
    """What rich's bar is told."""

    def __init__(self):
        self.told = []

    def update(self, task, **fields):
        self.told.append(fields)


def test_the_share_goes_by_cost():
    bar = Bar()
    layers = LayersDone(bar, 0, "measuring")
    weights = {"large.weight": np.eye(400), **{f"small.{i}.weight": np.eye(20) for i in range(3)}}
    spectral.analyze(weights, "stable_rank", progress=layers, workers=1)
    assert [fields["layers"] for fields in bar.told] == ["1/4", "2/4", "3/4", "4/4"]
    shares = [fields["completed"] for fields in bar.told]
    assert shares[0] > 0.8 and shares[-1] == pytest.approx(1.0)  # the costliest comes first, and is most of the work
    assert layers.waits_for() == "no layer is in progress"


def test_progress_that_is_a_mere_function_is_told_as_ever():
    told = []
    spectral.analyze({"a": np.eye(3), "b": np.eye(4)}, "stable_rank", progress=lambda *a: told.append(a), workers=1)
    assert [(done, total) for done, total, _ in told] == [(1, 2), (2, 2)]


@pytest.mark.parametrize("workers", ["1", "2"])
def test_ctrl_c_says_at_once_what_it_waits_for(tmp_path, workers):
    path = tmp_path / "model.safetensors"
    safetensors.numpy.save_file({f"h.{i}.weight": np.eye(20, dtype=np.float32) for i in range(40)}, path)
    script = SLOW.replace("ROUNDS", "4_000_000")  # some seconds
    command = [sys.executable, "-c", script, "analyze", str(path), "--workers", workers, "-q"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline().startswith("begun h.")
        time.sleep(0.3)
        process.send_signal(signal.SIGINT)
        said = process.stderr.readline()
        still_at_work = process.poll() is None
        assert "interrupted: waiting for the layer" in said and "h.0.weight" in said
        assert still_at_work, "said before the layer is done, not after it"
        process.send_signal(signal.SIGINT)
        began = time.monotonic()
        process.communicate(timeout=60)
    assert process.returncode == 130 and time.monotonic() - began < 20
