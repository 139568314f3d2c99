"""What is saved with a checkpoint so that a run can be resumed: plain values, checked when read."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from ww_callbacks.engine.baseline_store import map_tensors
from ww_callbacks.engine.layer_memory import LayerMemory
from ww_callbacks.integrations.record.format import decode
from ww_callbacks.integrations.schema import Alert

VERSION = 1


@dataclass(frozen=True)
class RunState:
    """Everything that a run needs to go on, but W_0, which lies beside the record, and the weights themselves.

    Attributes:
        run_id: the run's identifier.
        directory: the folder of its record, W_0 in it.
        step: optimiser steps done at its last snapshot; what the record has beyond that is done again.
        snapshots: snapshots so far.
        first_step: the step at which the run began.
        spent: seconds that the callback has cost.
        elapsed: seconds since the run began, interruptions left out.
        layers: the engine's memory.
        detectors: kind of detector → its state.
        desk: what was said when.
        alerts: the alerts so far.
        known: the model-level values as last known.
        clock: where the run's clock stood.
        adapter: what the framework's adapter keeps, such as a sum of losses.
        initial_weights: whether W_0 lies beside the record; it may not have fitted on the disk.
        version: of this layout.
    """

    run_id: str
    directory: str
    step: int
    snapshots: int
    first_step: int
    spent: float
    elapsed: float
    layers: Mapping[str, LayerMemory]
    detectors: Mapping[str, Any]
    desk: Mapping[str, Any]
    alerts: tuple[Alert, ...] = ()
    known: Mapping[str, float] = field(default_factory=dict)
    clock: Mapping[str, Any] = field(default_factory=dict)
    adapter: Mapping[str, Any] = field(default_factory=dict)
    initial_weights: bool = True
    version: int = VERSION

    def plain(self) -> dict[str, Any]:
        """Dictionaries, lists, numbers and texts only: what a weights-only checkpoint and JSON can hold."""
        return _listed(asdict(self))

    @classmethod
    def parse(cls, value: Any, source: str) -> RunState:
        """The state that :meth:`plain` gave.

        Args:
            value: what was read.
            source: where it came from, for the error.

        Raises:
            ValueError: if it is not one, naming ``source``.
        """
        try:
            state = decode(cls, value)
        except (ValueError, TypeError, RecursionError, OverflowError) as error:
            raise ValueError(f"{source} does not hold the state of a spectral run: {error}.") from error
        if state.version > VERSION:
            raise ValueError(
                f"{source} was written by a newer version of ww-callbacks (its layout is {state.version}, this one "
                f"reads up to {VERSION})."
            )
        return state


@dataclass(frozen=True)
class Saved:
    """A state with the weights that it needs.

    Attributes:
        state: the plain values.
        previous: the weights of the last snapshot, of the layers that had moved on when it was saved.
        kept: the average of the weights, and the weights of the best epoch, by name.
    """

    state: RunState
    previous: Mapping[str, list[Any]] = field(default_factory=dict)
    kept: Mapping[str, Any] = field(default_factory=dict)


def write_sidecar(folder: Path, name: str, saved: Saved) -> None:
    """Write ``<name>.json``, ``<name>.safetensors`` where there are weights of the last snapshot, and
    ``<name>-kept.safetensors`` where weights are kept; whole or not at all.

    Raises:
        OSError: if the system does.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {
        f"{layer}#{i}": np.ascontiguousarray(a)
        for layer, arrays in saved.previous.items()
        for i, a in enumerate(arrays)
    }
    path = folder / f"{name}.json"
    if tensors:
        keys = {layer: [f"{layer}#{i}" for i in range(len(arrays))] for layer, arrays in saved.previous.items()}
        save_file(tensors, _partial(path), metadata={"layers": json.dumps(keys)})
        os.replace(_partial(path), path.with_suffix(".safetensors"))
    else:
        path.with_suffix(".safetensors").unlink(missing_ok=True)
    kept = _kept_path(path)
    if saved.kept:
        save_file({n: np.ascontiguousarray(a) for n, a in saved.kept.items()}, _partial(kept))
        os.replace(_partial(kept), kept)
    else:
        kept.unlink(missing_ok=True)
    _partial(path).write_text(json.dumps(saved.state.plain()), encoding="utf-8")
    os.replace(_partial(path), path)


def read_sidecar(folder: Path, name: str) -> Saved:
    """Read what :func:`write_sidecar` wrote.

    Raises:
        FileNotFoundError: if there is none.
        ValueError: if a file is not one of these, naming it.
    """
    path = folder / f"{name}.json"
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} does not hold the state of a spectral run: it is not JSON ({error}).") from error
    state = RunState.parse(value, str(path))
    weights, previous, kept = path.with_suffix(".safetensors"), {}, {}
    if weights.exists():
        arrays, keys = map_tensors(weights)
        previous = {layer: [np.array(arrays[n].widened()) for n in names] for layer, names in keys.items()}
    if _kept_path(path).exists():
        try:
            kept = load_file(_kept_path(path))
        except SafetensorError as error:
            raise ValueError(f"{_kept_path(path)} cannot be read ({error}).") from error
    return Saved(state, previous, kept)


def remove_sidecar(folder: Path, name: str) -> None:
    """Remove what :func:`write_sidecar` wrote, where it is there."""
    path = folder / f"{name}.json"
    for file in (path, path.with_suffix(".safetensors"), _kept_path(path)):
        file.unlink(missing_ok=True)


def _kept_path(path: Path) -> Path:
    return path.with_name(f"{path.stem}-kept.safetensors")


def _partial(path: Path) -> Path:
    return path.with_suffix(".partial")


def _listed(value: Any) -> Any:
    """``value`` with tuples as lists and keys as texts."""
    if isinstance(value, Mapping):
        return {str(key): _listed(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_listed(item) for item in value]
    return value.item() if isinstance(value, np.generic) else value
