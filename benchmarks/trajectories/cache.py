"""The cache of trajectories: one file a run, made where it is missing."""

from __future__ import annotations

import json
import time
from pathlib import Path

import numpy as np

from benchmarks.trajectories.scenarios import Run
from benchmarks.trajectories.train import train

FOLDER = Path(".cache/early_stopping")


def kept(run: Run, folder: Path = FOLDER) -> bool:
    """Whether the cache has this run, made with these settings."""
    path = folder / f"{run.name}.npz"
    if not path.exists():
        return False
    with np.load(path) as file:
        return str(file["settings"]) == json.dumps(run.as_dict(), sort_keys=True)


def trajectory(run: Run, folder: Path = FOLDER) -> dict[str, np.ndarray]:
    """The run's trajectory, trained if it is not in the cache or was made with other settings."""
    path = folder / f"{run.name}.npz"
    settings = json.dumps(run.as_dict(), sort_keys=True)
    if kept(run, folder):
        with np.load(path) as file:
            return {key: file[key] for key in file.files if key not in {"settings", "seconds"}}
    start = time.perf_counter()
    arrays = train(run)
    folder.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part.npz")
    np.savez_compressed(part, settings=settings, seconds=time.perf_counter() - start, **arrays)
    part.replace(path)
    return arrays
