"""Finds the record of a training that ran in child processes, whose callback objects no longer exist."""

from __future__ import annotations

import json
import os
import tempfile
import uuid
from pathlib import Path


class ChildRecord:
    """A message from a child process to the process that created the callback (``ddp_spawn``, notebooks).

    Both know its name, because the child has a copy of the callback. The message is a small file in the system's
    temporary folder; reading removes it.
    """

    def __init__(self) -> None:
        self._path = Path(tempfile.gettempdir()) / f"ww-callbacks-{uuid.uuid4().hex}.json"
        self._process = os.getpid()

    def leave(self, directory: Path) -> None:
        """Write the record's folder, if this is a child process.

        Raises:
            OSError: if it cannot be written.
        """
        if os.getpid() != self._process:
            self._path.write_text(json.dumps(str(directory.absolute())), encoding="utf-8")

    def take(self) -> Path | None:
        """The record's folder that a child has written since the last call, or None."""
        if os.getpid() != self._process or not self._path.exists():
            return None
        directory = Path(json.loads(self._path.read_text(encoding="utf-8")))
        self._path.unlink()
        return directory
