"""Resuming a run: saves and restores its state."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ww_callbacks.diagnosis.diagnosis import Diagnosis
from ww_callbacks.engine.baseline_store import Baseline
from ww_callbacks.engine.engine import Engine
from ww_callbacks.integrations.record import RECORD_NAME
from ww_callbacks.lifecycle.initial_weights import InitialWeights
from ww_callbacks.lifecycle.progress import Progress
from ww_callbacks.lifecycle.saved_state import RunState, Saved
from ww_callbacks.probes.probe_runner import Probing
from ww_callbacks.scheduling.clock import Clock
from ww_callbacks.scheduling.distributed import Group
from ww_callbacks.scheduling.meter import Meter


@dataclass(frozen=True)
class RunParts:
    """The parts of a run that have a state."""

    progress: Progress
    clock: Clock
    engine: Engine
    diagnosis: Diagnosis
    meter: Meter
    initial_weights: InitialWeights
    probing: Probing | None


def capture_state(run: RunParts, adapter: Mapping[str, Any], group: Group, several: bool) -> Saved:
    """The state that ``run`` needs to resume from a checkpoint made now.

    Args:
        run: the parts of the run.
        adapter: the state of the framework's adapter.
        group: the processes that save together; the first one gets the weights of all.
        several: whether several processes train, so that weights may be sharded, even if some have ended.
    """
    progress = run.progress
    state = RunState(
        run_id=progress.run_id,
        directory=str(progress.directory.absolute()),
        step=progress.step,
        snapshots=run.diagnosis.snapshots,
        first_step=progress.first_step,
        spent=run.meter.spent,
        elapsed=run.meter.elapsed,
        layers={name: s.memory() for name, s in run.engine.states.items()},
        **run.diagnosis.state_dict(),
        alerts=tuple(run.diagnosis.alerts),
        known=dict(progress.published),
        clock=run.clock.state(),
        initial_weights=run.engine.baseline is not None,
        adapter={**adapter, "probe": run.probing.state_dict()} if run.probing is not None else dict(adapter),
    )
    return Saved(state, _of_all(dict(run.engine.stale(together=several)), group))


def _of_all(own: dict[str, list[np.ndarray]], group: Group) -> dict[str, list[np.ndarray]]:
    """The arrays of all processes on the first one, layer by layer, so that no process holds a second model."""
    collected = dict(own)
    for rank, names in enumerate(group.gather(list(own))):
        for name in names if rank else ():
            arrays = group.broadcast(own.get(name), source=rank)
            if group.rank == 0:
                collected[name] = arrays
    return collected


def resumption(run: RunParts, saved: Saved, log_dir: str | None) -> Callable[[], int]:
    """Prepare to restore ``saved`` into ``run``; nothing changes until the returned function is called.

    Args:
        run: the parts of the resumed run.
        saved: the saved run.
        log_dir: the folder given by the user, in case the record was moved.

    Returns:
        A function that restores the state and returns the step up to which the record is valid.

    Raises:
        FileNotFoundError: if W_0 is not found.
        ValueError: if W_0 or the saved state is invalid.
    """
    state, progress = saved.state, run.progress
    if not any(name in state.layers for name in run.engine.states):
        known = ", ".join(list(state.layers)[:3])
        raise ValueError(
            f"it watched other layers ({known}, …) that the model does not have; Keras numbers layers and "
            "models without a `name=` again each time they are built"
        )
    directory = _folder(state, log_dir, progress.directory)
    baseline = Baseline.open(directory) if state.initial_weights else None
    run.diagnosis.load_state_dict({"detectors": state.detectors, "desk": state.desk})
    if run.probing is not None and "probe" in state.adapter:
        run.probing.load_state_dict(state.adapter["probe"])

    def apply() -> int:
        fresh = progress.directory
        progress.run_id, progress.directory = state.run_id, directory
        if fresh != directory:
            with suppress(OSError):  # it was created for a new run; it is only removed if empty
                fresh.rmdir()
        progress.first_step, progress.step = state.first_step, state.step
        with suppress(KeyError, TypeError, ValueError):  # from an older version: it continues from the adapter's values
            run.clock.restore(state.clock)
        run.diagnosis.snapshots = state.snapshots
        run.diagnosis.alerts.extend(state.alerts)
        progress.published = dict(state.known)
        # Time does not count while the run is interrupted; the seconds spent on resuming do.
        run.meter.shift(state.spent, state.elapsed)
        run.engine.baseline = baseline
        new = run.engine.without_baseline(run.engine.states)
        if new and baseline is not None:
            baseline.extend(run.initial_weights.of_later_layers(directory, new))
        run.engine.restore(state.layers, saved.previous)
        return state.step

    return apply


def _folder(state: RunState, log_dir: str | None, fresh: Path) -> Path:
    """The current folder of the saved run's record: the former one, or the one that the user names."""
    candidates = [Path(state.directory), *([Path(log_dir)] if log_dir else []), fresh]
    for folder in candidates:
        if any(folder.glob("w0*.safetensors" if state.initial_weights else RECORD_NAME)):
            return folder.absolute()
    places = ", ".join(dict.fromkeys(map(str, candidates)))
    what = "initial weights (w0.safetensors) were" if state.initial_weights else f"record ({RECORD_NAME}) was"
    raise FileNotFoundError(f"its {what} not found in {places}: move them back, or name their folder as `log_dir`")
