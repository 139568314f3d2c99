"""Conversion between objects and lines of the record.

A record is a file of JSON objects, one per line. ``record`` is the kind of line: ``run``, ``layer``, ``model``,
``alert``, ``verdict``. The lines are strictly valid JSON: NaN and infinities are written as null and come back as NaN.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import types
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import orjson

from ww_callbacks.integrations.schema import Alert, RunInfo, Snapshot, Verdict
from ww_callbacks.spectral.measuring.accuracy import ERROR

RECORD_NAME = "spectral.jsonl"
DENSITY_NAME = "spectra.jsonl"
SIGNIFICANT = 6
"""Significant digits of the stored spectral densities, which are only drawn."""

_POWERS = 10.0 ** np.arange(23)
"""The powers of ten that float64 represents exactly."""

_LINE = orjson.OPT_APPEND_NEWLINE | orjson.OPT_SERIALIZE_NUMPY

_LINES, _TOGETHER = 64, 1 << 13
"""Lines and numbers that are rounded together: they and what is computed from them fit into a core's cache."""

T = TypeVar("T")


class RecordError(ValueError):
    """A file is not a record, or is damaged; the message contains the file and the line."""

    def __init__(self, path: Path, line: int | None, problem: str) -> None:
        where = f"{path}, line {line}" if line is not None else f"{path}"
        super().__init__(f"{where}: {problem}")
        self.path = path
        self.line = line


def encode(record: Mapping[str, Any]) -> bytes:
    """``record`` as one line of JSON with a newline; values that JSON does not support are written as strings."""
    try:
        return orjson.dumps(record, default=_describe, option=_LINE)
    except TypeError:  # an integer beyond 64 bits, a key that is not a string, a lone surrogate in a path
        return orjson.dumps(plain(record), option=_LINE)


def header_line(run: RunInfo, resumed: bool, schema: int) -> bytes:
    """The line at the start of a run, and each time it is resumed."""
    return encode({"record": "run", "schema": schema, "resumed": resumed, **dataclasses.asdict(run)})


def snapshot_lines(snapshot: Snapshot) -> bytes:
    """A snapshot's lines: one per layer, then the model's, which completes it."""
    lines = [
        encode(
            {
                "record": "layer",
                "step": snapshot.step,
                "epoch": snapshot.epoch,
                "layer": row.layer,
                "index": row.index,
                "status": row.status,
                "changed": row.changed,
                "frozen": row.frozen,
                **row.values,
                **({name + ERROR: error for name, error in row.errors.items()} if row.errors else {}),
            }
        )
        for row in snapshot.rows
    ]
    model = {
        "record": "model",
        "step": snapshot.step,
        "epoch": snapshot.epoch,
        "kind": snapshot.kind,
        "seconds": snapshot.seconds,
        "overhead": snapshot.overhead,
        "time": snapshot.time,
        "left_out": snapshot.left_out,
        "metrics": snapshot.metrics,
        **snapshot.model,
    }
    if snapshot.verdict is not None:
        model["verdict"] = dataclasses.asdict(snapshot.verdict)
    return b"".join([*lines, encode(model)])


def density_lines(snapshot: Snapshot) -> bytes:
    """The lines of the layers' spectral densities, with numbers rounded to :data:`SIGNIFICANT` digits."""
    # Many layers at once, because the overhead of single calls dominates.
    drawn = [(row.layer, row.density) for row in snapshot.rows if row.density is not None]
    lines: list[bytes] = []
    for start in range(0, len(drawn), _LINES):
        numbers = _Numbers()
        copies = [
            numbers.copied(density, {"step": snapshot.step, "epoch": snapshot.epoch, "layer": layer})
            for layer, density in drawn[start : start + _LINES]
        ]
        numbers.put_back()
        lines += map(encode, copies)
    return b"".join(lines)


class _Numbers:
    """The numbers of many mappings, to be rounded together."""

    def __init__(self) -> None:
        self._singles: list[float] = []
        self._places: list[tuple[dict[str, Any], str]] = []
        self._arrays: list[np.ndarray] = []
        self._array_places: list[tuple[dict[str, Any], str]] = []

    def copied(self, source: Mapping[str, Any], copy: dict[str, Any]) -> dict[str, Any]:
        """``copy`` with the items of ``source``, complete after :meth:`put_back`."""
        for key, value in source.items():
            kind = type(value)
            if kind is float:
                copy[key] = value  # keeps the order of the keys
                self._singles.append(value)
                self._places.append((copy, key))
            elif kind is np.ndarray and value.ndim == 1 and value.dtype.kind in "fi":
                copy[key] = value
                if value.dtype.kind == "f":
                    self._arrays.append(value)
                    self._array_places.append((copy, key))
            elif isinstance(value, Mapping):
                copy[key] = self.copied(value, {})
            else:
                copy[key] = _rounded(value)
        return copy

    def put_back(self) -> None:
        """Fill the copies with the rounded numbers."""
        for (copy, key), single in zip(self._places, _rounded_floats(self._singles).tolist(), strict=True):
            copy[key] = single
        rounded, start = _rounded_floats(np.concatenate([*self._arrays, np.empty(0)])), 0
        for (copy, key), array in zip(self._array_places, self._arrays, strict=True):
            copy[key] = rounded[start : start + len(array)]
            start += len(array)


def alert_line(alert: Alert) -> bytes:
    """The line of an alert."""
    return encode({"record": "alert", **dataclasses.asdict(alert)})


def verdict_line(verdict: Verdict) -> bytes:
    """The line of a verdict."""
    return encode({"record": "verdict", **dataclasses.asdict(verdict)})


def decode(cls: type[T], value: Any) -> T:
    """Convert ``value``, read from JSON, to ``cls`` of the schema.

    Unknown keys are ignored, so that old readers can read records with new fields.

    Raises:
        ValueError: if a field is missing or has the wrong type; the message names it.
    """
    if not isinstance(value, dict):
        raise ValueError(f"expected the fields of {cls.__name__}, found {_show(value)}")
    hints = _hints(typing.cast(Any, cls))
    fields: dict[str, Any] = {}
    for field in dataclasses.fields(cls):  # type: ignore[arg-type]
        if field.name in value:
            fields[field.name] = _decode(hints[field.name], value[field.name], field.name)
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise ValueError(f"`{field.name}` is missing")
    return cls(**fields)


@functools.cache
def _hints(cls: Any) -> dict[str, Any]:
    return typing.get_type_hints(cls)


def _decode(hint: Any, value: Any, name: str) -> Any:
    """Convert ``value`` to the type ``hint``; ``name`` is used in the error."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return value
    if hint is float:
        if value is None:
            return math.nan
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            return float(value)
    elif hint in (int, str, bool):
        if type(value) is hint:
            return value
    elif origin is typing.Literal:
        if value in arguments:
            return value
    elif origin in (typing.Union, types.UnionType):
        if value is None and type(None) in arguments:
            return None
        for argument in arguments:
            try:
                return _decode(argument, value, name)
            except ValueError:
                continue
    elif origin is tuple and isinstance(value, list):
        inner = [arguments[0]] * len(value) if arguments[1:] == (Ellipsis,) else arguments
        if len(inner) == len(value):
            return tuple(_decode(hint, item, name) for hint, item in zip(inner, value, strict=True))
    elif isinstance(origin, type) and issubclass(origin, Mapping) and isinstance(value, dict):
        return {key: _decode(arguments[1], item, f"{name}.{key}") for key, item in value.items()}
    elif dataclasses.is_dataclass(hint):
        return decode(typing.cast(type, hint), value)
    raise ValueError(f"`{name}` is {_show(value)}")


def _show(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}…"


def _describe(value: Any) -> Any:
    """The replacement for a value that JSON does not support: a path, a function, a set, an object."""
    if isinstance(value, (set, frozenset)):
        return sorted(value, key=str)
    if isinstance(value, Iterable) and isinstance(value, Mapping):
        return dict(value)
    name = getattr(value, "__qualname__", None)
    if isinstance(value, Callable) and name:  # type: ignore[arg-type]
        return f"{value.__module__}.{name}"
    return str(value)


def plain(value: Any) -> Any:
    """``value`` with everything that orjson rejects replaced, recursively."""
    if isinstance(value, Mapping):
        return {str(plain(key)): plain(item) for key, item in value.items()}
    if isinstance(value, (set, frozenset)):
        return [plain(item) for item in sorted(value, key=str)]
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, int) and not -(2**63) <= value < 2**64:
        return str(value)
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode("utf-8")
    try:
        orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY)
    except TypeError:
        return plain(str(_describe(value)))
    return value


def _rounded(value: Any) -> Any:
    """``value`` with its numbers rounded."""
    if isinstance(value, float):
        return float(f"{value:.{SIGNIFICANT}g}") if math.isfinite(value) else math.nan
    if isinstance(value, Mapping):
        return {key: _rounded(item) for key, item in value.items()}
    if hasattr(value, "tolist"):
        return _rounded(value.tolist())
    if isinstance(value, (list, tuple)):
        kinds = set(map(type, value))
        if kinds == {float}:
            return _rounded_floats(value)
        return list(value) if kinds == {int} else [_rounded(item) for item in value]
    return value


def _rounded_floats(values: Sequence[float] | np.ndarray) -> np.ndarray:
    """Round many numbers, with the same result as one by one; non-finite and extreme ones are rounded singly."""
    numbers = np.array(values, dtype=np.float64)
    for start in range(0, len(numbers), _TOGETHER):
        _round(numbers[start : start + _TOGETHER])
    return numbers


def _round(numbers: np.ndarray) -> None:
    """Round an array in place."""
    with np.errstate(all="ignore"):
        magnitude = np.abs(numbers)
        shift = SIGNIFICANT - 1 - np.floor(np.log10(np.where(magnitude > 0.0, magnitude, 1.0)))
        usual = np.abs(shift) < len(_POWERS)  # false for NaN and infinity too
        shift = np.where(usual, shift, 0.0).astype(np.intp)
        power = _POWERS[np.abs(shift)]
        up = shift >= 0
        whole = np.round(np.where(up, numbers * power, numbers / power))
        rounded = np.where(up, whole / power, whole * power)
    for at in np.flatnonzero(~usual).tolist():
        rounded[at] = _rounded(float(numbers[at]))
    numbers[:] = rounded
