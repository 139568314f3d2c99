"""Measuring in the background: the same values, at their own step, late; a bounded queue that says what it skips."""

import os
import threading
import time

import numpy as np
import pandas as pd
import pytest

torch = pytest.importorskip("torch", reason="needs torch")
from torch import nn

import ww_callbacks.scheduling.snapshots as measuring
from ww_callbacks import SpectralMonitor
from ww_callbacks.integrations.record import read_run
from ww_callbacks.scheduling.background import DEPTH, Background


def net_of(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(20, 40), nn.Linear(40, 30), nn.Linear(30, 5))


def train(folder, steps=6, between=lambda step: None, **settings):
    net = net_of()
    generator = torch.Generator().manual_seed(1)
    with SpectralMonitor(net, log_dir=str(folder), verbose=0, **settings) as monitor:
        for step in range(1, steps + 1):
            with torch.no_grad():
                for p in net.parameters():
                    p += 0.01 * torch.randn(p.shape, generator=generator)
            monitor.observe(step=step, epoch=float(step), train_loss=1.0 / step)
            between(step)
    return monitor


@pytest.fixture
def slow(monkeypatch):
    """The engine's measuring, held back until the event is set."""
    go = threading.Event()
    real = measuring.Engine.measure

    def held(self, capture=None, kind="full", spectra=None):
        if threading.current_thread().name == "spectral background":
            assert go.wait(30)
        return real(self, capture, kind, spectra)

    monkeypatch.setattr(measuring.Engine, "measure", held)
    return go


@pytest.mark.parametrize("workers", [1, 2])
def test_the_values_are_those_of_inline(tmp_path, workers):
    train(tmp_path / "inline")
    monitor = train(tmp_path / "beside", between=lambda _: time.sleep(0.2), background=True, workers=workers)
    a, b = read_run(tmp_path / "inline"), read_run(tmp_path / "beside")
    kept = b.model["step"].tolist()
    pd.testing.assert_frame_equal(
        a.layers[a.layers["step"].isin(kept)]
        .reset_index(drop=True)
        .drop(columns=["update_norm", "relative_update_norm"]),
        b.layers.drop(columns=["update_norm", "relative_update_norm"]),
    )
    assert len(kept) >= 4 and monitor.verdict is not None


def test_the_weights_of_the_moment_are_measured_though_training_goes_on(tmp_path, slow):
    net = net_of()
    monitor = SpectralMonitor(net, log_dir=str(tmp_path), verbose=0, background=True)
    with torch.no_grad():
        net[0].weight.fill_(2.0)
    assert monitor.observe(step=1, epoch=1.0) is None
    with torch.no_grad():
        net[0].weight.fill_(float("nan"))
    slow.set()
    monitor.close()
    row = monitor.history.query("step == 1 and layer == '0.weight'").iloc[0]
    assert row["frobenius_norm"] == pytest.approx(2.0 * np.sqrt(800))


def test_a_full_queue_skips_and_says_so_and_the_end_flushes(tmp_path, slow, caplog):
    monitor = train(tmp_path, steps=6, between=lambda step: slow.set() if step == 5 else None, background=True)
    steps = monitor.summary["step"].tolist()
    assert steps[: 1 + DEPTH] == [0, 1, 2]
    assert 3 not in steps and 4 not in steps
    if 6 in steps:
        words = monitor.summary.query("step == 6")["left_out"].iloc[0]
        assert "due at step 3, 4, 5" in words and "queue was full" in words
    said = [r.message for r in caplog.records if r.name == "ww_callbacks"]
    assert len(said) == 1 and "background queue is full" in said[0]


def test_the_training_thread_does_not_wait(tmp_path, slow):
    def measured(step):
        if step == 2:
            assert not slow.is_set()
            slow.set()

    began = time.perf_counter()
    train(tmp_path, steps=2, between=measured, background=True)
    assert time.perf_counter() - began < 20


def test_a_finding_stops_late_but_stops(tmp_path, slow):
    net = net_of()
    policies = {"non-finite": "stop"}
    monitor = SpectralMonitor(net, log_dir=str(tmp_path), verbose=0, background=True, policies=policies)
    with torch.no_grad():
        net[0].weight[0, 0] = float("nan")
    monitor.observe(step=1, epoch=1.0)
    assert not monitor.should_stop
    slow.set()
    deadline = time.time() + 20
    while not monitor.should_stop and time.time() < deadline:
        monitor.run.poll()
        time.sleep(0.01)
    assert monitor.should_stop and monitor.alerts[0].step == 1
    monitor.close()


def test_a_fault_in_the_background_is_said_and_training_goes_on(tmp_path, monkeypatch, caplog):
    net = net_of()
    monitor = SpectralMonitor(net, log_dir=str(tmp_path), verbose=0, background=True)
    monkeypatch.setattr(measuring.Engine, "measure", lambda *a, **k: 1 / 0)
    monitor.observe(step=1, epoch=1.0)
    monitor.close()
    assert any("ZeroDivisionError" in r.message for r in caplog.records)
    assert read_run(tmp_path).model["step"].tolist() == [0]


@pytest.mark.skipif(not hasattr(os, "setpriority") or not os.path.isdir("/proc/self/task"), reason="needs Linux")
def test_no_more_threads_than_allowed_and_they_yield_to_the_training(tmp_path, monkeypatch):
    seen, real = [], measuring.Engine._measure_layer
    at_once, most, lock = 0, 0, threading.Lock()

    def counted(self, *arguments):
        nonlocal at_once, most
        with lock:
            at_once += 1
            most = max(most, at_once)
        seen.append(os.getpriority(os.PRIO_PROCESS, threading.get_native_id()))
        time.sleep(0.01)
        try:
            return real(self, *arguments)
        finally:
            with lock:
                at_once -= 1

    own = os.getpriority(os.PRIO_PROCESS, threading.get_native_id())
    monitor = SpectralMonitor(net_of(), log_dir=str(tmp_path), verbose=0, background=True, workers=2)
    monkeypatch.setattr(measuring.Engine, "_measure_layer", counted)
    monitor.observe(step=1, epoch=1.0)
    monitor.close()
    assert most <= 2 and seen and min(seen) == min(own + 10, 19)
    assert os.getpriority(os.PRIO_PROCESS, threading.get_native_id()) == own


def test_jobs_come_back_in_order_and_errors_with_them():
    background = Background(lambda job: 10 // job)
    for job in (5, 0):
        background.submit(job)
    first, second = background.flush()
    assert first.result == 2 and isinstance(second.error, ZeroDivisionError)
    background.submit(2)
    assert [done.result for done in background.flush()] == [5]
    background.close()
    assert not any(t.name == "spectral background" for t in threading.enumerate() if t.is_alive())


def test_the_last_snapshot_is_taken_at_the_end_where_there_was_no_room_for_it(tmp_path, monkeypatch):
    pytest.importorskip("pytorch_lightning", reason="needs the extra lightning")
    from tests.adapters.nets import fit, seeded
    from ww_callbacks.lightning import SpectralCallback

    real = measuring.Engine.measure
    monkeypatch.setattr(measuring.Engine, "measure", lambda *a, **k: time.sleep(0.3) or real(*a, **k))
    model = seeded()
    fit(model, SpectralCallback(log_dir=str(tmp_path), verbose=0, background=True, every_n_steps=1), epochs=3)
    record = read_run(tmp_path)
    steps = record.model["step"].tolist()
    assert steps[-1] == 12 and len(steps) < 13, "snapshots were skipped, but not the last"
    last = record.layers.query("step == 12").set_index("layer")
    weight = model.net[0].weight.detach().double()
    assert last.loc["net.0.weight", "frobenius_norm"] == pytest.approx(float(weight.norm()), rel=1e-9)


def test_in_a_plain_loop_too(tmp_path, monkeypatch):
    real = measuring.Engine.measure
    monkeypatch.setattr(measuring.Engine, "measure", lambda *a, **k: time.sleep(0.2) or real(*a, **k))
    steps = train(tmp_path, steps=8, background=True).summary["step"].tolist()
    assert steps[-1] == 8 and len(steps) < 9, "snapshots were skipped, but not the last"


@pytest.mark.parametrize("apart", [True, False])
def test_a_second_copy_of_the_weights_is_only_made_for_a_snapshot_that_waits(tmp_path, slow, monkeypatch, apart):
    made = []
    monkeypatch.setattr(measuring, "HostCopies", lambda real=measuring.HostCopies: made.append(real()) or made[-1])
    net = net_of()
    monitor = SpectralMonitor(net, log_dir=str(tmp_path), verbose=0, background=True)
    queue = monitor.run._measuring._background
    if apart:
        slow.set()
    for step in (1, 2):
        monitor.observe(step=step, epoch=float(step))
        deadline = time.monotonic() + 30
        while apart and not queue.waiting and time.monotonic() < deadline:
            time.sleep(0.01)
    assert len(made) == (1 if apart else DEPTH)
    slow.set()
    monitor.close()
    assert monitor.summary["step"].tolist()[:3] == [0, 1, 2]
