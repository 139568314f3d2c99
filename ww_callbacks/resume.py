"""Taking a run up again: what is saved of it, and how it is put back."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ww_callbacks.baseline import Baseline
from ww_callbacks.state import RunState, Saved

if TYPE_CHECKING:
    from ww_callbacks.run import Run


def capture_state(run: Run, adapter: Mapping[str, Any]) -> Saved:
    """What ``run`` needs to go on from a checkpoint made now."""
    state = RunState(
        run_id=run.run_id,
        directory=str(run.directory.absolute()),
        step=run.step,
        snapshots=run.judging.snapshots,
        first_step=run._first_step,
        spent=run.meter.spent,
        elapsed=run.meter.elapsed,
        layers={name: s.memory() for name, s in run.engine.states.items()},
        **run.judging.state_dict(),
        alerts=tuple(run.alerts),
        known=dict(run._known),
        adapter={**adapter, "probe": run.probing.state_dict()} if run.probing is not None else dict(adapter),
    )
    return Saved(state, dict(run.engine.stale()))


def resumption(run: Run, saved: Saved) -> Callable[[], int]:
    """Prepare to put ``saved`` back into ``run``; nothing is changed until the result is called.

    Returns:
        Puts it back, and returns the step up to which the record counts.

    Raises:
        FileNotFoundError: if W_0 is not found.
        ValueError: if W_0 or the saved state is not what it should be.
    """
    state = saved.state
    if not any(name in state.layers for name in run.engine.states):
        known = ", ".join(list(state.layers)[:3])
        raise ValueError(
            f"it watched other layers ({known}, …), and none of them is there now; Keras numbers layers and models "
            "without a `name=` anew each time they are built"
        )
    directory = _folder(run, state)
    baseline = Baseline.open(directory)
    run.judging.load_state_dict({"detectors": state.detectors, "desk": state.desk})
    if run.probing is not None and "probe" in state.adapter:
        run.probing.load_state_dict(state.adapter["probe"])

    def apply() -> int:
        fresh = run.directory
        run.run_id, run.directory = state.run_id, directory
        if fresh != directory:
            with suppress(OSError):  # it was made for a new run; anything in it keeps it
                fresh.rmdir()
        run._first_step, run.step = state.first_step, state.step
        run.judging.snapshots = state.snapshots
        run.alerts.extend(state.alerts)
        run._known = dict(state.known)
        # The clock stood still while the run did; the seconds spent on taking it up count.
        run.meter.shift(state.spent, state.elapsed)
        run.engine.baseline = baseline
        new = run.engine.without_baseline(run.engine.states)
        if new:
            baseline.extend(run.origin.of_later_layers(run.directory, new))
        run.engine.recall(state.layers, saved.previous)
        return state.step

    return apply


def _folder(run: Run, state: RunState) -> Path:
    """Where the record of the saved run lies now: where it lay, or where the user says that it was moved to."""
    asked = run.settings.log_dir
    candidates = [Path(state.directory), *([Path(asked)] if asked else []), run.directory]
    for folder in candidates:
        if any(folder.glob("w0*.safetensors")):
            return folder.absolute()
    places = ", ".join(dict.fromkeys(map(str, candidates)))
    raise FileNotFoundError(
        f"its W_0 (w0.safetensors) was not found in {places}: move it back, or name its folder as `log_dir`"
    )
