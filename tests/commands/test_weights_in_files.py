"""``analyze`` and ``compare`` on files as people have them: what is printed, and what is refused."""

import numpy as np
import pytest
import safetensors.numpy
import torch

from ww_callbacks.commands import EXIT_ERROR, EXIT_OK, main

EVIL = "\x1b[2J\x1b]0;owned\x07\u202efc\r\n.weight"


@pytest.fixture
def eye():
    return np.diag(np.arange(1.0, 9.0)).astype(np.float32)


@pytest.mark.parametrize("options", [[], ["--describe"], ["--json"], ["--layers", "*fc*"]])
def test_no_escape_sequence_of_a_name_reaches_the_terminal(tmp_path, capsys, monkeypatch, eye, options):
    safetensors.numpy.save_file({EVIL: eye, "a.weight": eye}, tmp_path / "evil.safetensors")
    for terminal in (False, True):
        monkeypatch.setattr("sys.stderr.isatty", lambda terminal=terminal: terminal)
        assert main(["analyze", str(tmp_path / "evil.safetensors"), *options]) == EXIT_OK
        printed, bar = capsys.readouterr()
        assert r"\x1b[2J" in printed.replace(r"\\", "\\")
        assert not {c for c in printed if not c.isprintable()} - {"\n"}
        assert "\x1b[2J" not in bar  # a bar moves the cursor, but not as the name says
        assert "owned\x07" not in bar


def test_no_escape_sequence_of_a_refusal_reaches_the_terminal(tmp_path, capsys, eye):
    torch.save({EVIL: {"param_groups": [], "state": torch.ones(2, 2)}}, tmp_path / "evil.pt")
    for command in (["analyze", str(tmp_path / "evil.pt")], ["analyze", str(tmp_path / EVIL.replace("/", ""))]):
        assert main(command) == EXIT_ERROR
        printed = "".join(capsys.readouterr())
        assert not {c for c in printed if not c.isprintable()} - {"\n"}


def test_refusals_write_nothing(tmp_path, capsys):
    (tmp_path / "notes.txt").write_text("these are notes")
    (tmp_path / "empty").mkdir()
    for name in ("notes.txt", "empty", "nothing.pt"):
        output = tmp_path / "table.csv"
        assert main(["analyze", str(tmp_path / name), "-o", str(output)]) == EXIT_ERROR
        assert name in capsys.readouterr().err
        assert not output.exists()
