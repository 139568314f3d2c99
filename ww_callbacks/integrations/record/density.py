"""The spectral densities stored with a record: indexed, and read only when a view needs them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, TypeGuard

import orjson

from ww_callbacks.integrations.record.format import RecordError

_PREFIX = re.compile(rb'\{"step":(\d{1,18}),"epoch":[^,{}\[\]]{1,32},"layer":("(?:[^"\\]|\\.)*")')


class DensityIndex:
    """The positions in ``spectra.jsonl`` of each layer's density at each step; grows with the file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._offset = 0
        self._line = 0
        self._places: dict[str, dict[int, tuple[int, int, int]]] = {}

    def update(self) -> None:
        """Index what was appended since the last call.

        Raises:
            RecordError: if a line is not a density.
        """
        try:
            file = self.path.open("rb")
        except FileNotFoundError:
            return
        with file:
            file.seek(self._offset)
            for line in file:
                if not line.endswith(b"\n"):
                    break
                self._line += 1
                match = _PREFIX.match(line)
                if match is None:
                    raise RecordError(self.path, self._line, "not the spectral density of a layer")
                try:
                    layer = orjson.loads(match[2])
                except orjson.JSONDecodeError:
                    raise RecordError(self.path, self._line, "the layer's name is damaged") from None
                # The last one is used: after a resume the same step is measured again.
                self._places.setdefault(layer, {})[int(match[1])] = (self._offset, len(line), self._line)
                self._offset += len(line)

    def layers(self) -> list[str]:
        """The layers with a density."""
        return list(self._places)

    def steps(self, layer: str) -> set[int]:
        """The steps with a density of ``layer``."""
        return set(self._places.get(layer, ()))

    def read(self, layer: str, steps: set[int]) -> list[dict[str, Any]]:
        """The densities of ``layer`` at the available ones of ``steps``, in order of step.

        Raises:
            RecordError: if a line is damaged.
        """
        places = sorted((step, *place) for step, place in self._places.get(layer, {}).items() if step in steps)
        found: list[dict[str, Any]] = []
        if not places:
            return found
        with self.path.open("rb") as file:
            for _, offset, length, line in places:
                file.seek(offset)
                try:
                    value = orjson.loads(file.read(length))
                except orjson.JSONDecodeError:
                    raise RecordError(self.path, line, "damaged: the line is not JSON") from None
                problem = _problem(value)
                if problem:
                    raise RecordError(self.path, line, f"damaged: {problem}")
                found.append(value)
        return found


def _problem(density: dict[str, Any]) -> str:
    """The problem with a density that a view could not handle; empty if there is none."""
    edges, count = density.get("log10_lambda_edges"), density.get("count")
    if not (_numbers(edges) and _numbers(count)):
        return "the histogram does not consist of numbers"
    if (len(edges), len(count)) != (0, 0) and len(edges) != len(count) + 1:
        return f"the histogram has {len(edges)} edges for {len(count)} counts"
    for name, value in density.items():
        curves = value if isinstance(value, dict) else {}
        if not all(map(_numbers, curves.values())) or len({len(curve) for curve in curves.values()}) > 1:
            return f"`{name}` does not contain lists of numbers of equal length"
        if not (isinstance(value, (int, float, str, list, dict)) or value is None):
            return f"`{name}` is {value!r}"
    return ""


def _numbers(value: Any) -> TypeGuard[list[float | None]]:
    return isinstance(value, list) and set(map(type, value)) <= {int, float, type(None)}
