"""The runs below a log folder, read incrementally."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ww_callbacks.integrations.figures.run_view import RunView
from ww_callbacks.integrations.record import Follower, RecordError, find_runs

POLL = 1.0
"""Seconds between two reads of the records."""
IDLE = 30.0
"""Seconds after the last request until reading stops."""
READING = "being read"
SEARCH = 5.0
"""Minimum seconds between two searches for new records; longer if a search takes long."""


@dataclass
class LiveRun:
    """One record, followed.

    Attributes:
        name: its folder below the log folder.
        follower: reads it.
        lock: held while the follower or its densities are read.
        view: the data read so far, or None.
        problem: why it cannot be read, or that it has not started; empty if there is no problem.
        version: increases with each change.
        changed: the record's modification time at the last read.
    """

    name: str
    follower: Follower
    lock: threading.Lock = field(default_factory=threading.Lock)
    view: RunView | None = None
    problem: str = READING
    version: int = 0
    changed: float = 0.0

    def poll(self) -> None:
        """Read what is new."""
        with self.lock:
            problem, fresh = "", self.view is None
            try:
                fresh |= bool(self.follower.poll())
                self.changed = self.follower.path.stat().st_mtime
            except (RecordError, OSError) as error:
                problem = str(error)
            if not fresh and problem == self.problem:
                return
            # For a damaged record, the data before the damage.
            record = self.follower.record
            if record is not None:
                self.view = RunView(record, self.name)
            elif not problem:
                problem = "the record has not started yet: its header is still being written"
            if record is not None or problem != self.problem:
                self.version += 1
            self.problem = problem

    def index(self) -> None:
        """Index the spectral densities now instead of when a layer is opened."""
        if self.view is not None:
            with self.lock, contextlib.suppress(RecordError, OSError):  # reported when the layer is opened
                self.view.record.index.update()


class LiveRuns:
    """All records below some folders, kept up to date by a thread while there are requests.

    Args:
        folders: prefix of the runs' names (may be empty) → folder.
    """

    def __init__(self, folders: Mapping[str, Path]) -> None:
        self.folders = dict(folders)
        self._runs: dict[Path, LiveRun] = {}
        self._wanted = threading.Event()
        self._searched = threading.Event()
        self._read = threading.Event()
        self._last_request = time.monotonic()
        self._next_search = 0.0
        self._start = threading.Lock()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Start reading, if not started."""
        with self._start:
            if self._thread is None:
                self._thread = threading.Thread(target=self._watch, name="spectra-records", daemon=True)
                self._thread.start()

    def __len__(self) -> int:
        """The number of records found, waiting at most a second for the first search."""
        self.start()
        self._searched.wait(1.0)
        return len(self._runs)

    def current(self, patience: float = 1.5) -> list[LiveRun]:
        """The runs by name, after reading their records, or in their state after ``patience`` seconds."""
        self.start()
        idle = time.monotonic() - self._last_request > IDLE
        self._last_request = time.monotonic()
        if idle:
            self._read.clear()
        self._wanted.set()
        self._read.wait(patience)
        return sorted(self._runs.copy().values(), key=lambda run: run.name)

    def _watch(self) -> None:
        while True:
            if time.monotonic() - self._last_request > IDLE:
                self._wanted.clear()
                self._wanted.wait()
            if time.monotonic() >= self._next_search:
                self._search()
            for run in list(self._runs.values()):
                run.poll()
            self._read.set()
            for run in list(self._runs.values()):
                run.index()
            time.sleep(POLL)

    def _search(self) -> None:
        began = time.monotonic()
        found: dict[Path, str] = {}
        for prefix, folder in self.folders.items():
            for path in find_runs(folder):
                below = path.parent.relative_to(folder).as_posix()
                found[path] = "/".join(part for part in (prefix, below) if part not in ("", ".")) or folder.name
        for path in set(self._runs) - set(found):
            del self._runs[path]
        for path, name in found.items():
            if path not in self._runs:
                self._runs[path] = LiveRun(name, Follower(path))
        took = time.monotonic() - began
        self._next_search = time.monotonic() + max(SEARCH, 20 * took)
        self._searched.set()
