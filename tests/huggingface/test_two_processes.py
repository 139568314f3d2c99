"""``accelerate launch`` with two processes on the CPU: the record, the choice and the log of one process."""

import json

import numpy as np
import pytest

transformers = pytest.importorskip("transformers", reason="needs the extra huggingface")
pytest.importorskip("peft", reason="needs peft")
import torch

from tests.huggingface.two_processes import watch
from tests.scheduling.processes.launch import accelerate_launch
from ww_callbacks.integrations.record import read_run


def test_lora_with_evaluations(tmp_path):
    if not torch.distributed.is_available() or not torch.distributed.is_gloo_available():
        pytest.skip("this torch has no gloo")
    said = accelerate_launch("tests.huggingface.two_processes", tmp_path / "both")
    told = [tmp_path / "both" / f"rank-{rank}.json" for rank in (0, 1)]
    assert all(path.exists() for path in told), said[-3000:]
    first, second = (json.loads(path.read_text()) for path in told)
    assert first == second and first["processes"] == 2 and first["evaluation"] == []
    callback, alone = watch(tmp_path / "alone", batch=8)
    assert first["best"] == [alone.state.best_global_step, pytest.approx(alone.state.best_metric, rel=1e-3)]
    assert first["verdict"] == callback.verdict.state
    assert first["log"] == [sorted(row) for row in alone.state.log_history]
    both, one = read_run(tmp_path / "both" / "record"), read_run(tmp_path / "alone" / "record")
    places = ["step", "epoch", "layer", "status", "frozen"]
    assert both.layers[places].equals(one.layers[places]) and 3 in set(both.layers.step)
    for name in ("effective_rank/median", "lora/log_spectral_norm/max"):
        np.testing.assert_allclose(both.model[name], one.model[name], rtol=2e-3)
