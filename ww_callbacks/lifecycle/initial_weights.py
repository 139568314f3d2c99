"""Initial weights W_0 of a run: read once at the start, and for new layers when they appear."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from ww_callbacks.engine.baseline_store import Baseline
from ww_callbacks.engine.engine import Engine
from ww_callbacks.faults import logger
from ww_callbacks.scheduling.snapshots import SnapshotTaker
from ww_callbacks.settings import Settings
from ww_callbacks.spectral.layers.matching import Arrays, arrays_from
from ww_callbacks.spectral.printed_tables import some


class InitialWeights:
    """Stores W_0 of a run: the weights at its start, or those of the checkpoint that ``baseline`` names.

    Args:
        settings: the callback's arguments.
        engine: the engine whose layers are stored; it receives the baseline.
        measuring: the snapshots object, which knows the layers that this process measures.
        rank: this process's rank; each process writes its own file.

    Raises:
        ValueError: if the checkpoint contains none of the layers.
    """

    def __init__(self, settings: Settings, engine: Engine, measuring: SnapshotTaker, rank: int) -> None:
        self._engine, self._measuring, self._rank = engine, measuring, rank
        self._given = None if settings.baseline == "initial" else _of_checkpoint(settings, engine, rank)
        self._later = 0

    def take(self, folder: Path) -> None:
        """Store W_0 in ``folder``, unless the engine has it already."""
        if self._engine.baseline is not None:
            return
        if self._given is not None:
            self._engine.measure_reference(Baseline.write(folder, self._given, self._engine.specs))
            self._given = None
            return
        self._engine.baseline = self._write(folder, None, "")

    def of_later_layers(self, folder: Path, names: Collection[str]) -> Baseline:
        """Store the current weights of the layers ``names`` in ``folder`` as their W_0."""
        self._later += 1
        return self._write(folder, names, f"later-{self._later - 1}")

    def _write(self, folder: Path, only: Collection[str] | None, part: str) -> Baseline:
        """Write the weights of the layers that this process measures to its own file."""
        folder.mkdir(parents=True, exist_ok=True)
        parts = filter(None, (str(self._rank) if self._rank else "", part))
        arrays = self._engine.initial(self._measuring.own, only)
        return Baseline.write(folder, arrays, self._engine.specs, "-".join(parts))


def _of_checkpoint(settings: Settings, engine: Engine, rank: int) -> Arrays:
    found = arrays_from(engine.specs, settings.baseline, settings.convolution)
    if not found:
        names = ", ".join(s.name for s in engine.specs[:5])
        raise ValueError(
            f"The checkpoint {settings.baseline!r} named as `baseline` contains none of the watched layers "
            f"({names}, …) in the shape that the model has."
        )
    missing = [spec.name for spec in engine.specs if spec.name not in found]
    remarks = [*found.remarks, *([f"it lacks {len(missing)} of the layers ({some(missing)})"] if missing else [])]
    if remarks and rank == 0:
        logger.warning("ww-callbacks: `baseline` %s: %s.", settings.baseline, "; ".join(remarks))
    return found
