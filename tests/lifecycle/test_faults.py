"""Faults of the machine, of others' code and of ours, injected: training continues or fails as it would without us."""

import copy
import errno
import json
import os
import pickle
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

pl = pytest.importorskip("pytorch_lightning", reason="needs the extra lightning")
import torch
from torch import nn

from tests.adapters.nets import Net, fit, same_batches, seeded
from tests.lifecycle.doomed import KILLED_AT, KILLS, During
from tests.lifecycle.records import Stop, assert_same
from ww_callbacks import SpectralMonitor
from ww_callbacks.engine.baseline_store import Baseline
from ww_callbacks.integrations.figures.run_summary import headline
from ww_callbacks.integrations.figures.run_view import views
from ww_callbacks.integrations.record import read_run
from ww_callbacks.lightning import SpectralCallback
from ww_callbacks.spectral.linalg import spectrum

ROOT = Path(__file__).parents[2]
SETTINGS = {"verbose": 0, "every_n_epochs": 1}


@pytest.fixture(scope="module")
def doomed(tmp_path_factory):
    """The trainings that end badly: their folder, and how each ended."""
    folder = tmp_path_factory.mktemp("doomed")
    command = [sys.executable, "-m", "tests.lifecycle.doomed", str(folder)]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=200)
    assert run.returncode == 0, run.stderr[-3000:]
    return folder, json.loads(run.stdout.splitlines()[-1]), run.stderr


def record_of(folder, **settings):
    return SpectralCallback(log_dir=str(folder / "record"), **SETTINGS | settings)


def test_killed_and_resumed(doomed, tmp_path):
    """At any moment, so also in the middle of a write: what was torn is measured again."""
    fit(seeded(), record_of(tmp_path))
    for at in KILLED_AT:
        folder, codes, _ = doomed
        assert codes[f"killed-{at}"] == -signal.SIGKILL
        folder = folder / f"killed-{at}"
        with (folder / "record" / "spectral.jsonl").open("ab") as torn:
            torn.write(b'{"record":"layer","step":9,"epo')
        last = max((folder / "checkpoints").glob("*.ckpt"), key=lambda path: path.stat().st_mtime_ns)
        fit(Net(), record_of(folder), ckpt_path=last)
        assert_same(tmp_path / "record", folder / "record")


def test_killed_at_any_moment_and_resumed(doomed, tmp_path):
    """Thirty times; where no checkpoint was whole yet, the run is begun again, in a separate record."""
    fit(seeded(), record_of(tmp_path), epochs=2, data=same_batches())
    resumed = 0
    for number in range(KILLS):
        folder = doomed[0] / f"any-{number}"
        saved = sorted((folder / "checkpoints").glob("*.ckpt"), key=lambda path: path.stat().st_mtime_ns)
        whole = [path for path in saved if is_whole(path)]
        callback = record_of(folder)
        fit(seeded(), callback, epochs=2, data=same_batches(), ckpt_path=whole[-1] if whole else None)
        assert_same(tmp_path / "record", callback.directory)
        resumed += bool(whole)
    assert resumed > KILLS / 3


def is_whole(checkpoint):
    try:
        torch.load(checkpoint, weights_only=True)
    except Exception:  # whatever a torn file makes torch raise
        return False
    return True


def test_without_room_for_the_initial_weights_it_is_resumed_all_the_same(tmp_path, monkeypatch, caplog):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    saver = pl.callbacks.ModelCheckpoint(tmp_path / "checkpoints", save_top_k=-1)
    with monkeypatch.context() as patched:
        patched.setattr(Baseline, "write", full)
        fit(seeded(), record_of(tmp_path), saver, epochs=2)
    assert caplog.text.count("W_0 cannot be stored") == 1
    last = max((tmp_path / "checkpoints").glob("*.ckpt"), key=lambda path: path.stat().st_mtime_ns)
    fit(Net(), record_of(tmp_path), ckpt_path=last)
    record = read_run(tmp_path / "record")
    assert record.model["step"].tolist() == [0, 4, 8, 12, 16] and record.verdict is not None
    assert record.layers["relative_distance_from_init"].isna().all() and record.layers["status"].eq("ok").all()


def test_sigterm_leaves_a_verdict(doomed):
    record = read_run(doomed[0] / "terminated" / "record")
    assert record.verdict is not None and record.model["step"].tolist() == [0, 4]


@pytest.mark.parametrize("framework", ["plain", "hf", "keras"])
def test_sigterm_where_the_framework_runs_no_hook(doomed, framework):
    """The signal's own exit is unchanged; the record is whole, and tells the verdict at its last snapshot."""
    folder, codes, errors = doomed
    assert codes[framework] == -signal.SIGTERM, errors[-3000:]
    record = read_run(folder / f"terminated-{framework}" / "record")
    assert record.verdict is None and record.torn == "" and record.model["step"].tolist() == [0, 4, 8]
    assert record.last_verdict.state == "no sign of overtraining"
    shown = headline(views(record)[0])
    assert shown.title == "no alert so far" and "At the last one: no sign of overtraining." in shown.text


def test_sigterm_where_the_trainer_saves_a_checkpoint(doomed):
    folder, codes, errors = doomed
    assert codes["hf_saves"] == 0, errors[-3000:]
    record = read_run(folder / "terminated-hf_saves" / "record")
    assert record.verdict == record.last_verdict and record.model["step"].tolist()[:-1] == [0, 4, 8]


def test_a_disk_that_fills_up_during_training(doomed):
    folder, codes, errors = doomed
    assert codes["disk_full"] == 0, errors[-3000:]
    assert read_run(folder / "disk_full" / "record").torn == ""


def test_ctrl_c_in_lightning(doomed):
    folder, codes, _ = doomed
    assert codes["interrupted"] == 1, "Lightning's own exit code"
    record = read_run(folder / "interrupted" / "record")
    assert record.verdict is not None and record.model["step"].tolist() == [0, 4]


def test_a_folder_that_cannot_be_written_is_refused_before_training(tmp_path):
    (tmp_path / "record").write_text("a file in the folder's place")
    model, trained = seeded(), []
    with pytest.raises(OSError, match="spectral record cannot be written"):
        fit(model, record_of(tmp_path), During(trained.append))
    assert trained == []


def test_a_decomposition_that_does_not_converge(tmp_path, monkeypatch):
    def diverges(*_, **__):
        raise np.linalg.LinAlgError("Eigenvalues did not converge")

    callback = record_of(tmp_path)
    breaks = During(lambda step: step == 6 and monkeypatch.setattr(spectrum, "symmetric_eigenvalues", diverges))
    trainer = fit(seeded(), callback, breaks)
    assert trainer.current_epoch == 4
    history = callback.history
    assert history.query("step <= 4")["status"].eq("ok").all()
    late = history.query("step > 4")
    assert late["status"].str.contains("did not converge").all()
    assert late["log_spectral_norm"].isna().all() and late["frobenius_norm"].notna().all()


def test_an_exception_in_the_users_code_is_unchanged_and_the_record_is_closed(tmp_path):
    callback = record_of(tmp_path)
    with pytest.raises(Stop, match=r"^the user's own error$"):
        fit(seeded(stop_at=(2, 1)), callback)
    record = read_run(tmp_path / "record")
    assert record.verdict is not None and record.model["step"].tolist() == [0, 4, 8]


@pytest.mark.parametrize("ends", ["raise KeyboardInterrupt", "raise ValueError('the user`s')", "pass"])
def test_a_plain_loop_that_ends_without_closing(tmp_path, ends):
    script = f"""
import numpy as np
from ww_callbacks import SpectralMonitor
weights = {{"a": np.random.default_rng(0).normal(size=(20, 30)), "b": np.eye(9)}}
monitor = SpectralMonitor(weights, log_dir={str(tmp_path)!r}, background=True, every_n_steps=1, verbose=0)
weights["a"] *= 1.1
monitor.observe(step=1, epoch=1.0)
{ends}
"""
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT)
    assert (run.returncode == 0) == (ends == "pass")
    assert run.stderr.strip().splitlines()[-1:] != [] or ends == "pass"
    record = read_run(tmp_path)
    assert record.model["step"].tolist() == [0, 1] and record.verdict is not None


def test_used_for_two_fits(tmp_path):
    callback = record_of(tmp_path)
    fit(seeded(), callback, epochs=2)
    first = callback.directory
    fit(seeded(), callback, epochs=2)
    assert callback.directory != first
    a, b = read_run(first), read_run(callback.directory)
    assert a.run.run_id != b.run.run_id
    np.testing.assert_array_equal(a.layers["frobenius_norm"], b.layers["frobenius_norm"])


def test_twice_in_one_trainer_is_refused(tmp_path):
    with pytest.raises(RuntimeError, match="more than one stateful callback"):
        fit(seeded(), record_of(tmp_path / "a"), record_of(tmp_path / "b"))


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, lambda c: pickle.loads(pickle.dumps(c))])
def test_copied_and_pickled(tmp_path, duplicate):
    callback = record_of(tmp_path, background=True)
    before = duplicate(callback)
    assert before.settings == callback.settings
    fit(seeded(), callback, epochs=2)
    after = duplicate(callback)
    assert after.settings == callback.settings and after.run is None
    fit(seeded(), after, epochs=2)
    assert after.directory != callback.directory
    np.testing.assert_array_equal(after.history["alpha"], callback.history["alpha"])


def test_layers_that_appear_and_vanish(tmp_path, caplog):
    from torch.nn.utils import prune

    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(20, 30), nn.Linear(30, 20), nn.Linear(20, 10))
    with SpectralMonitor(net, log_dir=str(tmp_path), verbose=0) as monitor:
        prune.l1_unstructured(net[1], "weight", amount=0.5)
        monitor.observe(step=1, epoch=1.0)
        net.append(nn.Linear(10, 40))
        monitor.observe(step=2, epoch=2.0)
        del net[0]
        with torch.no_grad():
            net[2].weight.mul_(2.0)
        monitor.observe(step=3, epoch=3.0)
    history = monitor.history.set_index(["step", "layer"])
    assert (history.loc[1, "frobenius_norm"]["1.weight"] < history.loc[0, "frobenius_norm"]["1.weight"]).all()
    assert history.loc[(1, "1.weight"), "distance_from_init"] > 0, "the layer is the same, its weights are masked"
    assert history.loc[(2, "3.weight"), "distance_from_init"] == 0
    assert set(history.loc[3].index) == {"0.weight", "1.weight", "2.weight"}
    assert history.loc[(3, "0.weight"), "distance_from_init"] == 0, "another shape under an old name is a new layer"
    said = [r.message for r in caplog.records if r.name == "ww_callbacks"]
    assert len(said) == 2 and "new: 3.weight" in said[0] and "gone: 3.weight" in said[1]
    again = Baseline.open(tmp_path)
    assert again.get("0.weight")[0].shape == (20, 30), "the last W_0 counts"


def test_lora_added_during_training(tmp_path):
    peft = pytest.importorskip("peft", reason="needs peft")
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(20, 30), nn.ReLU(), nn.Linear(30, 20))
    with SpectralMonitor(net, log_dir=str(tmp_path), verbose=0) as monitor:
        peft.inject_adapter_in_model(peft.LoraConfig(r=4, target_modules=["0"]), net)
        monitor.observe(step=1, epoch=1.0)
        with torch.no_grad():
            net[0].lora_B["default"].weight.normal_()
        monitor.observe(step=2, epoch=2.0)
    last = monitor.history.query("step == 2").set_index("layer")
    assert {"0.lora_update[default]", "0.merged_weight", "2.weight"} == set(last.index)
    assert last.loc["0.merged_weight", "distance_from_init"] > 0
    assert last.loc["2.weight", "distance_from_init"] == 0


def test_wandb_that_is_killed(tmp_path, caplog):
    """Its service process dies in the middle of the run: the training and the other sinks continue, and end."""
    wandb = pytest.importorskip("wandb", reason="needs the extra wandb")
    script = f"""
import logging, os, signal, subprocess, sys
import numpy as np, wandb
logging.basicConfig()
from ww_callbacks.integrations.sinks.wandb import WandbSink
from ww_callbacks import SpectralMonitor
run = wandb.init(mode="offline", dir={str(tmp_path)!r}, settings=wandb.Settings(silent=True, console="off"))
weights = {{"a": np.random.default_rng(0).normal(size=(20, 30))}}
monitor = SpectralMonitor(weights, sinks=[WandbSink(run)], log_dir={str(tmp_path / "record")!r}, verbose=0)
children = subprocess.run(["pgrep", "-P", str(os.getpid())], capture_output=True, text=True).stdout.split()
killed = 0
for child in children:
    name = open(f"/proc/{{child}}/comm").read()
    if "wandb" in name or "gpu_stats" in name:
        os.kill(int(child), signal.SIGKILL)
        killed += 1
print("killed", killed, flush=True)
for step in range(1, 20):
    weights["a"] *= 1.01
    monitor.observe(step=step, epoch=float(step))
monitor.close()
print("trained", flush=True)
os._exit(0)  # what W&B does about its own end is not ours
"""
    assert wandb is not None
    began = time.perf_counter()
    own = {name: value for name, value in os.environ.items() if name != "WANDB_SERVICE"}  # not that of other tests
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120, cwd=ROOT, env=own)
    assert "killed 0" not in run.stdout and "trained" in run.stdout, run.stderr[-2000:]
    record = read_run(tmp_path / "record")
    assert len(record.model) == 20 and record.verdict is not None
    # A connection that is reset may pass; a service that is closed does not.
    assert run.stderr.count("may miss this snapshot") <= 1 and run.stderr.count("is disabled for the rest") <= 1
    assert time.perf_counter() - began < 110
