"""Saves the state of a run between two calls of ``fit``, because Keras does not save callbacks."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ww_callbacks.faults import logger
from ww_callbacks.lifecycle.saved_state import Saved, read_sidecar, remove_sidecar, write_sidecar

KEPT = 3
"""Number of states kept: a backup may be one epoch behind the last of them."""

_POINTER = "spectral_record.json"


class Sidecars:
    """The states of the last epochs, stored with the record.

    With Keras's ``BackupAndRestore``, its folder contains a pointer to the record. Keras removes that folder when a run
    has ended, so a record is found again exactly as long as there is a backup to restore.

    Args:
        callbacks: those of the ``fit``.
    """

    def __init__(self, callbacks: Iterable[Any]) -> None:
        folders = [c.backup_dir for c in callbacks if type(c).__name__ == "BackupAndRestore"]
        self._backup = Path(folders[0]) if folders else None

    def find(self, log_dir: str | None, epoch: int, iterations: int) -> Saved | None:
        """The state at the start of ``epoch`` (epochs completed); None if the run starts or there is none.

        Args:
            log_dir: the folder named by the user.
            epoch: epochs completed.
            iterations: the optimizer's count; a state with a higher count belongs to another run.
        """
        if epoch == 0:
            return None
        for folder in [*self._pointed(), *([Path(log_dir)] if log_dir else [])]:
            try:
                saved = read_sidecar(folder, f"state-{epoch}")
            except FileNotFoundError:
                continue
            except (OSError, ValueError) as error:
                logger.warning("ww-callbacks: %s Starting a new record. Training continues.", error)
                return None
            if saved.state.adapter.get("iterations", 0) <= iterations:
                return saved
        return None

    def write(self, directory: Path, epoch: int, saved: Saved) -> None:
        """Save the state after ``epoch`` completed epochs, and remove the oldest."""
        try:
            write_sidecar(directory, f"state-{epoch}", saved)
            remove_sidecar(directory, f"state-{epoch - KEPT}")
            if self._backup is not None:
                self._backup.mkdir(parents=True, exist_ok=True)
                (self._backup / _POINTER).write_text(json.dumps(str(directory.absolute())), encoding="utf-8")
        except OSError as error:
            logger.warning(
                "ww-callbacks: the record cannot be resumed from this epoch (%s). Training continues.", error
            )

    def _pointed(self) -> list[Path]:
        try:
            text = (self._backup / _POINTER).read_text(encoding="utf-8") if self._backup is not None else "null"
            folder = json.loads(text)
        except (OSError, ValueError, RecursionError):
            return []
        return [Path(folder)] if isinstance(folder, str) else []
