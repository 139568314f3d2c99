"""Reporters that count rows get ours without being renumbered. Their packages are heavy, so no extra brings them."""

import pytest

transformers = pytest.importorskip("transformers", reason="needs the extra huggingface")
from types import SimpleNamespace

from tests.huggingface.small import train
from ww_callbacks.huggingface import SpectralCallback
from ww_callbacks.huggingface.reporters import reporter_sinks
from ww_callbacks.settings import Settings


def test_trackio_gets_our_values_and_the_users_rows_stay(tmp_path, monkeypatch):
    """Tried with trackio 0.43."""
    pytest.importorskip("trackio", reason="needs trackio")
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    from trackio.sqlite_storage import SQLiteStorage

    rows, ours = [], []
    for callbacks in ((), (SpectralCallback(verbose=0),)):
        project = f"with-{len(callbacks)}"
        train(tmp_path, *callbacks, report_to=["trackio"], project=project, eval_strategy="epoch")
        logs = SQLiteStorage.get_logs(project, SQLiteStorage.get_runs(project)[0])
        told = [{k: v for k, v in row.items() if "time" not in k and "per_second" not in k} for row in logs]
        rows.append([row for row in told if not any(name.startswith("spectral") for name in row)])
        ours.append([row["train/global_step"] for row in told if any(name.startswith("spectral") for name in row)])
    assert rows[0] == rows[1] and len(rows[0]) > 8
    assert ours == [[], list(range(17))]


class Live:
    """What DVCLive's ``Live`` does with a value: it belongs to the row that is open."""

    def __init__(self):
        self.step, self.logged = 0, []

    def log_metric(self, name, value):
        self.logged.append((self.step, name, value))

    def next_step(self):
        self.step += 1


def test_dvclive_gets_our_values_in_its_open_row():
    reporter = SimpleNamespace(live=Live())
    (sink,) = reporter_sinks([reporter], None, None, Settings())
    reporter.live.next_step()
    sink._log({"spectral/alpha/median": 3.0}, 20)
    assert reporter.live.logged == [(1, "spectral/alpha/median", 3.0)] and reporter.live.step == 1
