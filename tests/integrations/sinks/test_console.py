"""What the terminal shows."""

from __future__ import annotations

import io
import math
import sys
from dataclasses import replace

import pytest

from tests.integrations.samples import alert, run_info, snapshot, verdict
from ww_callbacks.integrations.schema import LayerRow, Snapshot
from ww_callbacks.integrations.sinks.console import ConsoleSink, printable, snapshot_line


@pytest.fixture(autouse=True)
def no_ci(monkeypatch):
    monkeypatch.delenv("CI", raising=False)


def changed(step: int = 10, **changes) -> Snapshot:
    return Snapshot(**{**vars(snapshot(step)), **changes})


def run(sink: ConsoleSink, folder: object = "/runs/a") -> None:
    sink.open(run_info(folder), resumed=False)
    for step in (0, 10):
        sink.snapshot(snapshot(step))
    sink.alert(alert())
    sink.close(verdict())


def test_a_run_from_top_to_bottom(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "a").mkdir(parents=True)
    (tmp_path / "runs" / "a" / "spectral.jsonl").touch()
    lines: list[str] = []
    run(ConsoleSink(write=lines.append), tmp_path / "runs" / "a")
    assert all("\n" not in line for line in lines)
    opened, meaning, before, first, said, advice, judged, cost, look = lines
    assert opened == "spectra: watching 3 layers; record in runs/a"
    assert meaning.startswith("spectra: medians over the layers. moved: ‖W − W_0‖/‖W_0‖; α: ") and "±" in meaning
    assert before.startswith("spectra: epoch 0     moved ")
    assert first.startswith("spectra: epoch 1     moved ")
    assert "CRITICAL at epoch 2: scale collapse in net.1.weight: Its norm fell" in said
    assert "Since epoch 1." in said and "(scale_collapse -0.61, limit nan)" in said
    assert advice.strip() == "Lower the weight decay."
    assert judged == "spectra: verdict: collapsing. 1 of 3 layers lost its scale. Go back to epoch 1."
    assert len(set(lines)) == len(lines)
    assert "2 snapshots, 1 alert, cost 1.2 % (0.12 s)" in cost and "runs/a/spectral.jsonl" in cost
    assert "ww-callbacks report runs/a -o report.html" in look and "tensorboard --logdir runs/a" in look


def test_the_columns_are_the_same_in_every_line():
    taken = snapshot(10)
    line, model = snapshot_line(taken, alerts=2), taken.model
    alpha, rank = f"α {model['alpha/median']:.2f} (2/3)", f"rank {model['effective_rank/median']:#.3g}"
    assert f"  {alpha}" in line and f"  {rank}" in line and line.endswith("\n         2 alerts, 1 all zero")
    lines = [snapshot_line(snapshot(step), alerts) for step, alerts in ((0, 0), (10, 3), (12, 12), (123, 0))]
    for column in ("moved", "α", "rank"):
        assert len({line.index(column) for line in lines}) == 1, lines
    cheap = snapshot_line(changed(rows=[LayerRow("a", 0, {"relative_distance_from_init": 0.5})], model={}), 0)
    assert cheap == "spectra: epoch 1     moved 0.500"


def test_alpha_has_the_standard_error_of_a_typical_layer():
    values = {"alpha": 3.0, "alpha_evidence": "sufficient"}
    rows = tuple(LayerRow(f"net.{i}", i, values | {"sigma": error}) for i, error in enumerate((0.1, 0.3, 0.9)))
    rows += (LayerRow("head", 3, values | {"sigma": 9.0, "alpha_evidence": "short tail"}),)
    assert "α 3.00±0.30 (3/4)" in snapshot_line(changed(rows=rows, model={"alpha/median": 3.0}), 0)


@pytest.mark.parametrize(("alerts", "layers", "epoch"), [(0, 3, 1.0), (12, 583, 123.5), (1234, 1583, 0.0)])
def test_no_line_is_longer_than_a_terminal(alerts, layers, epoch):
    taken = {**vars(snapshot(12_000_000, layers)), "epoch": epoch, "left_out": "3 of 7 layers"}
    lines = snapshot_line(Snapshot(**taken), alerts).split("\n")
    assert len(lines) == 2 and all(len(line) < 80 for line in lines) and "α " in lines[0]
    assert "left out: 3 of 7 layers" in lines[1] and lines[1].startswith(" " * 9)


@pytest.mark.parametrize(("budget", "said"), [(0.01, True), (0.02, False), (None, False)])
def test_the_cost_is_said_where_it_is_beyond_the_budget(budget, said):
    assert ("cost 1.2 %" in snapshot_line(changed(time=600.0), 0, budget)) is said
    assert "cost" not in snapshot_line(changed(time=10.0), 0, budget)  # a share of so little says nothing


def test_a_terminal_breaks_no_word(monkeypatch):
    stream = io.StringIO()
    stream.isatty = lambda: True
    monkeypatch.setattr(sys, "stdout", stream)
    monkeypatch.setenv("COLUMNS", "60")
    run(ConsoleSink())
    text = stream.getvalue()
    assert all(len(line) < 60 for line in text.splitlines() if "/" not in line)
    assert "spectra: verdict: collapsing. 1 of 3 layers lost its scale. Go back to epoch 1." in " ".join(text.split())


def test_no_number_without_evidence():
    rows = tuple(LayerRow(f"net.{i}", i, {"alpha": 9.0, "alpha_evidence": "short tail"}) for i in range(2))
    line = snapshot_line(changed(rows=rows, model={"alpha/median": math.nan}), alerts=0)
    assert "α unsure (0/2)" in line and "9" not in line and "nan" not in line.lower()


@pytest.mark.parametrize(
    ("distances", "said"),
    [
        ([0.0, 0.02, 0.0, 0.04], "moved 0.0300 (2/4)"),
        ([0.0, math.nan], "no layer moved"),
        ([0.5, math.nan], "moved 0.500"),
    ],
)
def test_frozen_layers_do_not_hide_that_the_others_moved(distances, said):
    rows = tuple(LayerRow(f"net.{i}", i, {"relative_distance_from_init": d}) for i, d in enumerate(distances))
    assert said in snapshot_line(changed(rows=rows), alerts=0)
    at_first = snapshot_line(changed(rows=rows, step=0, epoch=0.0), alerts=0)
    assert at_first.startswith("spectra: epoch 0 ") and "no layer moved" not in at_first
    assert "moved" not in snapshot_line(changed(rows=(LayerRow("net.0", 0, {}),)), alerts=0)


def test_a_loop_without_epochs_is_told_by_its_steps():
    assert snapshot_line(changed(epoch=0.0, step=12_500), 0).startswith("spectra: step 12,500  ")
    assert snapshot_line(changed(epoch=0.25), 0).startswith("spectra: epoch 0.25  ")
    assert snapshot_line(changed(epoch=1 / 7), 0).startswith("spectra: epoch 0.14  ")


def test_what_was_left_out_is_said():
    assert "left out: 3 of 7 layers" in snapshot_line(changed(left_out="3 of 7 layers"), 0)


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252", "no-such-encoding"])
def test_a_stream_without_greek_gets_plain_letters(encoding):
    line = printable(snapshot_line(snapshot(10), 0) + " ‖W−W₀‖ λ₁ 层", encoding)
    assert "alpha " in line and "||W" in line
    line.encode("ascii" if encoding == "no-such-encoding" else encoding)


def test_a_terminal_in_ascii_does_not_break_the_run(monkeypatch):
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", stream)
    run(ConsoleSink())
    stream.seek(0)
    assert "(2/3)  rank " in (text := stream.read()) and "  alpha 0." in text


def test_verbose_0_prints_nothing(capsys):
    run(ConsoleSink(verbose=0))
    assert capsys.readouterr() == ("", "")


def test_in_ci_only_alerts_and_the_end(monkeypatch, capsys):
    monkeypatch.setenv("CI", "true")
    run(ConsoleSink())
    out = capsys.readouterr().out
    assert "CRITICAL" in out and "verdict: collapsing" in out and "epoch 0 " not in out and "watching" not in out


def test_a_resumed_run_counts_its_own_snapshots_and_says_so(capsys):
    sink = ConsoleSink()
    sink.open(run_info(resumed_at=10), resumed=True)
    sink.snapshot(snapshot(20))
    sink.close(None)
    assert "spectra: 1 snapshot since it was resumed, 0 alerts" in capsys.readouterr().out


def test_names_with_markup_come_through_a_rich_console():
    """Parts of packed parameters have brackets in their names, which rich takes for markup unless told otherwise."""
    from rich.console import Console

    stream = io.StringIO()
    console = Console(file=stream, width=300)
    sink = ConsoleSink(write=lambda line: console.print(line, markup=False, highlight=False, soft_wrap=True))
    sink.open(run_info(), resumed=False)
    sink.alert(alert(layers=("attention.in_proj_weight[q]",)))
    assert "attention.in_proj_weight[q]" in stream.getvalue()


def test_a_note_is_no_alert(capsys):
    sink = ConsoleSink()
    sink.open(run_info(), resumed=False)
    sink.alert(alert(severity="info"))
    sink.snapshot(snapshot(10))
    sink.close(None)
    out = capsys.readouterr().out
    assert (
        "spectra: note at epoch 2: " in out and "  1 alert" not in out and "1 snapshot, 0 alerts, 1 note, cost" in out
    )


def test_a_stop_is_said(capsys):
    sink = ConsoleSink()
    sink.open(run_info(), resumed=False)
    sink.alert(alert(action="stop"))
    assert "Training is being stopped." in capsys.readouterr().out


def test_a_resume_is_said(capsys):
    ConsoleSink().open(run_info(resumed_at=1200), resumed=True)
    assert "resumed at step 1200" in capsys.readouterr().out


REASON = "Since epoch 1 `net.1.weight` grows {}. This rests on {} snapshots."


def reported(*messages: str, severity: str = "critical", final: str = "", layers: tuple[str, ...] = ()) -> list[str]:
    """The lines for alerts with these messages, and for a verdict with the last one or ``final``."""
    lines: list[str] = []
    sink = ConsoleSink(write=lines.append)
    info = run_info()
    if layers:
        info = replace(info, layers=tuple(replace(info.layers[0], name=name) for name in layers))
    sink.open(info, resumed=False)
    sink.snapshot(snapshot(10))
    for at, message in enumerate(messages):
        sink.alert(alert(severity=severity, message=message, step=20 + at, epoch=2.0 + at, layers=layers[:1]))
    advice = "Lower the weight decay."
    sink.close(verdict(reason=final or messages[-1], recommendation=advice, best_step=10, best_epoch=1.0))
    return [
        line for line in lines if "WARNING" in line or "CRITICAL" in line or "note at" in line or "decay" in line
    ] + [line for line in lines if "verdict" in line]


def test_a_reminder_says_the_new_values_only_and_the_verdict_what_no_alert_said():
    first, advice, again, same, judged = reported(*(REASON.format(*v) for v in ((4, 5), (6, 7), (6, 8))))
    assert first.endswith("grows 4. This rests on 5 snapshots. (scale_collapse -0.61, limit nan)")
    assert advice == "         Lower the weight decay."
    assert again.endswith("the model: Since epoch 1 `net.1.weight` grows 6.")
    assert same.endswith("the model: as at epoch 3.")
    assert judged == "spectra: verdict: collapsing, as at epoch 3. Keep the weights of epoch 1 (step 10)."


def test_a_note_is_repeated_for_other_layers_not_for_other_numbers():
    notes = ("α < 2 in `h.1` (lowest 1.5).", "α < 2 in `h.1` (lowest 1.4).", "α < 2 in `h.2` (lowest 1.4).")
    said = reported(*notes, severity="info", final="No problem was found. Note: α < 2 in `h.2` (lowest 1.3).")
    assert [line.partition(" in the model: ")[2].partition(" Since")[0] for line in said if "note" in line] == [
        notes[0],
        notes[2],
    ]
    assert said[-1].startswith("spectra: verdict: collapsing. No problem was found. Keep the weights")


def test_alerts_leave_out_what_all_names_share_and_name_no_layer_twice():
    layers = tuple(f"base_model.model.model.layers.{i}.self_attn.q_proj.lora_update[default]" for i in range(2))
    first, *_ = reported(f"`{layers[0]}` grows.", layers=layers)
    assert "at epoch 2: scale collapse: `layers.0.self_attn.q_proj.lora_update[default]` grows." in first
    first, *_ = reported("One grows.", layers=layers)
    assert "at epoch 2: scale collapse in layers.0.self_attn.q_proj.lora_update[default]: One grows." in first


@pytest.mark.parametrize("columns", [30, 50, 79, 80, 200])
def test_no_line_is_wider_than_the_terminal_and_a_log_is_not_broken(monkeypatch, columns):
    stream = io.StringIO()
    stream.isatty = lambda: True
    monkeypatch.setattr(sys, "stdout", stream)
    monkeypatch.setenv("COLUMNS", str(columns))
    run(ConsoleSink())
    assert max(map(len, (line for line in stream.getvalue().splitlines() if "/" not in line))) < columns
    stream.isatty = lambda: False
    stream.seek(stream.truncate(0))
    run(ConsoleSink())
    assert all(line.startswith(("spectra: ", " " * 9)) for line in stream.getvalue().splitlines())


def test_without_alpha_and_rank_a_line_shows_what_was_requested():
    """A run of other quantities; a snapshot without a new α in a run that measures it stays as it is."""
    values = [
        {"stable_rank": 10.0 + i, "log_spectral_norm": 0.5, "sv_max": 2.0, "frobenius_norm": 3.0} for i in range(3)
    ]
    rows = tuple(LayerRow(f"layer{i}", i, own) for i, own in enumerate(values))
    assert snapshot_line(changed(rows=rows, model={}), 0).endswith("stable_rank 11.0  log_spectral_norm 0.500")
    rows = tuple(LayerRow(f"layer{i}", i, {**own, "effective_rank": math.nan}) for i, own in enumerate(values))
    assert "stable_rank" not in snapshot_line(changed(rows=rows, model={}), 0)
