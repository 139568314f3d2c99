"""Checkpoints of the best epoch's weights, saved by the callback, and of their average."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Collection, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ww_callbacks.adapters.current_arrays import CurrentArrays
from ww_callbacks.adapters.saved_weights.weight_average import WeightAverage
from ww_callbacks.engine.accelerator import to_host


class BestCheckpoint:
    """Keeps the checkpoints of the snapshots that may turn out to be the best: at most two, and one at the end.

    Args:
        folder: folder of the files ``best-step-<step><suffix>``, and ``best-step-<step>-average<suffix>`` for the
            average of the weights.
        suffix: suffix of the files; empty for folders.
        save: function that writes the current model to a path.
        leads: whether this process removes superseded checkpoints.
    """

    def __init__(self, folder: Path, suffix: str, save: Callable[[Path], object], leads: bool = True) -> None:
        self._folder, self._suffix, self._save, self._leads = Path(folder), suffix, save, leads
        self._best: int | None = None
        self._kept: set[int] = set()

    @property
    def path(self) -> Path | None:
        """The checkpoint of the best snapshot so far, or None."""
        return self._path(self._best) if self._best in self._kept and self._best is not None else None

    @property
    def average(self) -> Path | None:
        """The checkpoint with the average of the weights at the best snapshot, or None."""
        if self.path is None or self._best is None:
            return None
        path = self._path(self._best, "-average")
        return path if path.exists() else None

    def _path(self, step: int, what: str = "") -> Path:
        return self._folder / f"best-step-{step}{what}{self._suffix}"

    def look(
        self,
        step: int,
        best_step: int | None,
        wanted: frozenset[int] = frozenset(),
        average: WeightAverage | None = None,
    ) -> None:
        """Save the current weights if they are, or may turn out to be, those of the best step.

        Args:
            step: optimiser steps done.
            best_step: the step whose weights are the best so far.
            wanted: steps that may turn out to be the best.
            average: the average of the weights, if one is kept.

        Raises:
            OSError: if they cannot be written; earlier checkpoints remain.
        """
        wanted = wanted | ({best_step} if best_step is not None else set())
        if step in wanted and step not in self._kept:
            self._save(self._path(step))
            if average is not None and average.begun:
                average.save(self._save, self._path(step, "-average"))
            self._kept.add(step)
        if best_step in self._kept:
            self._best = best_step
        if self._best is None:
            return
        self._remove(self._kept - wanted - {self._best})

    def remove(self) -> None:
        """Remove all checkpoints, because the run is given up."""
        self._best = None
        self._remove(self._kept)

    def _remove(self, steps: Collection[int]) -> None:
        for old in list(steps):
            self._kept.discard(old)
            if self._leads:
                for path in (self._path(old), self._path(old, "-average")):
                    shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)

    def state(self) -> dict[str, Any]:
        """The existing checkpoints, as plain values."""
        return {"best": self._best, "kept": sorted(self._kept)}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Restore the checkpoints of :meth:`state` that still exist.

        Raises:
            KeyError, TypeError, ValueError: if the state is invalid.
        """
        self._kept = {int(step) for step in state["kept"] if self._path(int(step)).exists()}
        self._best = int(state["best"]) if state["best"] in self._kept else None


def saver(model: Any) -> tuple[str, Callable[[Path], object]]:
    """The suffix of a checkpoint of ``model`` and the function that writes one: Keras's format, otherwise
    safetensors.
    """
    if hasattr(model, "save_weights"):
        return ".weights.h5", model.save_weights
    if isinstance(model, CurrentArrays):
        return ".safetensors", partial(_save_arrays, model)
    from safetensors.torch import save_model

    return ".safetensors", lambda path: save_model(model, str(path))


def _save_arrays(model: CurrentArrays, path: Path) -> None:
    save_arrays({name: entry.read() for name, entry in model.items() if not entry.skipped}, path)


def save_arrays(arrays: Mapping[str, Any], path: Path) -> None:
    """Write arrays to a safetensors file."""
    from safetensors.numpy import save_file

    save_file({name: np.ascontiguousarray(to_host(array)) for name, array in arrays.items()}, path)
