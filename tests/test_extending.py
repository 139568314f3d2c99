"""Detectors and sinks of the user's own run next to ours."""

import numpy as np
import pytest

from ww_callbacks import SpectralMonitor
from ww_callbacks.spectral.detectors import Finding


class Grows:
    """Finds layers whose norm exceeds a limit."""

    kind = "grows"
    can_stop = True
    spoils_weights = False
    state = "watch"
    needs = ("frobenius_norm",)

    def __init__(self, limit):
        self.limit = limit

    def update(self, observation):
        over = tuple(n for n, row in observation.layers.items() if row["frobenius_norm"] > self.limit)
        if not over:
            return []
        return [Finding(self.kind, "warning", over, {}, observation.step, observation.epoch, "It grew.", "Stop.")]

    def state_dict(self):
        return {}

    def load_state_dict(self, state):
        pass


class Lines:
    name = "lines"

    def __init__(self):
        self.lines = []

    def open(self, run, resumed):
        self.lines.append(f"open {len(run.layers)}")

    def snapshot(self, snapshot):
        self.lines.append(f"snapshot {snapshot.step}")

    def alert(self, alert):
        self.lines.append(f"alert {alert.kind}")

    def close(self, verdict):
        self.lines.append(f"close {verdict.state}")


@pytest.mark.parametrize(("policy", "stops"), [("warn", False), ("stop", True)])
def test_own_detectors_and_sinks(tmp_path, policy, stops):
    weights, sink = {"layer.weight": np.eye(12)}, Lines()
    with SpectralMonitor(
        weights, detectors=[Grows(limit=5.0)], sinks=[sink], policies={"grows": policy}, log_dir=tmp_path, verbose=0
    ) as monitor:
        monitor.observe(step=1, epoch=1)
        weights["layer.weight"] *= 3
        monitor.observe(step=2, epoch=2)
        assert monitor.should_stop is stops
    assert sink.lines == ["open 1", "snapshot 0", "snapshot 1", "snapshot 2", "alert grows", "close watch"]
    assert [a.kind for a in monitor.alerts] == ["grows"]
    assert list(monitor.history["layer"]) == ["layer.weight"] * 3


def test_a_policy_may_not_stop_what_cannot_stop(tmp_path):
    class Informs(Grows):
        can_stop = False

    with pytest.raises(ValueError, match="informs and never stops"):
        SpectralMonitor({"w": np.eye(3)}, detectors=[Informs(1.0)], policies={"grows": "stop"}, log_dir=tmp_path)


def test_two_runs_start_from_the_same_state(tmp_path):
    class Counts(Grows):
        seen = 0

        def update(self, observation):
            self.seen += 1
            return []

    mine = Counts(1.0)
    for name in "ab":
        with SpectralMonitor({"w": np.eye(12)}, detectors=[mine], log_dir=tmp_path / name, verbose=0):
            pass
    assert mine.seen == 0
