"""The immutable data classes that the engine sends to the sinks."""

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
    """Description of a layer in the header of the record.

    Attributes:
        name: unique name of the layer in every row.
        index: position in depth order, from 0.
        kind: ``dense``, ``conv``, ``attention``, ``embedding``, …
        type: the module's class name.
        shape: the parameter's shape as the framework stores it.
        matrix_shapes: the shapes of its matrices, rows = outputs.
        note: how the parameter is measured.
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
        run_id: random identifier of the run, unchanged when the run is resumed.
        framework: ``lightning``, ``keras``, ``huggingface`` or ``plain``.
        started: start, ISO 8601, UTC.
        settings: the callback's arguments.
        versions: versions of the relevant packages.
        layers: the watched layers, in depth order.
        directory: the folder of the record.
        resumed_at: number of completed optimiser steps when the run was resumed; None if it was not resumed. Earlier
            rows beyond that step no longer count.
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
        index: position in depth order.
        values: quantity name → value; NaN if it could not be computed.
        status: ``ok``, or why values are missing: ``non-finite``, ``zero``, ``failed: …``,
            ``partly: …`` if only your own quantities failed.
        changed: whether the weights differ from those of the previous snapshot.
        frozen: whether the framework reports the layer as not trained at this moment.
        errors: quantity name → error, for estimates and for reused values; all other values are exact.
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
        step: number of completed optimiser steps (0 before the first).
        epoch: number of completed epochs, fractional inside an epoch (0.0 before the first).
        kind: ``full`` (all quantities) or ``cheap`` (only those that need no spectrum).
        rows: one row per layer, in depth order.
        model: model-level summary: ``<quantity>/<statistic>`` → value.
        metrics: metrics of the loop, if known: ``train_loss``, ``train_accuracy``, ``learning_rate``, ….
        seconds: cost of this snapshot to the training loop, in seconds of wall time.
        overhead: the callback's share of the wall time of training so far (0.01 is 1 %).
        time: seconds since the start of the run.
        left_out: description of what was skipped to stay within a budget; empty if nothing.
        verdict: the verdict if the run ended here; None if it is not known.
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
    verdict: Verdict | None = None

    def __repr__(self) -> str:
        """One line: a representation of hundreds of layers would flood a notebook cell."""
        values = ", ".join(f"{name}={value:.4g}" for name, value in list(self.model.items())[:4])
        return f"Snapshot(step={self.step}, epoch={self.epoch:g}, {self.kind}, {len(self.rows)} layers: {values}, …)"


@dataclass(frozen=True, kw_only=True)
class Alert(Finding):
    """A reported finding, with the action taken.

    Attributes:
        step, epoch: when it was reported.
        action: the action of the policy: ``log``, ``warn``, ``stop`` or ``call``.
    """

    step: int
    epoch: float
    action: str = "log"
