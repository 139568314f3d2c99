"""What is written comes back; what a resume does again counts once; the file is what is promised."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests.integrations.samples import alert, run_info, snapshot, verdict
from ww_callbacks.integrations.record import Follower, RecordError, RecordSink, find_runs, read_run
from ww_callbacks.integrations.schema import Snapshot


def write(folder: Path, steps: range, densities: bool = False) -> RecordSink:
    sink = RecordSink(folder)
    sink.open(run_info(folder), resumed=False)
    for step in steps:
        sink.snapshot(snapshot(step, densities=densities))
    return sink


def resume(folder: Path, at: int, steps: range, densities: bool = False, **changes: object) -> RecordSink:
    sink = RecordSink(folder)
    sink.open(run_info(folder, resumed_at=at, **changes), resumed=True)
    for step in steps:
        sink.snapshot(snapshot(step, densities=densities))
    return sink


def test_what_is_written_is_read(tmp_path):
    sink = write(tmp_path, range(0, 30, 10))
    sink.alert(alert())
    sink.close(verdict())
    record = read_run(tmp_path)
    assert record.run == run_info(tmp_path)
    assert record.verdict == verdict()
    assert record.torn == ""
    assert len(record.layers) == 9 and len(record.model) == 3
    for step in (0, 10, 20):
        rows = record.layers[record.layers["step"] == step].set_index("layer")
        for row in snapshot(step).rows:
            for name, value in row.values.items():
                got = rows.loc[row.layer, name]
                assert got == value or (isinstance(value, float) and math.isnan(value) and math.isnan(got))
            assert rows.loc[row.layer, "status"] == row.status
        model = record.model[record.model["step"] == step].iloc[0]
        expected = snapshot(step)
        assert all(model[name] == value for name, value in expected.model.items())
        assert model["metrics/train_loss"] == expected.metrics["train_loss"]
        assert (model["kind"], model["seconds"], model["overhead"], model["time"]) == ("full", 0.1, 0.012, float(step))
    (back,) = record.alerts
    assert math.isnan(back.evidence["limit"]) and back.evidence["scale_collapse"] == -0.61
    assert back.layers == ("net.1.weight",) and back.message == alert().message


def test_every_line_is_strict_json(tmp_path):
    write(tmp_path, range(2), densities=True).close(verdict())

    def refuse(constant):
        raise AssertionError(f"{constant} is no JSON")

    for name in ("spectral.jsonl", "spectra.jsonl"):
        for line in (tmp_path / name).read_text().splitlines():
            json.loads(line, parse_constant=refuse)


def test_pandas_reads_it_in_one_line(tmp_path):
    write(tmp_path, range(0, 30, 10)).close(verdict())
    frame = pd.read_json(tmp_path / "spectral.jsonl", lines=True).query("record == 'layer'")
    assert len(frame) == 9
    pd.testing.assert_series_equal(
        frame["alpha"].reset_index(drop=True), read_run(tmp_path).layers["alpha"], check_exact=False, rtol=1e-12
    )


def test_infinities_come_back_as_missing(tmp_path):
    sink = write(tmp_path, range(0))
    full = snapshot(0)
    sink.snapshot(Snapshot(**{**vars(full), "model": {"alpha/mean": math.inf, "alpha/max": np.float64(3.5)}}))
    sink.close(None)
    model = read_run(tmp_path).model
    assert math.isnan(model["alpha/mean"][0]) and model["alpha/max"][0] == 3.5


def test_settings_that_json_does_not_have_are_written_as_text(tmp_path):
    settings = {"seed": 2**70, "policy": write, "folder": tmp_path, "names": {"b", "a"}, "odd": "x\udc80", 3: 1}
    sink = RecordSink(tmp_path)
    sink.open(run_info(tmp_path, settings=settings), resumed=False)
    sink.close(None)
    back = read_run(tmp_path).run.settings
    assert back["seed"] == str(2**70) and back["folder"] == str(tmp_path) and back["names"] == ["a", "b"]
    assert back["policy"].endswith("test_record.write") and back["3"] == 1


def test_an_interrupted_and_resumed_run_equals_the_uninterrupted(tmp_path):
    whole = write(tmp_path / "whole", range(0, 60, 10), densities=True)
    whole.close(verdict())
    cut = write(tmp_path / "cut", range(0, 50, 10), densities=True)
    cut.alert(alert(step=40))  # of a step that is done again
    cut.close(verdict(state="broken"))
    again = resume(tmp_path / "cut", 20, range(30, 60, 10), densities=True)
    assert read_run(tmp_path / "cut").verdict is None, "the interrupted session's verdict is no longer the run's"
    again.close(verdict())
    one, two = read_run(tmp_path / "whole"), read_run(tmp_path / "cut")
    pd.testing.assert_frame_equal(one.layers, two.layers)
    pd.testing.assert_frame_equal(one.model, two.model)
    assert (one.alerts, one.verdict) == (two.alerts, two.verdict)
    assert one.density("net.2.weight") == two.density("net.2.weight")
    assert len(one.density("net.2.weight")) == 6


def test_a_moment_measured_again_on_resume_counts_once(tmp_path):
    write(tmp_path, range(0, 30, 10)).close(None)
    resume(tmp_path, 20, range(20, 40, 10)).close(None)
    assert read_run(tmp_path).model["step"].tolist() == [0, 10, 20, 30]
    resume(tmp_path, 30, range(20, 30, 10)).close(None)  # the trainer went back further than it said
    assert read_run(tmp_path).model["step"].tolist() == [0, 10, 20]


def test_another_run_in_the_same_folder_leaves_the_first_intact(tmp_path):
    write(tmp_path, range(3), densities=True).close(verdict())
    before = (tmp_path / "spectral.jsonl").read_bytes()
    sink = RecordSink(tmp_path)
    sink.open(run_info(tmp_path, run_id="run-2"), resumed=False)
    sink.snapshot(snapshot(7, densities=True))
    sink.close(None)
    assert (tmp_path / "spectral.1.jsonl").read_bytes() == before
    old, new = read_run(tmp_path / "spectral.1.jsonl"), read_run(tmp_path)
    assert (old.run.run_id, new.run.run_id) == ("run-1", "run-2")
    assert [len(old.density("net.0.weight")), len(new.density("net.0.weight"))] == [3, 1]
    assert find_runs(tmp_path) == [tmp_path / "spectral.jsonl"]


def test_a_foreign_file_of_that_name_is_kept(tmp_path):
    (tmp_path / "spectral.jsonl").write_text("my own notes\n")
    resume(tmp_path, 3, range(4, 6)).close(None)
    assert (tmp_path / "spectral.1.jsonl").read_text() == "my own notes\n"
    assert len(read_run(tmp_path).model) == 2


def test_a_density_is_not_taken_from_the_run_that_came_after(tmp_path):
    write(tmp_path, range(3), densities=True).close(None)
    old = read_run(tmp_path)
    write_again = RecordSink(tmp_path)
    write_again.open(run_info(tmp_path, run_id="run-2"), resumed=False)
    with pytest.raises(RecordError, match="another run"):
        old.density("net.0.weight")
    write_again.close(None)


def test_quantities_may_join_and_cheap_snapshots_have_fewer(tmp_path):
    sink = write(tmp_path, range(1))
    fewer = snapshot(1)
    rows = tuple(type(r)(r.layer, r.index, {"frobenius_norm": 1.5}) for r in fewer.rows)
    sink.snapshot(Snapshot(**{**vars(fewer), "kind": "cheap", "rows": rows, "model": {"frobenius_norm/mean": 1.5}}))
    sink.close(None)
    layers = read_run(tmp_path).layers
    assert layers.query("kind == 'cheap'")["frobenius_norm"].tolist() == [1.5] * 3
    assert layers.query("kind == 'cheap'")["alpha"].isna().all()
    assert (layers.query("kind == 'cheap'")["alpha_evidence"] == "").all()
    assert layers.query("kind == 'full'")["frobenius_norm"].isna().all()


def test_a_missing_record_says_where_there_are_some(tmp_path):
    write(tmp_path / "logs" / "a", range(1)).close(None)
    with pytest.raises(FileNotFoundError, match=r"Did you mean .*logs/a"):
        read_run(tmp_path)
    with pytest.raises(FileNotFoundError, match="No record"):
        read_run(tmp_path / "nothing")


def test_a_newer_schema_is_refused_with_the_remedy(tmp_path):
    write(tmp_path, range(1)).close(None)
    file = tmp_path / "spectral.jsonl"
    file.write_bytes(file.read_bytes().replace(b'"schema":1', b'"schema":9'))
    with pytest.raises(RecordError, match=r"line 1: .*schema is 9.*install a newer ww-callbacks"):
        read_run(tmp_path)


def test_notebook_display_escapes_names(tmp_path):
    sink = write(tmp_path, range(2))
    sink.alert(alert(message="<script>alert(1)</script>"))
    sink.close(verdict(reason="<b>"))
    shown = read_run(tmp_path)._repr_html_()
    assert "<script>" not in shown and "&lt;script&gt;" in shown and "&lt;b&gt;" in shown
    assert "alpha/median" in shown and "collapsing" in shown


class TestFollower:
    def test_tells_what_is_new_and_only_that(self, tmp_path):
        follower = Follower(tmp_path)
        assert not follower.poll() and follower.record is None
        sink = write(tmp_path, range(2))
        update = follower.poll()
        assert update and update.run is not None and update.model["step"].tolist() == [0, 1]
        assert not follower.poll()
        sink.snapshot(snapshot(2))
        sink.alert(alert())
        update = follower.poll()
        assert update.run is None and update.model["step"].tolist() == [2] and len(update.layers) == 3
        assert len(update.alerts) == 1 and update.verdict is None
        sink.close(verdict())
        assert follower.poll().verdict == verdict()
        pd.testing.assert_frame_equal(follower.record.layers, read_run(tmp_path).layers)

    def test_waits_for_the_rest_of_a_line_and_of_a_snapshot(self, tmp_path):
        write(tmp_path / "whole", range(3)).close(None)
        data = (tmp_path / "whole" / "spectral.jsonl").read_bytes()
        follower = Follower(tmp_path)
        steps = []
        for end in range(0, len(data) + 1, 97):
            (tmp_path / "spectral.jsonl").write_bytes(data[:end])
            steps += follower.poll().model["step"].tolist()
        (tmp_path / "spectral.jsonl").write_bytes(data)
        assert steps + follower.poll().model["step"].tolist() == [0, 1, 2]

    def test_a_resume_takes_back_what_was_told(self, tmp_path):
        write(tmp_path, range(0, 40, 10)).close(None)
        follower = Follower(tmp_path)
        follower.poll()
        # Killed in mid-write: some rows of the next snapshot were whole, one was torn; the resume cuts them off.
        rows = (tmp_path / "spectral.jsonl").read_bytes().splitlines(keepends=True)[1:3]
        with (tmp_path / "spectral.jsonl").open("ab") as file:
            file.write(b"".join(rows) + rows[0][:50])
        assert not follower.poll()
        resume(tmp_path, 10, range(20, 60, 10)).close(None)
        update = follower.poll()
        assert update.dropped_from == 11 and update.model["step"].tolist() == [20, 30, 40, 50]
        assert follower.record.model["step"].tolist() == [0, 10, 20, 30, 40, 50]

    def test_another_run_takes_its_place(self, tmp_path):
        write(tmp_path, range(5)).close(None)
        follower = Follower(tmp_path)
        follower.poll()
        sink = RecordSink(tmp_path)
        sink.open(run_info(tmp_path, run_id="run-2"), resumed=False)
        sink.snapshot(snapshot(9))
        update = follower.poll()
        assert update.dropped_from == 0 and update.run.run_id == "run-2" and update.model["step"].tolist() == [9]
        sink.close(None)


def test_linked_folders_are_found_and_loops_end(tmp_path):
    for name in ("logs/one", "elsewhere/two/version_0"):
        write(tmp_path / name, range(2)).close(None)
    (tmp_path / "logs" / "linked").symlink_to(tmp_path / "elsewhere" / "two")
    (tmp_path / "logs" / "itself").symlink_to(tmp_path / "logs")
    (tmp_path / "elsewhere" / "two" / "back").symlink_to(tmp_path)  # a loop over two links
    (tmp_path / "logs" / "gone").symlink_to(tmp_path / "nothing")
    found = [path.parent.relative_to(tmp_path / "logs").as_posix() for path in find_runs(tmp_path / "logs")]
    assert found == ["linked/version_0", "one"]


def test_errors_stand_beside_what_is_estimated_only(tmp_path):
    """A column of errors a quantity that was ever estimated; NaN says that a value is exact."""
    sink = write(tmp_path, range(1))
    exact = snapshot(1)
    sink.snapshot(replace(exact, rows=(replace(exact.rows[0], errors={"effective_rank": 0.5}), *exact.rows[1:])))
    layers = read_run(tmp_path).layers
    assert [c for c in layers.columns if c.endswith("_error")] == ["effective_rank_error"]
    assert layers["effective_rank_error"].notna().tolist() == [False] * 3 + [True, False, False]
