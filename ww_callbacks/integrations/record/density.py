"""The spectral densities that lie beside a record: found through an index, read only when a view asks for them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, TypeGuard

import orjson

from ww_callbacks.integrations.record.format import RecordError

_PREFIX = re.compile(rb'\{"step":(\d{1,18}),"epoch":[^,{}\[\]]{1,32},"layer":("(?:[^"\\]|\\.)*")')


class DensityIndex:
    """Where in ``spectra.jsonl`` the density of each layer at each step lies; grows as the file does."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._offset = 0
        self._line = 0
        self._places: dict[str, dict[int, tuple[int, int, int]]] = {}

    def update(self) -> None:
        """Take in what was appended since.

        Raises:
            RecordError: for a line that is not a density's.
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
                # The last one counts: after a resume the same step is measured again.
                self._places.setdefault(layer, {})[int(match[1])] = (self._offset, len(line), self._line)
                self._offset += len(line)

    def layers(self) -> list[str]:
        """The layers of which there is a density."""
        return list(self._places)

    def steps(self, layer: str) -> set[int]:
        """The steps at which there is a density of ``layer``."""
        return set(self._places.get(layer, ()))

    def read(self, layer: str, steps: set[int]) -> list[dict[str, Any]]:
        """The densities of ``layer`` at those of ``steps`` that there are, in order of step.

        Raises:
            RecordError: for a line that is damaged.
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
    """What a view would stumble over; empty if nothing."""
    edges, count = density.get("log10_lambda_edges"), density.get("count")
    if not (_numbers(edges) and _numbers(count)):
        return "the histogram is not one of numbers"
    if (len(edges), len(count)) != (0, 0) and len(edges) != len(count) + 1:
        return f"the histogram has {len(edges)} edges for {len(count)} counts"
    for name, value in density.items():
        curves = value if isinstance(value, dict) else {}
        if not all(map(_numbers, curves.values())) or len({len(curve) for curve in curves.values()}) > 1:
            return f"`{name}` does not hold lists of numbers, equally long"
        if not (isinstance(value, (int, float, str, list, dict)) or value is None):
            return f"`{name}` is {value!r}"
    return ""


def _numbers(value: Any) -> TypeGuard[list[float | None]]:
    return isinstance(value, list) and set(map(type, value)) <= {int, float, type(None)}
