import pytest


@pytest.fixture(autouse=True)
def _working_folder(tmp_path, monkeypatch):
    """What a run without a log folder leaves behind does not lie in the repository."""
    monkeypatch.chdir(tmp_path)
