"""The state saved with a checkpoint so that a run can be resumed: plain values, validated when read."""

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
    """Everything that a run needs to resume, except W_0, which is stored with the record, and the weights.

    Attributes:
        run_id: the run's identifier.
        directory: the folder of its record, which contains W_0.
        step: optimiser steps done at its last snapshot; later entries of the record are discarded and measured again.
        snapshots: number of snapshots so far.
        first_step: the step at which the run started.
        spent: seconds spent in the callback.
        elapsed: seconds since the run started, without interruptions.
        layers: the engine's state of each layer.
        detectors: kind of detector → its state.
        desk: when each alert was last reported.
        alerts: the alerts so far.
        known: the most recent model-level values.
        clock: the state of the run's clock.
        adapter: the state of the framework's adapter, such as a sum of losses.
        initial_weights: whether W_0 is stored with the record; the disk may have been full.
        version: version of this layout.
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
        """The state as dictionaries, lists, numbers and strings only, which weights-only checkpoints and JSON
        support.
        """
        return _listed(asdict(self))

    @classmethod
    def parse(cls, value: Any, source: str) -> RunState:
        """The state from what :meth:`plain` returned.

        Args:
            value: the plain values.
            source: where they were read from, for the error message.

        Raises:
            ValueError: if they are not a valid state; the message names ``source``.
        """
        try:
            state = decode(cls, value)
        except (ValueError, TypeError, RecursionError, OverflowError) as error:
            raise ValueError(f"{source} does not contain the state of a spectral run: {error}.") from error
        if state.version > VERSION:
            raise ValueError(
                f"{source} was written by a newer version of ww-callbacks (its layout is {state.version}, this one "
                f"reads up to {VERSION})."
            )
        return state


@dataclass(frozen=True)
class Saved:
    """A state with its arrays.

    Attributes:
        state: the plain values.
        previous: the weights of the last snapshot, for the layers that had changed since when it was saved.
        kept: the average of the weights, and the weights of the best epoch, by name.
    """

    state: RunState
    previous: Mapping[str, list[Any]] = field(default_factory=dict)
    kept: Mapping[str, Any] = field(default_factory=dict)


def write_sidecar(folder: Path, name: str, saved: Saved) -> None:
    """Write ``<name>.json``, ``<name>.safetensors`` if there are weights of the last snapshot, and
    ``<name>-kept.safetensors`` if weights are kept. Each file is replaced atomically.

    Raises:
        OSError: if a file cannot be written.
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
        FileNotFoundError: if there is no such file.
        ValueError: if a file has another format; the message names it.
    """
    path = folder / f"{name}.json"
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} does not contain the state of a spectral run: it is not JSON ({error}).") from error
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
    """Remove the files that :func:`write_sidecar` wrote, if they exist."""
    path = folder / f"{name}.json"
    for file in (path, path.with_suffix(".safetensors"), _kept_path(path)):
        file.unlink(missing_ok=True)


def _kept_path(path: Path) -> Path:
    return path.with_name(f"{path.stem}-kept.safetensors")


def _partial(path: Path) -> Path:
    return path.with_suffix(".partial")


def _listed(value: Any) -> Any:
    """``value`` with tuples as lists and keys as strings."""
    if isinstance(value, Mapping):
        return {str(key): _listed(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_listed(item) for item in value]
    return value.item() if isinstance(value, np.generic) else value
