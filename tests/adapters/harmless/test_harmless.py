"""The harmless matrix: with the callback, a user's run is bit-for-bit the same as without it.

The rows are in ``harmless_<framework>.py``.
"""

from __future__ import annotations

import importlib
import os

import pytest

from tests.adapters.harmless.checks import Case, assert_same

ROWS = {
    "lightning": ("pytorch_lightning", "tests.adapters.harmless.lightning_loops"),
    "plain": ("numpy", "tests.adapters.harmless.plain_loops"),
}
"""Framework → the module that it needs, and the module with its rows."""


def cases() -> list[object]:
    """Every row of every framework that is installed."""
    found: list[object] = []
    for framework, (needed, module) in ROWS.items():
        try:
            importlib.import_module(needed)
        except ImportError:
            found.append(pytest.param(None, id=framework, marks=pytest.mark.skip(f"needs {needed}")))
            continue
        rows: dict[str, Case] = importlib.import_module(module).CASES
        found += [pytest.param((module, name), id=f"{framework}: {name}") for name in rows]
    return found


@pytest.fixture(autouse=True)
def offline(monkeypatch):
    settings = {"MODE": "offline", "SILENT": "true", "CONSOLE": "off", "X_DISABLE_STATS": "true"}
    for name, value in settings.items():
        monkeypatch.setenv(f"WANDB_{name}", value)


@pytest.mark.parametrize("case", cases())
def test_the_run_is_the_same_with_the_callback_as_without(tmp_path, case, monkeypatch):
    module, name = case
    rows = importlib.import_module(module)
    monkeypatch.chdir(tmp_path)
    outcomes = []
    for folder, watch in ((tmp_path / "bare", None), (tmp_path / "watched", rows.watch)):
        folder.mkdir()
        monkeypatch.setenv("WANDB_DIR", str(folder))
        outcomes.append(rows.CASES[name](folder, watch))
    assert_same(*outcomes)
    assert list((tmp_path / "watched").rglob("spectral.jsonl")), "the watched run was watched"
    assert {p.name for p in tmp_path.iterdir()} == {"bare", "watched"}, "nothing is left in the working folder"
    assert os.getcwd() == str(tmp_path)
