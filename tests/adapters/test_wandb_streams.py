"""What the real W&B SDK wrote offline, for each framework."""

import json
import os
import subprocess
import sys
from pathlib import Path

os.environ.setdefault("KERAS_BACKEND", "torch")

import numpy as np
import pytest

wandb = pytest.importorskip("wandb", reason="needs the extra wandb")

from tests.huggingface import test_callback as test_huggingface
from tests.keras import test_callback as test_keras
from tests.lightning import test_callback as test_lightning


@pytest.fixture
def offline(tmp_path, monkeypatch):
    for name, value in {"WANDB_MODE": "offline", "WANDB_SILENT": "true", "WANDB_DIR": str(tmp_path)}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("WANDB_CONSOLE", "off")
    monkeypatch.setenv("WANDB_X_DISABLE_STATS", "true")
    wandb.teardown()  # what another test has set up knows nothing of this environment
    yield tmp_path
    wandb.teardown()


def rows_written() -> list[dict]:
    """The history of the run that is open, which is closed, as the SDK's own tool reads it."""
    folder = wandb.run.settings.sync_dir
    wandb.finish()
    command = [Path(sys.executable).with_name("wandb"), "leet", "inspect", "--json", folder]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    return [row["history"]["item"] for row in map(json.loads, lines) if row["type"] == "history"]


def values(rows, name):
    return [row[name] for row in rows if name in row]


def test_from_lightning(offline):
    callback = test_lightning.SpectralCallback(verbose=0)
    logger = test_lightning.pl.loggers.WandbLogger(save_dir=offline, offline=True)
    test_lightning.fit(offline, callback, logger=logger)
    rows = rows_written()
    summary = callback.summary
    np.testing.assert_allclose(values(rows, "spectral/effective_rank/median"), summary["effective_rank/median"])
    measured = [row["spectral/step"] for row in rows if "spectral/effective_rank/median" in row]
    assert measured == list(summary.step)
    assert "files" not in callback.directory.parts and callback.directory.name == "spectral"


def test_from_keras(offline):
    wandb.init(mode="offline", dir=offline)
    callback = test_keras.SpectralCallback(log_dir=offline / "log", verbose=0)
    test_keras.fit(callback)
    rows = rows_written()
    np.testing.assert_allclose(
        values(rows, "spectral/log_spectral_norm/median"), callback.summary["log_spectral_norm/median"]
    )


def test_from_huggingface(offline):
    callback = test_huggingface.SpectralCallback(verbose=0)
    test_huggingface.train(offline / "out", callback, report_to=["wandb"])
    rows = rows_written()
    np.testing.assert_allclose(
        values(rows, "spectral/log_spectral_norm/median"), callback.summary["log_spectral_norm/median"]
    )
