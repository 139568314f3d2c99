"""Measures the rows of many layers, with a time limit and a file from which an interrupted analysis resumes."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from threading import Lock
from time import monotonic
from typing import TYPE_CHECKING, Any

from ww_callbacks import __version__

if TYPE_CHECKING:
    from ww_callbacks.spectral.layers.spec import LayerSpec
    from ww_callbacks.spectral.measuring.registry import Value

Row = dict[str, "Value"]
_WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".gguf", ".onnx", ".data", ".keras", ".h5")
Progress = Callable[[int, int, str], object]
"""Called with the number of layers done, the number of layers, and the name of the last one.

If it has a method ``begin``, that is called with the name of each layer that is started; if it has a method ``share``,
that is called before it with the finished share of the work, by cost.
"""

_EACH = 4e6
"""Fixed cost of a layer besides its spectrum, in multiplications."""


class RowFile:
    """Rows stored in a file, one JSON line each, after a header line that describes their source.

    Nothing is written before the first row. A truncated line, for example after a power failure, is measured again.

    Args:
        path: the file.
        of: the source of the rows: the model's files, the quantities, the settings.

    Raises:
        ValueError: if the file contains rows of another source, or other data.
        FileNotFoundError: if its folder does not exist.
    """

    def __init__(self, path: str | os.PathLike[str], of: Mapping[str, Any]) -> None:
        self.path = Path(path)
        self.rows: dict[str, Row] = {}
        self._of = json.loads(json.dumps({"ww-callbacks": __version__, **of}))
        self._lock = Lock()
        if not self.path.parent.is_dir():
            raise FileNotFoundError(f"Cannot write rows to {self.path}: the folder {self.path.parent} does not exist.")
        lines = self.path.read_bytes().split(b"\n")[:-1] if self.path.exists() else []
        if self.path.exists() and self.path.stat().st_size:
            self._check(lines)
        for line in lines[1:]:
            try:
                row = json.loads(line)
                self.rows[row["layer"]] = row
            except (ValueError, KeyError, TypeError):
                break  # rows after a damaged line are measured again
        self._begun = False

    def _check(self, lines: Sequence[bytes]) -> None:
        try:
            there = json.loads(lines[0])
            different = sorted(key for key in {*there, *self._of} if there.get(key) != self._of.get(key))
        except (ValueError, IndexError, TypeError, AttributeError):
            raise ValueError(f"{self.path} contains no rows of an analysis: choose another file.") from None
        if different:
            raise ValueError(
                f"{self.path} contains the rows of another analysis ({', '.join(different)} differ): "
                "choose another file, or remove it to start again."
            )

    def add(self, row: Row) -> None:
        """Append a row; it is on disk when this returns."""
        with self._lock:
            if not self._begun:
                # The file is rewritten, so that a truncated line does not corrupt the next one.
                known = [json.dumps(line, default=_plain) for line in (self._of, *self.rows.values())]
                partial = self.path.with_name(self.path.name + ".partial")
                partial.write_text("".join(f"{line}\n" for line in known), encoding="utf-8")
                os.replace(partial, self.path)
                self._begun = True
            self.rows[str(row["layer"])] = row
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row, default=_plain) + "\n")


def _plain(value: Any) -> Any:
    return value.item()  # a scalar of NumPy


def collect(
    perform: Callable[[Callable[[LayerSpec], Row | None], Sequence[LayerSpec]], list[Row | None]],
    row: Callable[[LayerSpec], Row],
    specs: Sequence[LayerSpec],
    *,
    progress: Progress | None = None,
    max_time: float | None = None,
    kept: RowFile | None = None,
) -> tuple[list[Row], tuple[str, ...]]:
    """The rows of ``specs`` in their order, and the names of those that the time limit left out.

    Args:
        perform: maps a function over the layers in parallel.
        row: measures one layer.
        specs: the layers.
        progress: called after each layer, by one thread at a time.
        max_time: seconds after which no further layer starts; the cheapest layers are then measured first.
        kept: rows of an earlier analysis, to which new ones are appended.
    """
    rows: dict[str, Row] = {} if kept is None else {s.name: kept.rows[s.name] for s in specs if s.name in kept.rows}
    end = math.inf if max_time is None else monotonic() + max_time
    lock = Lock()
    begin, share = getattr(progress, "begin", None), getattr(progress, "share", None)
    costs = {spec.name: _EACH + spec.cost for spec in specs}
    done, all_of_it = sum(costs[name] for name in rows), sum(costs.values())

    def tell(name: str) -> None:
        if share is not None:
            share(done / all_of_it)
        if progress is not None:
            progress(len(rows), len(specs), name)

    if rows:
        tell(next(reversed(rows)))

    def measure(spec: LayerSpec) -> Row | None:
        nonlocal done
        if monotonic() >= end:
            return None
        if begin is not None:
            begin(spec.name)
        result = row(spec)
        if kept is not None:
            kept.add(result)
        with lock:
            rows[spec.name] = result
            done += costs[spec.name]
            tell(spec.name)
        return result

    todo = [spec for spec in specs if spec.name not in rows]
    if todo:
        perform(measure, todo if max_time is None else sorted(todo, key=lambda spec: spec.cost))
    return [rows[s.name] for s in specs if s.name in rows], tuple(s.name for s in specs if s.name not in rows)


def check_max_time(max_time: float | None) -> None:
    """Raise if ``max_time`` is not a positive number of seconds.

    Raises:
        ValueError: if it is not.
    """
    if max_time is None:
        return
    if isinstance(max_time, bool) or not isinstance(max_time, int | float) or not max_time > 0:
        raise ValueError(f"Expected `max_time` to be a positive number of seconds, or None, but got {max_time!r}.")


def files_of(source: Any, argument: str) -> list[list[Any]]:
    """The identity of the files of ``source``: their names, sizes and modification times.

    Raises:
        ValueError: if it is not the path of a file or folder.
    """
    if not isinstance(source, str | os.PathLike):
        raise ValueError(f"`resume` needs `{argument}` to be the path of a file or folder.")
    name = str(source)
    path = next((p for p in (Path(name), Path(name.rpartition(":")[0])) if str(p) != "." and p.exists()), Path(name))
    files = [path] if not path.is_dir() else [p for p in sorted(path.rglob("*")) if p.suffix in _WEIGHTS]
    stats = [(p, p.stat()) for p in files if p.is_file()]
    return [[str(Path(name).absolute())], *([str(p), stat.st_size, stat.st_mtime_ns] for p, stat in stats)]
