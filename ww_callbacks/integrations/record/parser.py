"""Parses the lines of a record: the state machine shared by reader and follower."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pandas as pd

from ww_callbacks.integrations.record.format import RecordError, decode
from ww_callbacks.integrations.schema import SCHEMA_VERSION, Alert, RunInfo, Verdict

LAYER_COLUMNS = ("step", "epoch", "kind", "layer", "index", "status", "changed", "frozen")
MODEL_COLUMNS = ("step", "epoch", "kind", "seconds", "overhead", "time", "left_out")
METRICS = "metrics/"
_MODEL_KEYS = {"record", "step", "epoch", "kind", "seconds", "overhead", "time", "left_out", "metrics", "verdict"}


@dataclass(frozen=True)
class RecordedSnapshot:
    """One parsed snapshot.

    Attributes:
        step: optimiser steps done.
        session: number of times the run had been resumed.
        columns: column → the layers' values, in depth order.
        model: column → the model's value; the loop's metrics as ``metrics/<name>``.
        verdict: the verdict if the run ended here; None where the record does not tell.
    """

    step: int
    session: int
    columns: Mapping[str, np.ndarray]
    model: Mapping[str, Any]
    verdict: Verdict | None = None


@dataclass
class Parser:
    """The state after the lines read so far.

    When a run is resumed at some step, entries beyond that step are superseded, because the steps are repeated. The
    lines stay in the file; the parser skips them, so that a resumed run reads like one that was never interrupted.
    """

    path: Path
    run: RunInfo | None = None
    sessions: int = 0
    snapshots: list[RecordedSnapshot] = field(default_factory=list)
    alerts: list[Alert] = field(default_factory=list)
    verdict: Verdict | None = None
    pending: list[tuple[int, dict[str, Any]]] = field(default_factory=list)
    dropped_from: int | None = None
    """The first step with superseded rows since this was last set to None."""

    def feed(self, line: bytes, number: int) -> None:
        """Parse the line ``number`` (from 1), with or without its newline.

        Raises:
            RecordError: if it is not a line of a record.
        """
        try:
            value = orjson.loads(line)
        except orjson.JSONDecodeError:
            problem = "not a spectral record" if self.run is None else "damaged"
            raise RecordError(self.path, number, f"{problem}: the line is not JSON") from None
        kind = value.get("record") if isinstance(value, dict) else None
        if self.run is None and kind != "run":
            raise RecordError(self.path, number, 'not a spectral record: it should begin with `{"record":"run"`')
        try:
            if kind == "layer":
                self.pending.append((number, value))
            elif kind == "model":
                self._model(value)
            elif kind == "alert":
                self._alert(decode(Alert, value))
            elif kind == "verdict":
                self.verdict = decode(Verdict, value)
            elif kind == "run":
                self._header(value)
            else:
                raise ValueError(f"`record` is {kind!r}")
        except RecordError:
            raise
        except ValueError as error:
            raise RecordError(self.path, number, f"damaged {kind} row: {error}") from None

    def _header(self, value: dict[str, Any]) -> None:
        schema = value.get("schema")
        if type(schema) is not int or schema < 1:
            raise ValueError(f"`schema` is {schema!r}")
        if schema > SCHEMA_VERSION:
            raise ValueError(
                f"its schema is {schema} and this version reads up to {SCHEMA_VERSION}; install a newer ww-callbacks"
            )
        run = decode(RunInfo, value)
        if self.run is not None:
            if run.run_id != self.run.run_id:
                raise ValueError(
                    f"it belongs to another run, `{run.run_id}`, than the lines above, `{self.run.run_id}`"
                )
            self.sessions += 1
        self.run = run
        self.pending.clear()
        self.verdict = None
        if run.resumed_at is not None:
            self._drop(run.resumed_at + 1)

    def _drop(self, step: int) -> None:
        """Drop what earlier sessions recorded at ``step`` and later."""
        before = len(self.snapshots), len(self.alerts)
        self.snapshots = [s for s in self.snapshots if s.step < step or s.session == self.sessions]
        self.alerts = [alert for alert in self.alerts if alert.step < step]
        if before != (len(self.snapshots), len(self.alerts)):
            self.dropped_from = step if self.dropped_from is None else min(self.dropped_from, step)

    def _alert(self, alert: Alert) -> None:
        if alert not in self.alerts[-64:]:  # a snapshot that was measured again repeats its alerts
            self.alerts.append(alert)

    def _model(self, value: dict[str, Any]) -> None:
        model = _model_row(value)
        step = model["step"]
        columns: dict[str, np.ndarray] = {}
        if self.pending:
            rows = [row for _, row in self.pending]
            try:
                if any(row.get("step") != step for row in rows):
                    raise ValueError(f"the layers' rows do not belong to step {step}")
                columns = _layer_columns(rows)
            except ValueError as error:
                raise self._blame(error) from None
            columns["kind"] = np.full(len(rows), model["kind"], dtype=object)
        self.pending.clear()
        if self.snapshots and self.snapshots[-1].session < self.sessions and self.snapshots[-1].step >= step:
            self._drop_snapshots(step)
        saved = value.get("verdict")
        verdict = None if saved is None else decode(Verdict, saved)
        self.snapshots.append(RecordedSnapshot(step, self.sessions, columns, model, verdict))

    def _drop_snapshots(self, step: int) -> None:
        """A snapshot measured again at the same step after a resume replaces the first one."""
        self.snapshots = [s for s in self.snapshots if s.step < step or s.session == self.sessions]
        self.dropped_from = step if self.dropped_from is None else min(self.dropped_from, step)

    def _blame(self, error: ValueError) -> RecordError:
        """The error for the first damaged one of the pending layer rows, or for all of them."""
        for number, row in self.pending:
            try:
                _layer_columns([row])
            except ValueError as own:
                return RecordError(self.path, number, f"damaged layer row: {own}")
        return RecordError(self.path, self.pending[0][0], f"damaged layer rows from here on: {error}")


def _model_row(value: dict[str, Any]) -> dict[str, Any]:
    row: dict[str, Any] = {
        "step": _integer(value, "step"),
        "epoch": _number(value, "epoch"),
        "kind": _text(value, "kind"),
        "seconds": _number(value, "seconds"),
        "overhead": _number(value, "overhead"),
        "time": _number(value, "time"),
        "left_out": _text(value, "left_out"),
    }
    if row["kind"] not in ("full", "cheap"):
        raise ValueError(f"`kind` is {row['kind']!r}")
    metrics = value.get("metrics")
    if not isinstance(metrics, dict):
        raise ValueError(f"`metrics` is {metrics!r}")
    row.update((METRICS + name, _number(metrics, name)) for name in metrics)
    row.update((name, _number(value, name)) for name in value if name not in _MODEL_KEYS)
    return row


def _layer_columns(rows: Sequence[dict[str, Any]]) -> dict[str, np.ndarray]:
    """The rows' values column by column."""
    columns = {"frozen": [False] * len(rows), **_transpose(rows)}  # records of earlier versions do not contain it
    kinds = {"step": int, "index": int, "layer": str, "status": str, "changed": bool, "frozen": bool}
    for key, kind in kinds.items():
        values = columns.get(key, [None])
        if set(map(type, values)) != {kind}:
            raise ValueError(f"`{key}` is {next(value for value in values if type(value) is not kind)!r}"[:200])
    if not set(map(type, columns.get("epoch", [""]))) <= {float, int, type(None)}:
        raise ValueError("`epoch` is not a number")
    return {name: _values(name, values) for name, values in columns.items() if name != "record"}


def _transpose(rows: Sequence[dict[str, Any]]) -> dict[str, Sequence[Any]]:
    order = tuple(rows[0])
    if all(tuple(row) == order for row in rows):  # the common case, and several times as fast
        return dict(zip(order, zip(*(row.values() for row in rows), strict=True), strict=True))
    return {name: [row.get(name) for row in rows] for name in dict.fromkeys(name for row in rows for name in row)}


def _values(name: str, values: Sequence[Any]) -> np.ndarray:
    """A column: numbers with NaN for missing values, or texts with empty strings."""
    kinds = set(map(type, values))
    try:
        if kinds == {bool}:
            return np.array(values, dtype=bool)
        if kinds == {int} and name in ("step", "index"):
            return np.array(values, dtype=np.int64)
        if kinds <= {float, int, type(None)}:
            return np.array(values, dtype=np.float64)
    except OverflowError:
        raise ValueError(f"`{name}` contains a number that is too large") from None
    if kinds <= {str, type(None)}:
        return np.array(["" if value is None else value for value in values], dtype=object)
    wrong = next(value for value in values if type(value) not in (float, int, type(None)))
    raise ValueError(f"`{name}` is {wrong!r}"[:200])


def _integer(row: Mapping[str, Any], key: str) -> int:
    value = row.get(key)
    if type(value) is not int or not 0 <= value < 2**63:
        raise ValueError(f"`{key}` is {value!r}")
    return value


def _number(row: Mapping[str, Any], key: str) -> float:
    value = row.get(key)
    if value is None:
        return math.nan
    if type(value) not in (int, float):
        raise ValueError(f"`{key}` is {value!r}"[:200])
    return float(value)


def _text(row: Mapping[str, Any], key: str) -> str:
    value = row.get(key)
    if not isinstance(value, str):
        raise ValueError(f"`{key}` is {value!r}"[:200])
    return value


def layer_frame(snapshots: Sequence[RecordedSnapshot]) -> pd.DataFrame:
    """The tidy table of the layers: one row per layer and snapshot."""
    blocks = [snapshot.columns for snapshot in snapshots if snapshot.columns]
    names = dict.fromkeys([*LAYER_COLUMNS, *(name for block in blocks for name in block)])
    return pd.DataFrame({name: _stack(name, blocks) for name in names})


def _stack(name: str, blocks: Sequence[Mapping[str, np.ndarray]]) -> np.ndarray:
    if not blocks:
        return np.empty(0, dtype=object)
    text = any(name in block and block[name].dtype == object for block in blocks)
    parts = []
    for block in blocks:
        part = block.get(name)
        if part is None:
            size = len(block["layer"])
            part = np.full(size, "", dtype=object) if text else np.full(size, np.nan)
        elif text and part.dtype != object:  # a text quantity without a value
            part = np.full(len(part), "", dtype=object)
        parts.append(part)
    return np.concatenate(parts)


def model_frame(snapshots: Sequence[RecordedSnapshot]) -> pd.DataFrame:
    """The table of the model: one row per snapshot."""
    names = dict.fromkeys([*MODEL_COLUMNS, *(name for snapshot in snapshots for name in snapshot.model)])
    return pd.DataFrame({name: [s.model.get(name, math.nan) for s in snapshots] for name in names})
