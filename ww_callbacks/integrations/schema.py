"""What flows from the engine to the sinks: plain, immutable data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from ww_callbacks.spectral.detectors.base import Finding
from ww_callbacks.spectral.detectors.verdict import Verdict

__all__ = ["SCHEMA_VERSION", "Alert", "LayerInfo", "LayerRow", "RunInfo", "Snapshot", "Value", "Verdict"]

SCHEMA_VERSION = 1
Value = float | str


@dataclass(frozen=True)
class LayerInfo:
    """A layer as the record's header describes it.

    Attributes:
        name: the unique key of the layer in every row.
        index: its place in depth order, from 0.
        kind: ``dense``, ``conv``, ``attention``, ``embedding``, …
        type: the module's class name.
        shape: the parameter's shape as the framework stores it.
        matrix_shapes: the shapes of its matrices, rows = outputs.
        note: what was done with the parameter.
    """

    name: str
    index: int
    kind: str
    type: str
    shape: tuple[int, ...]
    matrix_shapes: tuple[tuple[int, int], ...]
    note: str = ""


@dataclass(frozen=True)
class RunInfo:
    """The header of a run's record.

    Attributes:
        run_id: random identifier of this run; it stays the same when the run is resumed.
        framework: ``lightning``, ``keras``, ``huggingface`` or ``plain``.
        started: start, ISO 8601, UTC.
        settings: the callback's arguments.
        versions: versions of the packages that matter.
        layers: the layers watched, in depth order.
        directory: the folder of the record.
        resumed_at: optimiser steps done when the run was resumed, None for a run that was not. What had been
            recorded beyond that step is superseded.
    """

    run_id: str
    framework: str
    started: str
    settings: Mapping[str, Any]
    versions: Mapping[str, str]
    layers: tuple[LayerInfo, ...]
    directory: str
    resumed_at: int | None = None


@dataclass(frozen=True)
class LayerRow:
    """One layer in one snapshot.

    Attributes:
        layer: the layer's name.
        index: its place in depth order.
        values: quantity name → value; NaN where it could not be had.
        status: ``ok``, or why values are missing: ``non-finite``, ``zero``, ``failed: …``.
        changed: whether the weights differ from those of the previous snapshot.
        frozen: whether the layer is not trained at this moment, as far as the framework tells.
        errors: quantity name → error, of the values that are estimates or old ones with a bound; others are exact.
        density: the spectral density for the views, if kept (see ``ww_callbacks.spectral.linalg.density``).
    """

    layer: str
    index: int
    values: Mapping[str, Value]
    status: str = "ok"
    changed: bool = True
    density: Mapping[str, Any] | None = None
    frozen: bool = False
    errors: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Snapshot:
    """All layers at one moment of the run.

    Attributes:
        step: optimiser steps done so far (0 before the first).
        epoch: epochs completed so far, fractional inside an epoch (0.0 before the first).
        kind: ``full`` (all quantities) or ``cheap`` (only those that need no spectrum).
        rows: one row a layer, in depth order.
        model: model-level summary: ``<quantity>/<statistic>`` → value.
        metrics: what the loop told: ``train_loss``, ``train_accuracy``, ``learning_rate``, as far as known.
        seconds: what this snapshot cost the training loop, in seconds of wall time.
        overhead: the callback's share of the wall time of training so far (0.01 is 1 %).
        time: seconds since the start of the run.
        left_out: what was not measured to stay within a budget, in words; empty if nothing.
    """

    step: int
    epoch: float
    kind: Literal["full", "cheap"]
    rows: tuple[LayerRow, ...]
    model: Mapping[str, float]
    metrics: Mapping[str, float]
    seconds: float
    overhead: float
    time: float
    left_out: str = ""

    def __repr__(self) -> str:
        """One line: what a notebook shows of hundreds of layers would bury the cell."""
        values = ", ".join(f"{name}={value:.4g}" for name, value in list(self.model.items())[:4])
        return f"Snapshot(step={self.step}, epoch={self.epoch:g}, {self.kind}, {len(self.rows)} layers: {values}, …)"


@dataclass(frozen=True, kw_only=True)
class Alert(Finding):
    """A finding that was reported, with what was done about it.

    Attributes:
        step, epoch: when it was reported.
        action: what the policy did: ``log``, ``warn``, ``stop`` or ``call``.
    """

    step: int
    epoch: float
    action: str = "log"
