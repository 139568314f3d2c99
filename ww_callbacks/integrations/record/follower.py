"""Follows a record while training writes it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import BinaryIO, TypeVar

import pandas as pd

from ww_callbacks.integrations.record.density import DensityIndex
from ww_callbacks.integrations.record.format import RECORD_NAME
from ww_callbacks.integrations.record.parser import Parser, RecordedSnapshot, layer_frame, model_frame
from ww_callbacks.integrations.record.reader import RunRecord, as_record, density_name
from ww_callbacks.integrations.schema import Alert, RunInfo, Verdict


@dataclass(frozen=True)
class Update:
    """The new entries found by a poll.

    Attributes:
        run: the header, if a run started or was resumed since the last poll.
        snapshots: the new snapshots; :attr:`layers` and :attr:`model` are their tables.
        alerts: the new alerts.
        verdict: the verdict, if it is new.
        dropped_from: earlier entries from this step on are superseded, because the run was resumed before it; None if
            there are none; 0 if another run replaced the previous one.
    """

    run: RunInfo | None = None
    snapshots: Sequence[RecordedSnapshot] = ()
    alerts: Sequence[Alert] = ()
    verdict: Verdict | None = None
    dropped_from: int | None = None

    @cached_property
    def layers(self) -> pd.DataFrame:
        """The new snapshots' layer rows (columns as :attr:`RunRecord.layers`)."""
        return layer_frame(self.snapshots)

    @cached_property
    def model(self) -> pd.DataFrame:
        """The new snapshots' model rows (columns as :attr:`RunRecord.model`)."""
        return model_frame(self.snapshots)

    def __bool__(self) -> bool:
        """Whether anything is new."""
        return bool(self.run or self.snapshots or self.alerts or self.verdict) or self.dropped_from is not None


T = TypeVar("T")

_HEAD = 256
"""Bytes of the header, with the run's identifier, that distinguish another run at the same path."""


class Follower:
    """Reads the new lines of a record at each poll; the cost depends only on the new lines.

    Args:
        path: the record, or the folder in which it is or will be created.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        given = Path(path).expanduser()
        self.path = given if given.suffix == ".jsonl" or given.is_file() else given / RECORD_NAME
        self._restart()

    def _restart(self) -> None:
        self._parser = Parser(self.path)
        self._index = DensityIndex(self.path.with_name(density_name(self.path)))
        self._offset = 0
        self._line = 0
        self._head = b""

    @property
    def record(self) -> RunRecord | None:
        """Everything polled so far, or None if no run has started yet."""
        return as_record(self._parser, self._index) if self._parser.run is not None else None

    def poll(self) -> Update:
        """The entries written since the last poll; an empty update if there are none, or no record yet.

        Raises:
            RecordError: if the file is not a record, or is damaged.
        """
        parser = self._parser
        restarted = False
        try:
            file = self.path.open("rb")
        except FileNotFoundError:
            return Update()
        with file:
            head = file.read(_HEAD)
            if not head.startswith(self._head) or os.fstat(file.fileno()).st_size < self._offset:
                restarted = parser.run is not None
                self._restart()
                parser = self._parser
            self._head = head
            sessions, started = parser.sessions, parser.run is not None
            snapshots, alerts = list(parser.snapshots), list(parser.alerts)
            verdict = parser.verdict
            parser.dropped_from = None
            self._feed(file)
        began = parser.run is not None and (not started or parser.sessions != sessions)
        return Update(
            run=parser.run if began else None,
            snapshots=_without(parser.snapshots, snapshots),
            alerts=_without(parser.alerts, alerts),
            verdict=parser.verdict if parser.verdict is not verdict else None,
            dropped_from=0 if restarted else parser.dropped_from,
        )

    def _feed(self, file: BinaryIO) -> None:
        """Pass the new complete lines to the parser, up to the end of the last complete snapshot.

        The rest is left to the next poll: if training is killed, a resume removes it.
        """
        file.seek(self._offset)
        position, number = self._offset, self._line
        try:
            for line in file:
                if not line.endswith(b"\n"):
                    break
                number += 1
                position += len(line)
                self._parser.feed(line, number)
                if not self._parser.pending:
                    self._offset, self._line = position, number
        finally:
            self._parser.pending.clear()


def _without(items: list[T], old: list[T]) -> list[T]:
    """The ``items`` that are not in ``old``, by identity; ``old`` must stay alive until then."""
    known = set(map(id, old))
    return [item for item in items if id(item) not in known]
