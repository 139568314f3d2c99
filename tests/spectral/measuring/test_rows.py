"""Long analyses: rows are saved, the analysis resumes, and ends in time."""

import json
import math
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pandas as pd
import pytest
import safetensors.numpy

from ww_callbacks import spectral
from ww_callbacks.spectral.measuring import rows as rows_module

QUANTITIES = ["alpha", "stable_rank", "warning"]


@pytest.fixture
def path(tmp_path):
    rng = np.random.default_rng(0)
    weights = {f"h.{i}.weight": rng.standard_normal((60, 50)).astype(np.float32) for i in range(6)}
    weights["h.6.weight"] = np.full((60, 50), np.nan, np.float32)
    safetensors.numpy.save_file(weights, tmp_path / "model.safetensors")
    return tmp_path / "model.safetensors"


def stopped_after(count):
    """Progress that is interrupted after ``count`` layers."""

    def progress(done, total, name):
        if done == count:
            raise KeyboardInterrupt

    return progress


@pytest.mark.parametrize("workers", [1, 2])
def test_an_interrupted_analysis_goes_on_to_the_same_table(path, tmp_path, monkeypatch, workers):
    kept = tmp_path / "rows.jsonl"
    whole = spectral.analyze(path, QUANTITIES, workers=workers)
    with pytest.raises(KeyboardInterrupt):
        spectral.analyze(path, QUANTITIES, workers=workers, resume=kept, progress=stopped_after(3))
    lines = kept.read_text().splitlines()
    assert len(lines) >= 4
    kept.write_text(kept.read_text() + lines[1][:20])  # killed in the middle of a line
    told = []
    again = spectral.analyze(path, QUANTITIES, workers=workers, resume=kept, progress=lambda *given: told.append(given))
    pd.testing.assert_frame_equal(again.layers, whole.layers)
    assert again.summary == whole.summary
    assert told[0][:2] == (len(lines) - 1, 7)
    assert told[-1][:2] == (7, 7)
    assert len(kept.read_text().splitlines()) == 8
    monkeypatch.setattr("ww_callbacks.spectral.analysis.measure_layer", None)  # nothing is measured any more
    pd.testing.assert_frame_equal(spectral.analyze(path, QUANTITIES, resume=kept).layers, whole.layers)


def test_a_comparison_goes_on_too(path, tmp_path):
    kept, other = tmp_path / "rows.jsonl", tmp_path / "other.safetensors"
    weights = safetensors.numpy.load_file(path)
    safetensors.numpy.save_file({name: weight * 2 for name, weight in weights.items()}, other)
    whole = spectral.compare(path, other)
    with pytest.raises(KeyboardInterrupt):
        spectral.compare(path, other, workers=1, resume=kept, progress=stopped_after(2))
    pd.testing.assert_frame_equal(spectral.compare(path, other, resume=kept).layers, whole.layers, check_dtype=False)


def test_rows_of_other_weights_or_settings_are_refused(path, tmp_path):
    kept = tmp_path / "rows.jsonl"
    spectral.analyze(path, QUANTITIES, layers="h.0.*", resume=kept)
    assert spectral.analyze(path, QUANTITIES, resume=kept).layers["layer"].iloc[0] == "h.0.weight"
    before = kept.read_bytes()
    for options, different in (({"seed": 1}, "seed"), ({"convolution": "slices"}, "convolution")):
        with pytest.raises(ValueError, match=rf"contains the rows of another analysis \({different} differ\)"):
            spectral.analyze(path, QUANTITIES, resume=kept, **options)
    os.utime(path, (1, 1))
    with pytest.raises(ValueError, match=r"another analysis \(model differ\)"):
        spectral.analyze(path, QUANTITIES, resume=kept)
    assert kept.read_bytes() == before
    with pytest.raises(ValueError, match="contains no rows of an analysis"):
        spectral.analyze(path, QUANTITIES, resume=path)
    with pytest.raises(FileNotFoundError, match=r"the folder .* does not exist"):
        spectral.analyze(path, QUANTITIES, resume=tmp_path / "no" / "rows.jsonl")
    with pytest.raises(ValueError, match="needs `model` to be the path of a file or folder"):
        spectral.analyze({"a": np.eye(3)}, "stable_rank", resume=tmp_path / "new.jsonl")


def test_nothing_is_begun_when_time_is_up(path, monkeypatch):
    moment = iter(range(100))
    monkeypatch.setattr(rows_module, "monotonic", lambda: next(moment))
    result = spectral.analyze(path, "stable_rank", max_time=4, workers=1)
    assert len(result.layers) == 3
    assert len(result.not_reached) == 4
    assert "4 layers not measured within `max_time`" in result.heading()
    monkeypatch.setattr(rows_module, "monotonic", iter([0.0, *[9.0] * 100]).__next__)
    assert len(spectral.analyze(path, "stable_rank", max_time=4, workers=1).layers) == 0
    for wrong in (0, -1, math.nan, "10m", True):
        with pytest.raises(ValueError, match="Expected `max_time` to be a positive number of seconds"):
            spectral.analyze(path, "stable_rank", max_time=wrong)


def test_ctrl_c_of_the_command_is_clean_and_goes_on(tmp_path):
    rng = np.random.default_rng(0)
    path, kept, output = tmp_path / "model.safetensors", tmp_path / "rows.jsonl", tmp_path / "table.json"
    weights = {f"h.{i}.weight": rng.standard_normal((300, 300)).astype(np.float32) for i in range(60)}
    safetensors.numpy.save_file(weights, path)
    script = "import sys; from ww_callbacks.commands import main; sys.exit(main())"
    command = [sys.executable, "-c", script, "analyze", str(path), "--quantities", "alpha", "stable_rank"]
    command += ["--resume", str(kept), "-o", str(output), "--workers", "1"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        end = time.monotonic() + 60
        while (not kept.exists() or kept.read_bytes().count(b"\n") < 4) and time.monotonic() < end:
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        printed, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert (printed, "Traceback" in errors) == ("", False)
    assert "the command can resume from it" in errors
    assert not output.exists()
    done = kept.read_bytes().count(b"\n") - 1
    assert 3 <= done < 60
    assert subprocess.run(command, capture_output=True, check=False).returncode == 0
    assert len(json.loads(output.read_text())["layers"]) == 60
