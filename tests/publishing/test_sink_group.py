"""A sink that fails is said once; the others, and the training, go on."""

from __future__ import annotations

import logging
import resource
import signal

import numpy as np
import pytest

from tests.integrations.record.test_record_faults import exit_code, in_child
from ww_callbacks import SpectralMonitor
from ww_callbacks.integrations.record import read_run

STEPS = 40


class Collected:
    """A sink that keeps the steps it is given, and fails when told to."""

    name = "collected"

    def __init__(self, fails: str = "") -> None:
        self.fails = fails
        self.steps: list[int] = []
        self.closed = 0

    def _do(self, what: str) -> None:
        if what == self.fails:
            raise OSError(28, f"No space left in {what}")

    def open(self, run, resumed) -> None:
        self._do("open")

    def snapshot(self, snapshot) -> None:
        self._do("snapshot")
        self.steps.append(snapshot.step)

    def alert(self, alert) -> None:
        self._do("alert")

    def close(self, verdict) -> None:
        self.closed += 1
        self._do("close")


def train(monitor: SpectralMonitor, weights: dict[str, np.ndarray]) -> None:
    rng = np.random.default_rng(1)
    with monitor:
        for step in range(1, STEPS):
            for array in weights.values():
                array += 0.01 * rng.normal(size=array.shape)
            monitor.observe(step=step, epoch=float(step))


def network() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {f"net.{i}.weight": rng.normal(size=(24, 24)) for i in range(3)}


@pytest.mark.parametrize("fails", ["open", "snapshot", "close"])
def test_a_failing_sink_is_said_once_and_costs_the_others_nothing(tmp_path, caplog, fails):
    bad, good = Collected(fails), Collected()
    weights = network()
    with caplog.at_level(logging.WARNING):
        train(SpectralMonitor(weights, sinks=[bad, good], log_dir=str(tmp_path), verbose=0, every_n_steps=1), weights)
    said = [record.getMessage() for record in caplog.records if "No space left" in record.getMessage()]
    assert len(said) == 1 and "collected" in said[0]
    assert good.steps == list(range(STEPS)) and good.closed == 1
    record = read_run(tmp_path)
    assert record.model["step"].tolist() == good.steps and record.verdict is not None and record.torn == ""


def test_a_full_disk_under_the_record_leaves_the_other_sinks_and_a_whole_record(tmp_path):
    def fill() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        said: list[str] = []
        handler = logging.Handler()
        handler.emit = lambda record: said.append(record.getMessage())  # type: ignore[method-assign]
        logging.getLogger("ww_callbacks").addHandler(handler)
        good, weights = Collected(), network()
        monitor = SpectralMonitor(
            weights, sinks=[good], log_dir=str(tmp_path), verbose=0, every_n_steps=1, densities=False
        )
        resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, 30_000))
        train(monitor, weights)
        assert good.steps == list(range(STEPS)), good.steps
        assert len([text for text in said if "record failed" in text]) == 1, said

    assert exit_code(in_child(fill)) == 0
    record = read_run(tmp_path)
    steps = record.model["step"].tolist()
    assert record.torn == "" and steps == list(range(len(steps))) and 1 < len(steps) < STEPS
