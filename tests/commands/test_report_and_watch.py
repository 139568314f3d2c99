from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from rich.console import Console

from tests.integrations.synthetic import SyntheticRun
from ww_callbacks.commands import EXIT_ERROR, EXIT_FINDING, EXIT_INTERRUPTED, EXIT_OK, main
from ww_callbacks.commands._screen import fitting_screen
from ww_callbacks.integrations.figures.run_view import views
from ww_callbacks.integrations.record import read_run


@pytest.fixture(scope="module")
def bad(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "bad"
    SyntheticRun(folder, layers=4, collapse_at=3).advance(5).close("collapsing")
    return folder


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "good"
    SyntheticRun(folder, layers=4).advance(5).close("healthy")
    return folder


def test_help_lists_the_subcommands_quickly():
    code = (
        "import sys\nfrom ww_callbacks.commands import main\n"
        "try:\n    main(['--help'])\nexcept SystemExit as end:\n    code = end.code\n"
        "heavy = {'torch', 'pandas', 'plotly', 'scipy', 'safetensors'} & set(sys.modules)\n"
        "sys.exit(code or (f'imported {heavy}' if heavy else 0))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "report" in done.stdout and "watch" in done.stdout


def test_report_writes_one_file_for_several_runs(bad, good, tmp_path, capsys):
    target = tmp_path / "page.html"
    assert main(["report", str(bad), str(good), "-o", str(target)]) == EXIT_OK
    assert "2 runs" in capsys.readouterr().out
    text = target.read_text("utf-8")
    assert "<title>Spectra of bad, good, 2026-01-01</title>" in text
    assert target.stat().st_size < 1.5e6, "plotly.js is packed"


def test_report_says_what_it_wrote_as_json(good, tmp_path, capsys):
    target = tmp_path / "page.html"
    assert main(["report", str(good), "-o", str(target), "--json"]) == EXIT_OK
    assert json.loads(capsys.readouterr().out) == {
        "report": str(target),
        "bytes": target.stat().st_size,
        "runs": [str(good)],
    }


def test_a_missing_run_is_one_line_and_exit_code_2(good, tmp_path, capsys):
    assert main(["report", str(good.parent), "-o", str(tmp_path / "page.html")]) == EXIT_ERROR
    said = capsys.readouterr().err
    assert said.startswith("ww-callbacks report: No record of a run at") and f"Did you mean {good}" in said
    assert said.count("\n") == 1
    assert main(["watch", str(tmp_path), "--once"]) == EXIT_ERROR


@pytest.mark.parametrize("argument", ["0", "-1", "soon"])
def test_watch_refuses_an_interval_that_is_none(argument, capsys):
    with pytest.raises(SystemExit) as end:
        main(["watch", "somewhere", "--interval", argument])
    assert end.value.code == EXIT_ERROR
    assert "--interval" in capsys.readouterr().err


def test_watch_once_shows_how_the_run_stands(bad, good, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "140")
    assert main(["watch", str(bad), "--once"]) == EXIT_FINDING
    out = capsys.readouterr().out
    assert "bad: collapsing" in out and "epoch 4 · step 400" in out and "`" not in out
    first = next(line for line in out.splitlines() if "net.1 " in line)
    assert first.split()[:2] == ["✕", "net.1"] and "scale collapse since epoch 1" in first
    assert "(" in next(line for line in out.splitlines() if "few eigenvalues" in line)
    assert main(["watch", str(good), "--once"]) == EXIT_OK


@pytest.mark.parametrize("columns", [80, 100, 200])
def test_watch_shows_the_latest_values_and_the_standing_whole(tmp_path, capsys, monkeypatch, columns):
    layers = [f"transformer.h.{i}.attn.c_attn.weight[{part}]" for i in range(12) for part in "qkv"]
    SyntheticRun(tmp_path / "long", layers=layers, collapse_at=30, densities=False).advance(60)
    monkeypatch.setenv("COLUMNS", str(columns))
    main(["watch", str(tmp_path / "long"), "--once"])
    out = capsys.readouterr().out
    assert all(len(line) <= columns for line in out.splitlines()) and "…" not in out
    rank = next(line for line in out.splitlines() if "effective rank  " in line and "█" in line)
    assert rank.rstrip().endswith("▁"), "the last value is the lowest of all"
    alerted = next(line for line in out.splitlines() if line.lstrip().startswith("✕"))
    assert "h.0 · c_attn[k]" in alerted and "scale collapse since epoch 28" in alerted
    assert alerted.index("scale collapse") < alerted.index("±"), "how it stands, then numbers"


def test_a_very_narrow_terminal_shows_whole_numbers_and_words(bad, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "50")
    main(["watch", str(bad), "--once"])
    out = capsys.readouterr().out
    assert all(len(line) <= 50 for line in out.splitlines()) and "…" not in out and "10 %" not in out
    assert "scale against init, log10" in out and "scale collapse since epoch" in " ".join(out.split())


@pytest.mark.parametrize("columns", [40, 60, 80])
def test_adapters_and_the_whole_reason_fit_a_narrow_terminal(tmp_path, capsys, monkeypatch, columns):
    layers = [
        f"base_model.model.model.layers.{i}.self_attn.{part}.{leaf}"
        for i in range(2)
        for part in ("q_proj", "v_proj")
        for leaf in ("lora_update[default]", "merged_weight")
    ]
    SyntheticRun(tmp_path / "lora", layers=layers, collapse_at=2, densities=False).advance(5).close("collapsing")
    monkeypatch.setenv("COLUMNS", str(columns))
    main(["watch", str(tmp_path / "lora"), "--once"])
    out = capsys.readouterr().out
    assert all(len(line) <= columns for line in out.splitlines()) and "…" not in out
    assert "median" in out and "status" in out
    letters = re.sub(r"[\s│]+", "", out)
    reason = read_run(tmp_path / "lora").verdict.reason.replace("base_model.model.model.", "")
    assert reason.replace(" ", "") in letters
    assert ("layers.0 · q_proj.LoRA " in out) is (columns > 40) and "default" not in out


def test_the_live_screen_is_as_high_as_the_terminal(tmp_path):
    layers = [f"h.{i}.attn.weight" for i in range(60)]
    SyntheticRun(tmp_path / "high", layers=layers, collapse_at=2, densities=False).advance(5).close("collapsing")
    view = views(read_run(tmp_path / "high"))[0]
    for height in (40, 60):
        console = Console(width=80, height=height)
        lines = console.render_lines(fitting_screen(view, console), pad=False)
        assert height - 4 <= len(lines) < height


def test_errors_are_in_plain_words(tmp_path, capsys):
    for name, text in (("text.md", "# nothing\n"), ("other.jsonl", '{"loss": 1}\n')):
        (tmp_path / name).write_text(text)
    asked = [
        (["watch", str(tmp_path / "text.md")], "not a spectral record"),
        (["watch", str(tmp_path / "other.jsonl"), "--once"], "not a spectral record"),
        (["report", str(tmp_path / "nothing")], "there is no such file or folder"),
        (["report", str(tmp_path / "text.md")], "not a spectral record: the line is not JSON"),
        (["analyze", str(tmp_path / "nothing.pt")], "No such file or folder"),
    ]
    for arguments, words in asked:
        assert main(arguments) == EXIT_ERROR
        said = capsys.readouterr().err
        assert words in said and said.count("\n") == 1
        assert not re.search(r"errno|\[E|Traceback|char 0|\.\d+$", said, re.IGNORECASE), said


def test_watch_once_as_json(bad, capsys):
    assert main(["watch", str(bad), "--once", "--json"]) == EXIT_FINDING
    state = json.loads(capsys.readouterr().out)
    assert state["headline"]["title"] == "collapsing"
    assert state["layers"][1]["severity"] == "critical" and state["epoch"] == 4.0


def test_watch_follows_a_run_to_its_verdict(tmp_path, capsys, monkeypatch):
    monkeypatch.delenv("CI", raising=False)
    folder = tmp_path / "later"

    def train() -> None:
        time.sleep(0.3)  # watched before it has begun
        run = SyntheticRun(folder, layers=3, collapse_at=2)
        for _ in range(4):
            time.sleep(0.1)
            run.advance()
        run.close("collapsing")

    training = threading.Thread(target=train)
    training.start()
    code = main(["watch", str(folder), "--interval", "0.05"])
    training.join()
    lines = capsys.readouterr().out.splitlines()
    assert code == EXIT_FINDING
    assert lines[0].startswith("waiting for a record at")
    assert sum(line.startswith("spectra: epoch") for line in lines) == 4
    assert any("CRITICAL at epoch 2: scale collapse in net.1.weight" in line for line in lines)
    assert any(line.startswith("spectra: verdict: collapsing") for line in lines)


def test_watch_of_a_finished_run_says_each_alert_after_its_snapshot(bad, capsys, monkeypatch):
    monkeypatch.delenv("CI", raising=False)
    assert main(["watch", str(bad)]) == EXIT_FINDING
    lines = [line.split("  ")[0] for line in capsys.readouterr().out.splitlines()]
    at = lines.index("spectra: epoch 3")
    assert lines[at + 1].startswith("spectra: CRITICAL at epoch 3: ") and lines[at + 3] == "spectra: epoch 4"


def test_watch_as_json_lines(bad, capsys):
    assert main(["watch", str(bad), "--json"]) == EXIT_FINDING
    records = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [record["record"] for record in records] == ["run", *["model"] * 4, "alert", "model", "verdict"]
    assert records[3]["metrics/train_loss"] == pytest.approx(1.5331, abs=1e-3)


def test_watch_in_a_terminal_redraws_and_leaves_the_terminal_as_it_was(bad):
    pty = pytest.importorskip("pty", reason="pseudo-terminals are a thing of Unix")
    read, write = pty.openpty()
    done = subprocess.run(
        [sys.executable, "-c", "from ww_callbacks.commands import main; raise SystemExit(main())", "watch", str(bad)],
        stdout=write,
        stderr=subprocess.PIPE,
        env={**os.environ, "TERM": "xterm", "COLUMNS": "120", "LINES": "40"},
        timeout=60,
    )
    os.close(write)
    shown = b""
    try:
        while chunk := os.read(read, 65536):
            shown += chunk
    except OSError:
        pass
    assert done.returncode == EXIT_FINDING, done.stderr
    assert "bad: collapsing" in shown.decode()
    assert shown.rstrip().endswith(b"\x1b[?25h")  # the cursor is back


def test_ctrl_c_ends_quietly(tmp_path, monkeypatch, capsys):
    def interrupt(seconds: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(time, "sleep", interrupt)
    assert main(["watch", str(tmp_path / "nothing")]) == EXIT_INTERRUPTED
    assert capsys.readouterr().err == ""


def test_watch_of_a_folder_of_runs_names_them_and_waits_for_none(good, capsys):
    assert main(["watch", str(good.parent)]) == EXIT_ERROR
    assert f"Did you mean {good}" in capsys.readouterr().err
