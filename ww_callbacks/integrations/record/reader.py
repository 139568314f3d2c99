"""Reads the record of a run."""

from __future__ import annotations

import contextlib
import html
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson
import pandas as pd

from ww_callbacks.integrations.record.density import DensityIndex
from ww_callbacks.integrations.record.format import DENSITY_NAME, RECORD_NAME, RecordError
from ww_callbacks.integrations.record.parser import Parser, layer_frame, model_frame
from ww_callbacks.integrations.schema import Alert, RunInfo, Verdict
from ww_callbacks.spectral.detectors.base import epoch_text
from ww_callbacks.spectral.number_text import short
from ww_callbacks.spectral.printed_tables import with_errors_in_words


@dataclass(frozen=True)
class RunRecord:
    """A run, read from its record.

    Attributes:
        path: the file.
        run: the header; for a resumed run, that of the last session.
        layers: one row per layer and snapshot: ``step``, ``epoch``, ``kind``, ``layer``, ``index``, ``status``,
            ``changed``, ``frozen`` and one column per quantity (NaN, or an empty string, if it could not be computed).
        model: one row per snapshot: ``step``, ``epoch``, ``kind``, ``seconds``, ``overhead``, ``time``, ``left_out``,
            one column ``<quantity>/<statistic>`` each, and the metrics of the loop as ``metrics/<name>``.
        alerts: the alerts, in order.
        verdict: the last verdict; None during the run or if it was killed.
        last_verdict: the verdict at the last snapshot, which a killed run has too; None if there is no
            snapshot.
        torn: description of the unfinished end that was skipped after a kill; empty if there is none.
    """

    path: Path
    run: RunInfo
    layers: pd.DataFrame
    model: pd.DataFrame
    alerts: list[Alert]
    verdict: Verdict | None
    last_verdict: Verdict | None = None
    torn: str = ""
    index: DensityIndex = field(kw_only=True, repr=False, compare=False)

    def density_steps(self, layer: str) -> list[int]:
        """The steps of the snapshots that have a spectral density of ``layer``, in order.

        Raises:
            RecordError: if the file of densities is damaged.
        """
        self.index.update()
        return sorted(self.index.steps(layer).intersection(self.model["step"].tolist()))

    def density(self, layer: str, steps: Iterable[int] | None = None) -> list[dict[str, Any]]:
        """The spectral densities of ``layer``, one per snapshot that has one, in order.

        Args:
            layer: the layer's name.
            steps: only these steps; None for all.

        Raises:
            RecordError: if the file of densities is damaged, or another run has taken this one's place.
        """
        if _run_id(self.path) != self.run.run_id:
            message = f"this record now belongs to another run; the record of {self.run.run_id} was renamed"
            raise RecordError(self.path, 1, message)
        self.index.update()
        recorded = set(self.model["step"].tolist())
        return self.index.read(layer, recorded if steps is None else recorded.intersection(steps))

    def _repr_html_(self) -> str:
        """The run at a glance, for notebooks."""
        verdict, so_far = self.verdict or self.last_verdict, "" if self.verdict else " (at the last snapshot)"
        state = f"<b>{html.escape(verdict.state)}</b>{so_far}: {html.escape(verdict.reason)}" if verdict else ""
        head = (
            f"<p>Run <code>{html.escape(self.run.run_id)}</code> ({html.escape(self.run.framework)}): "
            f"{len(self.run.layers)} layers, {len(self.model)} snapshots. {state}</p>"
        )
        alerts = "".join(
            f"<li>epoch {epoch_text(alert.epoch)}: <b>{html.escape(alert.kind)}</b> {html.escape(alert.message)}</li>"
            for alert in self.alerts[-10:]
        )
        columns = ["epoch", *(name for name in self.model.columns if name.endswith(("/median", "/share_sufficient")))]
        table = with_errors_in_words(self.model.tail(10))[columns]
        shown = table.to_html(index=False, float_format=short)
        return head + (f"<ul>{alerts}</ul>" if alerts else "") + shown


def read_run(path: str | os.PathLike[str]) -> RunRecord:
    """Read the record of a run.

    Args:
        path: the file, or the folder that contains ``spectral.jsonl``.

    Returns:
        The record, up to the last complete snapshot.

    Raises:
        RecordError: if it is not a record, or is damaged before its end; the message contains the file and the line.
        FileNotFoundError: if there is no record.

    Examples:
        >>> import tempfile
        >>> import numpy as np
        >>> from ww_callbacks import SpectralMonitor
        >>> folder = tempfile.mkdtemp()
        >>> with SpectralMonitor({"w": np.eye(4)}, log_dir=folder, verbose=0) as monitor:
        ...     _ = monitor.observe(step=1, epoch=1)
        >>> read_run(folder).layers[["step", "layer", "stable_rank"]].to_records(index=False).tolist()
        [(0, 'w', 4.0), (1, 'w', 4.0)]
    """
    file = record_file(path)
    parser = Parser(file)
    torn = ""
    with file.open("rb") as stream:
        for number, line in enumerate(stream, start=1):
            if line.endswith(b"\n"):
                parser.feed(line, number)
            else:
                torn = f"an unfinished line of {len(line)} bytes"
    if parser.run is None:
        raise RecordError(file, None, "no run in it (yet): the header is missing")
    if parser.pending:
        rows = f"{len(parser.pending)} layer rows of a snapshot that was not finished"
        torn = f"{rows}, {torn}" if torn else rows
    return as_record(parser, DensityIndex(file.with_name(density_name(file))), torn)


def as_record(parser: Parser, index: DensityIndex, torn: str = "") -> RunRecord:
    """The lines parsed so far as a record."""
    assert parser.run is not None
    return RunRecord(
        path=parser.path,
        run=parser.run,
        layers=layer_frame(parser.snapshots),
        model=model_frame(parser.snapshots),
        alerts=list(parser.alerts),
        verdict=parser.verdict,
        last_verdict=parser.snapshots[-1].verdict if parser.snapshots else None,
        torn=torn,
        index=index,
    )


def _run_id(path: Path) -> Any:
    """The run in the header at ``path``, without its layers, because it is read once per layer."""
    with path.open("rb") as file, contextlib.suppress(orjson.JSONDecodeError, AttributeError):
        return orjson.loads(file.readline()).get("run_id")
    return None


def density_name(record: Path) -> str:
    """The name of the file of densities that belongs to ``record`` (``spectral.1.jsonl`` → ``spectra.1.jsonl``)."""
    stem = RECORD_NAME.removesuffix(".jsonl")
    rest = record.name.removeprefix(stem)
    return DENSITY_NAME.removesuffix(".jsonl") + rest if rest != record.name else DENSITY_NAME


def record_file(path: str | os.PathLike[str]) -> Path:
    """The record at ``path``, a file or its folder.

    Raises:
        FileNotFoundError: if there is none.
    """
    given = Path(path).expanduser()
    file = given / RECORD_NAME if given.is_dir() else given
    if not file.is_file():
        if not given.exists():
            raise FileNotFoundError(f"No record of a run at {given}: there is no such file or folder.")
        below = find_runs(given)[:3] if given.is_dir() else []
        hint = f" Did you mean {', '.join(str(run.parent) for run in below)}?" if below else ""
        raise FileNotFoundError(f"No record of a run at {given}: expected the file {file}.{hint}")
    return file


def find_runs(folder: str | os.PathLike[str]) -> list[Path]:
    """The records (``spectral.jsonl``) in ``folder`` and below, sorted by path.

    Links to folders are followed, as in TensorBoard, except links to a folder that contains them.
    """
    return sorted(_records(Path(folder), frozenset()))


def _records(folder: Path, above: frozenset[tuple[int, int]]) -> Iterator[Path]:
    """The records in ``folder`` and below; ``above`` are the devices and inodes of the folders on the way to it."""
    with contextlib.suppress(OSError):  # a folder that is not readable, or was just removed
        status = folder.stat()
        here = (status.st_dev, status.st_ino)
        if here in above:
            return
        with os.scandir(folder) as entries:
            found = list(entries)
        for entry in found:
            if entry.is_dir():
                yield from _records(Path(entry.path), above | {here})
            elif entry.name == RECORD_NAME:
                yield Path(entry.path)
