"""The weights of the best epoch, kept by the callback itself where no validation chooses a checkpoint."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ww_callbacks.adapters.current_arrays import CurrentArrays
from ww_callbacks.engine.accelerator import to_host


class BestCheckpoint:
    """Keeps one checkpoint: that of the snapshot that the overtraining detector holds to be the one to keep so far.

    Args:
        folder: where it lies, as ``best-step-<step><suffix>``.
        suffix: of the file; empty for a folder.
        save: writes the model as it is now to a path.
        leads: whether this process is the one that removes what is superseded.
    """

    def __init__(self, folder: Path, suffix: str, save: Callable[[Path], object], leads: bool = True) -> None:
        self._folder, self._suffix, self._save, self._leads = Path(folder), suffix, save, leads
        self.path: Path | None = None

    def look(self, step: int, best_step: int | None) -> None:
        """Keep the weights of now if they are those of the best step so far.

        Raises:
            OSError: if they cannot be written; what was kept before is still there.
        """
        if best_step != step:
            return
        path = self._folder / f"best-step-{step}{self._suffix}"
        if path == self.path:
            return
        self._save(path)
        before, self.path = self.path, path
        if before is not None and self._leads:
            shutil.rmtree(before) if before.is_dir() else before.unlink(missing_ok=True)


def saver(model: Any) -> tuple[str, Callable[[Path], object]]:
    """The suffix of a checkpoint of ``model``, and what writes one: Keras's own format, safetensors for all else."""
    if hasattr(model, "save_weights"):
        return ".weights.h5", model.save_weights
    if isinstance(model, CurrentArrays):
        return ".safetensors", partial(_save_arrays, model)
    from safetensors.torch import save_model

    return ".safetensors", lambda path: save_model(model, str(path))


def _save_arrays(model: CurrentArrays, path: Path) -> None:
    from safetensors.numpy import save_file

    arrays = {name: entry.read() for name, entry in model.items() if not entry.skipped}
    save_file({name: np.ascontiguousarray(to_host(array)) for name, array in arrays.items()}, path)
