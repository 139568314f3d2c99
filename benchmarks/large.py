"""Large models and many small layers: memory, speed against the bare linear algebra, and evidence on noise.

Each part is a module of its own (``_large_*.py``); a part's figures are ratios of what was measured side by side in one
run, so that the machine's pace cancels.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

if not __package__:  # run as a script
    sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks import _large_estimates, _large_memory, _large_noise, _large_small_layers, _report

Part = Callable[[], tuple[list[dict[str, Any]], dict[str, float]]]

PARTS: Mapping[str, Part] = {
    "memory": _large_memory.measure,
    "noise": _large_noise.measure,
    "small layers": _large_small_layers.measure,
    "estimates": _large_estimates.measure,
}
"""Name → measures the rows and figures."""


def main() -> None:
    """Measure the parts that are requested, all by default."""
    parser = _report.arguments(__doc__)
    parser.add_argument("--parts", nargs="+", choices=list(PARTS), default=list(PARTS), help="measure only these")
    options = parser.parse_args()
    rows: list[dict[str, Any]] = []
    figures: dict[str, float] = {}
    for name in options.parts:
        found, of_part = PARTS[name]()
        rows += found
        figures |= of_part
    _report.write(options.json, {"parts": options.parts}, rows, figures)


if __name__ == "__main__":
    main()
