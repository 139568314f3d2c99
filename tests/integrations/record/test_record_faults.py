"""Kills, full disks, folders that refuse, and files that are not what they should be."""

from __future__ import annotations

import errno
import os
import resource
import shutil
import signal
import subprocess
import time
import traceback
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests.integrations.record.test_record import resume, write
from tests.integrations.samples import alert, run_info, snapshot, verdict
from ww_callbacks.integrations.record import (
    Follower,
    RecordError,
    RecordSink,
    check_writable,
    claim,
    free_directory,
    read_run,
)

LAYERS = 120


def in_child(action: Callable[[], None]) -> int:
    """Run ``action`` in a separate process, a fork of this one; returns its identifier."""
    child = os.fork()
    if child == 0:
        try:
            action()
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    return child


def exit_code(child: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def long_snapshot(step: int):
    return snapshot(step, layers=LAYERS, padding=20)


def whole_record(folder: Path, steps: int) -> RecordSink:
    sink = RecordSink(folder)
    sink.open(run_info(folder, layers=LAYERS), resumed=False)
    for step in range(steps):
        sink.snapshot(long_snapshot(step))
    return sink


def test_a_kill_in_the_middle_of_writing_costs_at_most_the_snapshot_being_written(tmp_path):
    ready = [long_snapshot(step) for step in range(40)]  # so that the child does nothing but write

    def write_for_ever() -> None:
        sink = RecordSink(tmp_path)
        sink.open(run_info(tmp_path, layers=LAYERS), resumed=False)
        for step in range(10**9):
            sink.snapshot(ready[step] if step < len(ready) else type(ready[0])(**{**vars(ready[0]), "step": step}))

    rng = np.random.default_rng(0)
    torn = 0
    for attempt in range(25):
        file = tmp_path / "spectral.jsonl"
        file.unlink(missing_ok=True)
        child = in_child(write_for_ever)
        while not file.exists() or file.stat().st_size < 200_000:
            time.sleep(0.001)
        time.sleep(0.05 * rng.random())
        os.kill(child, signal.SIGKILL)
        assert exit_code(child) == -signal.SIGKILL
        record = read_run(tmp_path)
        torn += bool(record.torn)
        steps = record.model["step"].tolist()
        assert steps == list(range(len(steps))) and len(record.layers) == LAYERS * len(steps)
        if attempt == 0:
            at = steps[-1]
            resume(tmp_path, at, range(at + 1, at + 3)).close(verdict())
            again = read_run(tmp_path)
            assert again.torn == "" and again.model["step"].tolist() == [*steps, at + 1, at + 2]
            pd.testing.assert_frame_equal(
                again.layers[again.layers["step"] < 40][record.layers.columns].head(5), record.layers.head(5)
            )


def test_cut_at_any_byte_it_reads_and_goes_on(tmp_path):
    sink = write(tmp_path / "whole", range(3))
    sink.alert(alert(step=2))
    sink.close(verdict())
    data = (tmp_path / "whole" / "spectral.jsonl").read_bytes()
    header = data.index(b"\n") + 1
    whole = read_run(tmp_path / "whole")
    file = tmp_path / "spectral.jsonl"
    ends = [i + 1 for i, line in enumerate(data.split(b"\n")[:-1]) if line.startswith(b'{"record":"model"')]
    lengths = np.cumsum([len(line) + 1 for line in data.split(b"\n")[:-1]])
    closed = [lengths[end - 1] for end in ends]
    for cut in [*range(0, len(data), 37), *range(header - 3, header + 3), len(data) - 1, len(data)]:
        for garbage in (b"", b"\0" * 37):  # after a power cut a file system may leave zeros
            file.write_bytes(data[:cut] + garbage)
            if cut < header:
                with pytest.raises(RecordError, match=r"spectral\.jsonl"):
                    read_run(tmp_path)
            else:
                expected = sum(end <= cut for end in closed)
                assert read_run(tmp_path).model["step"].tolist() == list(range(expected))
            at = max(sum(end <= cut for end in closed) - 1, 0)
            resume(tmp_path, at, range(at + 1, 3) if cut >= closed[0] else range(3)).close(verdict())
            again = read_run(tmp_path)
            assert again.torn == ""
            pd.testing.assert_frame_equal(again.layers, whole.layers)
            pd.read_json(file, lines=True)
            for other in tmp_path.glob("spectral.*.jsonl"):
                other.unlink()


def test_a_full_disk_that_is_freed_costs_nothing(tmp_path):
    def fill() -> None:
        hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
        resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, hard))
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        sink = RecordSink(tmp_path)
        sink.open(run_info(tmp_path, layers=LAYERS), resumed=False)
        failed = 0
        for step in range(20):
            if step == 18:
                resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
            try:
                sink.snapshot(long_snapshot(step))
            except OSError as error:
                failed += 1
                assert error.errno == errno.EFBIG and str(tmp_path) in str(error)
                part = read_run(tmp_path)
                assert part.torn == "" and part.model["step"].tolist() == list(range(len(part.model)))
        assert 2 < failed < 18
        sink.close(verdict())

    assert exit_code(in_child(fill)) == 0
    record = read_run(tmp_path)
    assert record.torn == "" and record.model["step"].tolist() == list(range(20)) and record.verdict == verdict()
    assert len(record.layers) == LAYERS * 20


def test_a_real_file_system_that_is_full(tmp_path):
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(tmp_path)]
    if subprocess.run(mount, capture_output=True).returncode != 0:
        pytest.skip("mounting a small file system needs root")
    try:
        sink = RecordSink(tmp_path)
        sink.open(run_info(tmp_path), resumed=False)
        with pytest.raises(OSError, match="No space left") as caught:
            for step in range(100):
                sink.snapshot(long_snapshot(step))
        assert caught.value.errno == errno.ENOSPC
        steps = read_run(tmp_path).model["step"].tolist()
        assert steps == list(range(len(steps))) and steps
        (tmp_path / "filler").write_bytes(b"x" * os.statvfs(tmp_path).f_bavail * os.statvfs(tmp_path).f_frsize)
        with pytest.raises(OSError, match="free some space"):
            check_writable(tmp_path)
        (tmp_path / "filler").unlink()
        with pytest.raises(OSError, match="No space left"):  # the last snapshot never fits, and the verdict does
            sink.close(verdict())
        record = read_run(tmp_path)
        assert record.verdict == verdict() and record.torn == "" and record.model["step"].tolist() == steps
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)


@pytest.mark.parametrize("number", [errno.ESTALE, errno.EIO, errno.EDQUOT])
@pytest.mark.parametrize("call", ["open", "write", "ftruncate", "fstat"])
def test_a_file_system_that_is_away_for_a_while_costs_nothing(tmp_path, monkeypatch, number, call):
    write(tmp_path / "undisturbed", range(6), densities=True).close(verdict())
    away = False
    real = getattr(os, call)

    def refuse(*arguments, **keywords):
        if away:
            if call == "write":
                real(arguments[0], bytes(arguments[1])[:7])  # torn
            raise OSError(number, os.strerror(number))
        return real(*arguments, **keywords)

    sink = RecordSink(tmp_path)
    sink.open(run_info(tmp_path), resumed=False)
    for step in range(6):
        away = step in (2, 3)
        monkeypatch.setattr(os, call, refuse)
        if call == "ftruncate" and away:
            monkeypatch.setattr(os, "write", lambda *_: (_ for _ in ()).throw(OSError(number, os.strerror(number))))
        try:
            sink.snapshot(snapshot(step, densities=True))
        except OSError as error:
            assert away and error.errno == number
        finally:
            monkeypatch.undo()
    sink.close(verdict())
    for name in ("spectral.jsonl", "spectra.jsonl"):
        lines, undisturbed = (
            [line for line in (folder / name).read_bytes().splitlines() if b'"record":"run"' not in line]
            for folder in (tmp_path, tmp_path / "undisturbed")
        )
        assert lines == undisturbed and len(lines) > 6


@pytest.mark.parametrize("how", ["folder", "file", "emptied"])
def test_a_record_deleted_in_the_middle_begins_anew_and_says_so(tmp_path, how):
    said: list[str] = []
    sink = RecordSink(tmp_path / "run", warn=said.append)
    sink.open(run_info(tmp_path / "run"), resumed=False)
    for step in range(3):
        sink.snapshot(snapshot(step, densities=True))
    match how:
        case "folder":
            shutil.rmtree(tmp_path / "run")
        case "file":
            (tmp_path / "run" / "spectral.jsonl").unlink()
        case "emptied":
            (tmp_path / "run" / "spectral.jsonl").write_bytes(b"")
    for step in range(3, 6):
        sink.snapshot(snapshot(step, densities=True))
    sink.close(verdict())
    record = read_run(tmp_path / "run")
    assert record.model["step"].tolist() == [3, 4, 5] and record.verdict == verdict() and record.torn == ""
    assert record.density(record.layers["layer"].iloc[0]) is not None
    assert len(said) == 1 and "was deleted" in said[0] and "spectral.jsonl" in said[0]


def test_processes_that_ask_for_one_folder_at_the_same_moment_get_one_each(tmp_path):
    ready = time.time() + 0.3

    def take() -> None:
        time.sleep(max(0.0, ready - time.time()))  # on a busy machine the moment may be over
        folder = claim(free_directory(tmp_path / "log"))
        (folder / f"mine-{os.getpid()}").touch()

    children = [in_child(take) for _ in range(12)]
    assert [exit_code(child) for child in children] == [0] * 12
    found = sorted(path.parent.name for path in (tmp_path / "log").rglob("mine-*"))
    assert found == sorted(["log", *(f"run-{n}" for n in range(2, 13))])


def test_a_folder_that_cannot_be_written_is_refused_before_training(tmp_path):
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o555)
    (tmp_path / "file").write_text("")

    def check() -> None:
        if os.geteuid() == 0:
            for folder in (tmp_path, *tmp_path.parents):
                if folder != Path("/") and folder.stat().st_uid == 0 and "pytest" in str(folder):
                    folder.chmod(folder.stat().st_mode | 0o055)
            os.setuid(65534)  # no one: root may write everywhere
        with pytest.raises(PermissionError, match=r"Permission denied.*name another folder") as caught:
            check_writable(closed)
        assert caught.value.filename == str(closed)
        with pytest.raises(PermissionError, match="another folder"):
            RecordSink(closed / "below").open(run_info(closed), resumed=False)

    assert exit_code(in_child(check)) == 0
    with pytest.raises(OSError, match="another folder"):
        check_writable(tmp_path / "file" / "below")
    assert check_writable(tmp_path / "new" / "below").is_dir()
    assert list((tmp_path / "new" / "below").iterdir()) == []


@pytest.mark.parametrize(
    "content",
    [
        b"hello\n",
        b"\x89PNG\r\n\x1a\n" + bytes(range(256)) + b"\n",
        b'{"a": 1}\n',
        b"[]\n",
        b"null\n",
        b'{"record":"layer","step":0}\n',
        b'{"record":"run"}\n',
        b'{"record":"run","schema":true}\n',
        b"[" * 100_000 + b"\n",
        b'{"record":"run","schema":1,"run_id":["cos\\nsystem"]}\n',
        b"cos\nsystem\n(S'touch /tmp/owned'\ntR.\n",
        b"",
    ],
)
def test_a_foreign_file_is_named(tmp_path, content):
    (tmp_path / "spectral.jsonl").write_bytes(content)
    with pytest.raises(RecordError, match=r"spectral\.jsonl") as caught:
        read_run(tmp_path)
    if content:
        assert caught.value.line == 1 and "line 1" in str(caught.value)
        with pytest.raises(RecordError):
            Follower(tmp_path).poll()


@pytest.mark.parametrize(
    ("old", "new", "line"),
    [
        (b'"step":1,', b'"step":-1,', 6),
        (b'"layer":"net.1.weight"', b'"layer":7', 3),
        (b'"alpha":2', b'"alpha":[2],"x":2', 2),
        (b'"changed":true', b'"changed":"true"', 2),
        (b'"record":"layer"', b'"record":"layers"', 2),
        (b'"metrics":{', b'"metrics":{"a":"b",', 5),
        (b'"severity":"critical"', b'"severity":"fatal"', 14),
        (b'"signals":{', b'"signals":{"a":{},', 15),
        (b"net.2.weight", b"net.2\xff.weight", 1),
    ],
)
def test_damage_is_named_with_its_line(tmp_path, old, new, line):
    sink = write(tmp_path, range(3))
    sink.alert(alert(step=2))
    sink.close(verdict())
    file = tmp_path / "spectral.jsonl"
    data = file.read_bytes()
    assert old in data
    file.write_bytes(data.replace(old, new, 1))
    with pytest.raises(RecordError, match=r"spectral\.jsonl, line ") as caught:
        read_run(tmp_path)
    assert caught.value.line == line, str(caught.value)


def test_thousands_of_mutations_never_do_worse_than_an_error_that_names_the_file(tmp_path):
    sink = write(tmp_path, range(3), densities=True)
    sink.alert(alert(step=2))
    sink.close(verdict())
    originals = {name: (tmp_path / name).read_bytes() for name in ("spectral.jsonl", "spectra.jsonl")}
    rng = np.random.default_rng(7)
    marks = np.frombuffer(b'{}[]",:\n\\0-e.9nut\x00\xff', dtype=np.uint8)
    refused = read = 0
    for attempt in range(3000):
        name = "spectral.jsonl" if attempt % 4 else "spectra.jsonl"
        data = bytearray(originals[name])
        for _ in range(rng.integers(1, 5)):
            place = int(rng.integers(len(data)))
            byte = int(rng.choice(marks)) if rng.random() < 0.7 else int(rng.integers(256))
            match rng.integers(4):
                case 0:
                    data[place] = byte
                case 1:
                    data.insert(place, byte)
                case 2:
                    del data[place : place + int(rng.integers(1, 40))]
                case 3:
                    start = int(rng.integers(len(data)))
                    data[place:place] = data[start : start + int(rng.integers(1, 200))]
        (tmp_path / name).write_bytes(data)
        try:
            record = read_run(tmp_path)
            if attempt % 5 == 0:
                record._repr_html_()
            for layer in ("net.0.weight", "net.2.weight"):
                record.density(layer)
                Follower(tmp_path).poll()
            read += 1
        except RecordError as error:
            assert name in str(error)
            refused += 1
        (tmp_path / name).write_bytes(originals[name])
    assert refused > 800 and read > 200, (refused, read)
