"""What every benchmark program writes: the machine, the settings, the rows and the figures, as one JSON file."""

from __future__ import annotations

import argparse
import json
import os
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
"""Where the last run of every program is kept."""


def arguments(description: str | None) -> argparse.ArgumentParser:
    """A parser that already knows ``--json``."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, metavar="PATH", help="write machine, settings, rows and figures there")
    return parser


def machine() -> dict[str, Any]:
    """Processor, cores, memory, versions and the load at the moment; nothing that names the machine."""
    import numpy as np

    return {
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "numpy": np.__version__,
        "load": round(os.getloadavg()[0], 2),
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "unknown")


def write(
    path: Path | None,
    settings: Mapping[str, Any],
    rows: Sequence[Mapping[str, Any]],
    figures: Mapping[str, float],
) -> None:
    """Print the figures, and write everything to ``path`` if one is given."""
    for name, value in figures.items():
        print(f"{name}: {value:.6g}")
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        content = {"machine": machine(), "settings": dict(settings), "rows": list(rows), "figures": dict(figures)}
        path.write_text(json.dumps(content, indent=1, default=_plain) + "\n")


def _plain(value: Any) -> Any:
    """NumPy scalars and paths as JSON knows them."""
    return value.item() if hasattr(value, "item") else str(value)
