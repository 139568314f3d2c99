import pytest


@pytest.fixture(autouse=True)
def _surroundings(tmp_path, monkeypatch):
    """What a run without a log folder leaves behind does not lie in the repository; the console is that of a person."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("CI", raising=False)
