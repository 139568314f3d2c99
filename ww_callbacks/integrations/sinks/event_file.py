"""A TensorBoard event file, written with TensorBoard's protocol buffers and framing, but without TensorFlow.

TensorBoard's ``EventFileWriter`` opens its file through ``tensorboard.compat.tf``. If TensorFlow is installed, that
imports it, which takes several seconds.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import socket
import time
from pathlib import Path
from typing import Any

_numbers = itertools.count()
"""Distinguishes files of one process created in the same second; TensorBoard reads them in the order of their names."""


class EventFile:
    """An event file open for writing, in a folder that is created if missing.

    If the file is deleted during the run, a new one is created.

    Args:
        folder: folder of the file.

    Raises:
        OSError: if it cannot be written.
    """

    def __init__(self, folder: Path) -> None:
        from tensorboard.compat.proto.event_pb2 import Event

        self._event = Event
        self._folder = folder
        self._begin()

    def _begin(self) -> None:
        from tensorboard.summary.writer.record_writer import RecordWriter

        self._folder.mkdir(parents=True, exist_ok=True)
        name = f"events.out.tfevents.{int(time.time()):010d}.{socket.gethostname()}.{os.getpid()}.{next(_numbers)}"
        self._path = self._folder / name
        self._records = RecordWriter(self._path.open("wb"))
        self._write(self._event(wall_time=time.time(), file_version="brain.Event:2"))

    def add(self, summary: Any, step: int) -> None:
        """Write a ``Summary`` and flush it, so that live pages show it.

        Raises:
            OSError: if it cannot be written.
        """
        if not self._path.exists():
            with contextlib.suppress(OSError):
                self._records.close()
            self._begin()
        self._write(self._event(wall_time=time.time(), step=step, summary=summary))

    def _write(self, event: Any) -> None:
        self._records.write(event.SerializeToString())
        self._records.flush()

    def close(self) -> None:
        """Close the file."""
        self._records.close()
