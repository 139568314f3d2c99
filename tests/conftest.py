import pytest
from hypothesis import settings

settings.register_profile("tests", deadline=None)  # a busy machine is no failure
settings.load_profile("tests")


@pytest.fixture(autouse=True)
def _surroundings(tmp_path, monkeypatch):
    """Runs without a log folder write to a temporary folder; the console is that of an interactive user."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("CI", raising=False)
