"""Writing the run's own record."""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path

import orjson

from ww_callbacks.integrations.record.format import (
    DENSITY_NAME,
    RECORD_NAME,
    alert_line,
    density_line,
    header_line,
    snapshot_lines,
    verdict_line,
)
from ww_callbacks.integrations.schema import SCHEMA_VERSION, Alert, RunInfo, Snapshot, Verdict

_CLOSING = (b'{"record":"run"', b'{"record":"model"', b'{"record":"alert"', b'{"record":"verdict"')


def check_writable(folder: str | os.PathLike[str]) -> Path:
    """Make ``folder`` if need be and make sure, before training starts, that files can be written in it.

    Returns:
        The folder's absolute path.

    Raises:
        OSError: if they cannot, with what to do; of the same kind as the system's own error.
    """
    path = Path(folder).expanduser().absolute()
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path) as probe:
            probe.write(b"\n" * 4096)
    except OSError as error:
        reason = error.strerror or str(error)
        remedy = "Make the folder writable or free some space, or name another folder for the record"
        if isinstance(error, FileExistsError | NotADirectoryError):
            reason, remedy = "there is a file of that name", "Name another folder for the record"
        raise type(error)(
            error.errno,
            f"The spectral record cannot be written ({reason}). {remedy}",
            str(path),
        ) from error
    return path


class RecordSink:
    """Writes ``spectral.jsonl`` and, where densities are kept, ``spectra.jsonl`` in the run's folder.

    A snapshot goes out in one append, so that a kill at any byte costs at most the snapshot that was being written. A
    run that is taken up again is appended to the same file, after a tail that such a kill left was cut off; another
    run's record is first moved aside to ``spectral.1.jsonl`` (2, 3, …): nothing is ever overwritten.

    Args:
        folder: the run's folder; None takes :attr:`RunInfo.directory <ww_callbacks.integrations.schema.RunInfo>`.
    """

    name = "record"

    def __init__(self, folder: str | os.PathLike[str] | None = None) -> None:
        self._folder = folder
        self._record: AppendFile | None = None
        self._density: AppendFile | None = None

    def open(self, run: RunInfo, resumed: bool) -> None:
        """Write the header.

        Raises:
            OSError: if the folder cannot be written.
        """
        folder = check_writable(self._folder if self._folder is not None else run.directory)
        path = folder / RECORD_NAME
        if resumed and _last_run_id(path) == run.run_id:
            _cut(path, _CLOSING)
            _cut(folder / DENSITY_NAME)
        else:
            _move_aside(folder)
        self._record = AppendFile(path)
        self._density = AppendFile(folder / DENSITY_NAME)
        self._record.append(header_line(run, resumed, SCHEMA_VERSION))

    def snapshot(self, snapshot: Snapshot) -> None:
        """Append a snapshot: first the densities, so that the model's row vouches for them too."""
        densities = [density_line(snapshot, row) for row in snapshot.rows if row.density is not None]
        if densities:
            self._opened(self._density).append(b"".join(densities))
        self._opened(self._record).append(snapshot_lines(snapshot))

    def alert(self, alert: Alert) -> None:
        """Append an alert."""
        self._opened(self._record).append(alert_line(alert))

    def close(self, verdict: Verdict | None) -> None:
        """Append the verdict and see that everything lies on the disk."""
        try:
            if verdict is not None and self._record is not None:
                self._record.append(verdict_line(verdict))
        finally:
            for file in (self._density, self._record):
                if file is not None:
                    file.close()
            self._density = self._record = None

    @staticmethod
    def _opened(file: AppendFile | None) -> AppendFile:
        if file is None:
            raise RuntimeError("The record is not open: call `open` first.")
        return file


class AppendFile:
    """A file that grows by whole appends: one that fails leaves nothing behind. It is made by the first of them."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor: int | None = None

    def __getstate__(self) -> dict[str, object]:
        return {"path": self.path, "_descriptor": None}  # a copy opens the file for itself

    def append(self, data: bytes) -> None:
        """Append ``data``.

        Raises:
            OSError: if the system does; what was written of ``data`` is then taken back, if that is possible.
        """
        if self._descriptor is None:
            self._descriptor = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o666)
        before = os.fstat(self._descriptor).st_size
        view = memoryview(data)
        try:
            while view:
                view = view[os.write(self._descriptor, view) :]
        except OSError as error:
            with contextlib.suppress(OSError):
                os.ftruncate(self._descriptor, before)
            raise OSError(error.errno, error.strerror, str(self.path)) from error

    def close(self) -> None:
        """See that everything lies on the disk, and close."""
        if self._descriptor is not None:
            descriptor, self._descriptor = self._descriptor, None
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)


def _last_run_id(path: Path) -> str | None:
    """The run whose header is the last in ``path``; None where there is no header."""
    found = None
    with contextlib.suppress(FileNotFoundError, IsADirectoryError), path.open("rb") as file:
        for line in file:
            if line.startswith(_CLOSING[0]) and line.endswith(b"\n"):
                with contextlib.suppress(orjson.JSONDecodeError, AttributeError):
                    found = orjson.loads(line).get("run_id")
    return found


def _cut(path: Path, closing: tuple[bytes, ...] = (b"{",)) -> None:
    """Cut off what a kill left: everything after the last whole line that begins with one of ``closing``."""
    with contextlib.suppress(FileNotFoundError), path.open("r+b") as file:
        end = position = 0
        for line in file:
            position += len(line)
            if line.endswith(b"\n") and line.startswith(closing):
                end = position
        if end < position:
            file.truncate(end)


def _move_aside(folder: Path) -> None:
    """Rename the record of an earlier run in ``folder``, and its densities with the same number."""
    names = [name for name in (RECORD_NAME, DENSITY_NAME) if (folder / name).exists()]
    if not names:
        return
    number = 1
    while any(numbered(folder / name, number).exists() for name in (RECORD_NAME, DENSITY_NAME)):
        number += 1
    for name in names:
        (folder / name).rename(numbered(folder / name, number))


def numbered(path: Path, number: int) -> Path:
    """``spectral.jsonl`` → ``spectral.1.jsonl``."""
    return path.with_name(f"{path.stem}.{number}{path.suffix}")
