"""A sink that fails is reported once; the others, and the training, continue."""

from __future__ import annotations

import logging
import resource
import shutil
import signal
from collections.abc import Callable

import numpy as np
import pytest

from tests.integrations.record.test_record_faults import exit_code, in_child
from ww_callbacks import SpectralMonitor
from ww_callbacks.integrations.record import read_run

STEPS = 40


class Collected:
    """A sink that keeps the steps it is given, and fails when told to."""

    name = "collected"

    def __init__(self, fails: str = "", error: type[Exception] = OSError) -> None:
        self.fails = fails
        self.error = error
        self.steps: list[int] = []
        self.closed = 0
        self._actions: dict[int, Callable[[], object]] = {}

    def _do(self, what: str) -> None:
        if what == self.fails:
            raise self.error(28, f"No space left in {what}")

    def open(self, run, resumed) -> None:
        self._do("open")

    def when(self, step: int, action) -> None:
        """Call ``action`` at the snapshot of ``step``."""
        self._actions[step] = action

    def snapshot(self, snapshot) -> None:
        self._do("snapshot")
        self._actions.get(snapshot.step, lambda: None)()
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


@pytest.mark.parametrize("error", [OSError, RuntimeError])
@pytest.mark.parametrize("fails", ["open", "snapshot", "close"])
def test_a_failing_sink_is_said_once_and_costs_the_others_nothing(tmp_path, caplog, fails, error):
    bad, good = Collected(fails, error), Collected()
    weights = network()
    with caplog.at_level(logging.WARNING):
        train(SpectralMonitor(weights, sinks=[bad, good], log_dir=str(tmp_path), verbose=0, every_n_steps=1), weights)
    said = [record.getMessage() for record in caplog.records if "No space left" in record.getMessage()]
    assert len(said) == 1 and "collected" in said[0]
    assert good.steps == list(range(STEPS)) and good.closed == 1
    record = read_run(tmp_path)
    assert record.model["step"].tolist() == good.steps and record.verdict is not None and record.torn == ""


def test_a_sink_whose_error_passes_gets_the_next_snapshots(tmp_path, caplog):
    class Away(Collected):
        def snapshot(self, snapshot):
            if snapshot.step in (3, 4):
                raise ConnectionError("the server is away")
            super().snapshot(snapshot)

    sink, weights = Away(), network()
    with caplog.at_level(logging.WARNING):
        train(SpectralMonitor(weights, sinks=[sink], log_dir=str(tmp_path), verbose=0, every_n_steps=1), weights)
    assert sink.steps == [step for step in range(STEPS) if step not in (3, 4)] and sink.closed == 1
    assert caplog.text.count("the server is away") == 1


@pytest.mark.parametrize("freed", [True, False])
def test_a_full_disk_under_the_record_leaves_the_other_sinks_and_a_whole_record(tmp_path, freed):
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
        hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
        resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, hard))
        good.when(30, lambda: freed and resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard)))
        train(monitor, weights)
        assert good.steps == list(range(STEPS)), good.steps
        assert len([text for text in said if "record cannot be written now" in text]) == 1, said
        lacks = [text for text in said if "record lacks what could not be written" in text]
        assert len(lacks) == (not freed), said

    assert exit_code(in_child(fill)) == 0
    record = read_run(tmp_path)
    steps = record.model["step"].tolist()
    assert record.torn == "" and steps == list(range(len(steps)))
    assert len(steps) == STEPS if freed else 1 < len(steps) < STEPS
    assert record.verdict is not None or not freed


def test_initial_weights_that_do_not_fit_cost_their_distances_only(tmp_path, capsys):
    def fill() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
        rng = np.random.default_rng(0)
        weights = {"a": rng.normal(size=(80, 60)), "b": rng.normal(size=(5, 5))}  # 38.6 kB
        said: list[str] = []
        handler = logging.Handler()
        handler.emit = lambda record: said.append(record.getMessage())  # type: ignore[method-assign]
        logging.getLogger("ww_callbacks").addHandler(handler)
        monitor = SpectralMonitor(weights, log_dir=str(tmp_path), verbose=0)
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
        weights["a"] += 1.0
        monitor.observe(step=1, epoch=1)
        monitor.close()
        assert len(said) == 1 and "38.6 kB" in said[0] and "distances" in said[0] and "File too large" in said[0], said

    assert exit_code(in_child(fill)) == 0
    layers = read_run(tmp_path).layers
    assert layers["step"].tolist() == [0, 0, 1, 1] and layers["status"].eq("ok").all()
    assert layers["log_spectral_norm"].notna().all() and layers["relative_distance_from_init"].isna().all()
    assert not list(tmp_path.glob("w0*"))


def test_the_last_lines_name_no_record_that_is_gone(tmp_path, capsys, monkeypatch):
    monkeypatch.delenv("CI", raising=False)
    weights = network()
    monitor = SpectralMonitor(weights, log_dir=str(tmp_path / "run"), verbose=1)
    shutil.rmtree(tmp_path / "run")
    (tmp_path / "run").write_text("a file in its place")
    monitor.close()
    said = capsys.readouterr().out.splitlines()
    assert "there is no record" in said[-1] and "spectral.jsonl" not in said[-1]
