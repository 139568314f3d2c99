"""Writes the record of a run."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import orjson

from ww_callbacks.integrations.record.format import (
    DENSITY_NAME,
    RECORD_NAME,
    alert_line,
    density_lines,
    header_line,
    snapshot_lines,
    verdict_line,
)
from ww_callbacks.integrations.schema import SCHEMA_VERSION, Alert, RunInfo, Snapshot, Verdict

_CLOSING = (b'{"record":"run"', b'{"record":"model"', b'{"record":"alert"', b'{"record":"verdict"')


def check_writable(folder: str | os.PathLike[str]) -> Path:
    """Create ``folder`` if needed and check, before training starts, that it is writable.

    Returns:
        The folder's absolute path.

    Raises:
        OSError: if it is not writable; of the same type as the system's error, with a remedy in the message.
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


def claim(wanted: str | os.PathLike[str]) -> Path:
    """Claim a folder for a new record, so that no other process uses it.

    An empty record file is created at once. If several processes claim ``wanted`` at the same time, one gets it and the
    others get its sub-folders ``run-2``, ``run-3``, ….

    Args:
        wanted: the folder, or one returned by :func:`free_directory`.

    Returns:
        The claimed folder.

    Raises:
        OSError: if it is not writable.
    """
    folder = Path(wanted).absolute()
    if re.fullmatch(r"run-\d+", folder.name) and (folder.parent / RECORD_NAME).exists():
        folder = folder.parent  # another process may have claimed this number since
    for candidate in _candidates(folder):
        candidate.mkdir(parents=True, exist_ok=True)
        try:
            os.close(os.open(candidate / RECORD_NAME, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666))
        except FileExistsError:
            continue
        return candidate
    raise FileExistsError(f"There are too many records in {folder}: choose another folder.")


def free_directory(wanted: Path) -> Path:
    """``wanted``, or its first sub-folder ``run-2``, ``run-3``, … without a record."""
    return next(folder for folder in _candidates(wanted) if not (folder / RECORD_NAME).exists())


def _candidates(folder: Path) -> Iterator[Path]:
    yield folder
    for number in range(2, 10_000):
        yield folder / f"run-{number}"


class RecordSink:
    """Writes ``spectral.jsonl`` and, if densities are kept, ``spectra.jsonl`` in the run's folder.

    A snapshot is written in one append, so that a kill at any byte loses at most the snapshot that was being written. A
    resumed run is appended to the same file, after an incomplete end was removed. The record of another run is first
    renamed to ``spectral.1.jsonl`` (2, 3, …): nothing is ever overwritten.

    Lines that cannot be written (full disk, unreachable file system) are kept in memory and written first at the next
    call. If the record is deleted during the run, a new one starts, with a warning.

    Args:
        folder: the run's folder; None for :attr:`RunInfo.directory <ww_callbacks.integrations.schema.RunInfo>`.
        warn: called with a message if the record was deleted; None logs it.
    """

    name = "record"
    keeps_what_failed = True

    def __init__(
        self, folder: str | os.PathLike[str] | None = None, warn: Callable[[str], object] | None = None
    ) -> None:
        self._folder = folder
        self._warn = warn
        self._header = b""
        self._continues: str | None = None
        self._ready = False
        self._record: AppendFile | None = None
        self._density: AppendFile | None = None

    def open(self, run: RunInfo, resumed: bool) -> None:
        """Write the header.

        Raises:
            OSError: if the folder is not writable.
        """
        folder = Path(self._folder if self._folder is not None else run.directory).expanduser().absolute()
        self._record, self._density = AppendFile(folder / RECORD_NAME), AppendFile(folder / DENSITY_NAME)
        self._continues = run.run_id if resumed else None
        self._header = header_line(run, resumed, SCHEMA_VERSION)
        self._ready = False
        self._record.keep(self._header)
        self._write()

    def snapshot(self, snapshot: Snapshot) -> None:
        """Append a snapshot.

        Raises:
            OSError: if it cannot be written now; it is kept for the next call.
        """
        if lines := density_lines(snapshot):
            self._opened(self._density).keep(lines)
        self._opened(self._record).keep(snapshot_lines(snapshot))
        self._write()

    def alert(self, alert: Alert) -> None:
        """Append an alert.

        Raises:
            OSError: if it cannot be written now; it is kept for the next call.
        """
        self._opened(self._record).keep(alert_line(alert))
        self._write()

    def close(self, verdict: Verdict | None) -> None:
        """Append the verdict and make sure that everything is on disk.

        Raises:
            OSError: if the record cannot be completed.
        """
        try:
            if self._record is not None:
                if verdict is not None:
                    self._record.keep(verdict_line(verdict))
                self._write(at_the_end=True)
        finally:
            for file in (self._density, self._record):
                if file is not None:
                    file.close()
            self._density = self._record = None

    def _write(self, at_the_end: bool = False) -> None:
        """Write the pending lines: first the densities, so that the model's row confirms them too."""
        record, density = self._opened(self._record), self._opened(self._density)
        if not self._ready:
            self._prepare(check_writable(record.path.parent))
            self._ready = True
        if record.deleted:
            self._begin_anew(record, density)
        record.path.parent.mkdir(parents=True, exist_ok=True)
        if not at_the_end:
            density.write()
            record.write()
            return
        with contextlib.suppress(OSError):
            density.write_what_fits()
        record.write_what_fits()

    def _prepare(self, folder: Path) -> None:
        """Remove the incomplete end of the run that continues, or rename another run's record."""
        path = folder / RECORD_NAME
        if self._continues is not None and _last_run_id(path) == self._continues:
            _cut(path, _CLOSING)
            _cut(folder / DENSITY_NAME)
        else:
            _move_aside(folder)

    def _begin_anew(self, record: AppendFile, density: AppendFile) -> None:
        density.begin_anew()
        record.begin_anew(self._header)
        message = f"{record.path} was deleted during the run, so a new record starts with this snapshot"
        if self._warn is not None:
            self._warn(message)
        else:
            logging.getLogger("ww_callbacks").warning("ww-callbacks: %s.", message)

    @staticmethod
    def _opened(file: AppendFile | None) -> AppendFile:
        if file is None:
            raise RuntimeError("The record is not open: call `open` first.")
        return file


class AppendFile:
    """A file with atomic appends: a failed one leaves nothing in the file, and is kept for the next call.

    The first append creates the file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor: int | None = None
        self._size: int | None = None
        self._waiting: list[bytes] = []

    def __getstate__(self) -> dict[str, object]:
        # A copy opens the file itself.
        return {"path": self.path, "_descriptor": None, "_size": None, "_waiting": []}

    @property
    def deleted(self) -> bool:
        """Whether the file was deleted, replaced or truncated."""
        if self._size is None:
            return False
        try:
            there = os.stat(self.path)
        except FileNotFoundError:
            return True
        if there.st_size < self._size:
            return True
        return self._descriptor is not None and not os.path.samestat(os.fstat(self._descriptor), there)

    def keep(self, data: bytes) -> None:
        """Queue ``data`` for the next :meth:`write`."""
        self._waiting.append(data)

    def begin_anew(self, first: bytes = b"") -> None:
        """Detach from the former file; the next one starts with ``first``."""
        self._forget()
        self._size = None
        if first and first not in self._waiting:
            self._waiting.insert(0, first)

    def write(self) -> None:
        """Append the pending data, in order.

        Raises:
            OSError: if writing fails; unwritten data is kept for the next call, and partially written data is removed.
        """
        while self._waiting:
            self._append(self._waiting[0])
            self._waiting.pop(0)

    def write_what_fits(self) -> None:
        """Append as much as possible at the end, and drop the rest.

        Raises:
            OSError: if something could not be written.
        """
        failed: OSError | None = None
        for data in self._waiting:
            try:
                self._append(data)
            except OSError as error:
                failed = error
        self._waiting.clear()
        if failed is not None:
            raise failed

    def _append(self, data: bytes) -> None:
        try:
            if self._descriptor is None:
                flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
                self._descriptor = os.open(self.path, flags, 0o666)
            found = os.fstat(self._descriptor).st_size
            if self._size is None:
                self._size = found
            elif found > self._size:  # of a failed append that could not be undone at the time
                os.ftruncate(self._descriptor, self._size)
            view = memoryview(data)
            while view:
                view = view[os.write(self._descriptor, view) :]
        except OSError as error:
            self._take_back()
            raise OSError(error.errno, error.strerror, str(self.path)) from error
        self._size += len(data)

    def _take_back(self) -> None:
        """Undo a failed append; the next call opens the file again, because a handle may be stale."""
        if self._descriptor is not None and self._size is not None:
            with contextlib.suppress(OSError):
                os.ftruncate(self._descriptor, self._size)
        self._forget()

    def _forget(self) -> None:
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            with contextlib.suppress(OSError):
                os.close(descriptor)

    def close(self) -> None:
        """Make sure that everything is on disk, and close."""
        if self._descriptor is not None:
            descriptor, self._descriptor = self._descriptor, None
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)


def _last_run_id(path: Path) -> str | None:
    """The identifier of the run with the last header in ``path``; None if there is no header."""
    found = None
    with contextlib.suppress(FileNotFoundError, IsADirectoryError), path.open("rb") as file:
        for line in file:
            if line.startswith(_CLOSING[0]) and line.endswith(b"\n"):
                with contextlib.suppress(orjson.JSONDecodeError, AttributeError):
                    found = orjson.loads(line).get("run_id")
    return found


def _cut(path: Path, closing: tuple[bytes, ...] = (b"{",)) -> None:
    """Remove everything after the last complete line that begins with one of ``closing``."""
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
    files = [folder / name for name in (RECORD_NAME, DENSITY_NAME)]
    names = [file.name for file in files if file.exists() and file.stat().st_size]  # an empty record was just claimed
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
