"""The Trainer's reporters as sinks, without its ``log``: subclasses keep state there, and its log is the user's."""

from __future__ import annotations

import copy
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import transformers
from transformers.integrations import INTEGRATION_TO_CALLBACK

from ww_callbacks.huggingface.private import event_file, trackio_row
from ww_callbacks.integrations.sinks.loggers import LoggerSink
from ww_callbacks.integrations.sinks.sink import Sink
from ww_callbacks.settings import Settings

_WITH_A_STEP = ("azure_ml", "clearml", "comet_ml", "dagshub", "mlflow", "neptune", "swanlab")
"""Reporters that log under the step that they are given. The others count rows: ours would renumber the user's."""


def is_reporter(callback: Any) -> bool:
    """Whether ``callback`` is one of those that ``report_to`` names."""
    return isinstance(callback, tuple(INTEGRATION_TO_CALLBACK.values()))


def reporter_folder(callbacks: Sequence[Any]) -> Path | None:
    """The folder that the TensorBoard reporter writes to; None without one."""
    writers = (getattr(c, "tb_writer", None) for c in callbacks)
    return next((Path(writer.log_dir) for writer in writers if writer is not None), None)


def reporter_sinks(
    callbacks: Sequence[Any],
    args: transformers.TrainingArguments,
    state: transformers.TrainerState,
    settings: Settings,
) -> list[Sink]:
    """One sink a reporter, and one for the W&B run that is open."""
    more: dict[str, Any] = {"per_layer": settings.per_layer, "histograms": settings.histograms}
    stepped = tuple(INTEGRATION_TO_CALLBACK[name] for name in _WITH_A_STEP if name in INTEGRATION_TO_CALLBACK)
    sinks: list[Sink] = []
    for callback in callbacks:
        if hasattr(callback, "tb_writer"):
            from ww_callbacks.integrations.sinks.tensorboard import TensorBoardSink

            sinks.append(TensorBoardSink(EventFile(callback).add, **more))
        elif isinstance(callback, stepped):
            reporter: Any = callback
            log = partial(_log_row, reporter, args, state)
            sinks.append(LoggerSink(log, type(callback).__name__, settings.per_layer))
        elif hasattr(callback, "live"):
            sinks.append(LoggerSink(partial(_add_to_open_row, callback), type(callback).__name__, settings.per_layer))
        elif type(callback).__name__ == "TrackioCallback":
            sinks.append(LoggerSink(TrackioRows(callback).add, type(callback).__name__, settings.per_layer))
    wandb = sys.modules.get("wandb")
    if wandb is not None and getattr(wandb, "run", None) is not None:
        from ww_callbacks.integrations.sinks.wandb import WandbSink

        sinks.append(WandbSink(wandb.run, **more))
    return sinks


class EventFile:
    """The event file of a TensorBoard reporter, which opens it when training begins and closes it when it ends.

    Args:
        reporter: the Trainer's callback.
    """

    def __init__(self, reporter: Any) -> None:
        self._reporter = reporter
        self._waiting: list[tuple[Any, int]] = []

    def add(self, summary: Any, step: int) -> None:
        """Write ``summary``, or keep it until the file is open."""
        self._waiting.append((summary, step))
        write = event_file(self._reporter)
        if write is not None:
            for waiting in self._waiting:
                write(*waiting)
            self._waiting.clear()


def _add_to_open_row(reporter: Any, values: Mapping[str, float], step: int) -> None:
    """Add our values to the row of DVCLive's that is open, and leave it open: the Trainer's next row ends it."""
    for name, value in values.items():
        reporter.live.log_metric(name, value)


class TrackioRows:
    """Our values in a Trackio run, under the step of the user's last row: one of their own would renumber the next.

    Args:
        reporter: the Trainer's callback.
    """

    def __init__(self, reporter: Any) -> None:
        self._reporter = reporter
        self._waiting: list[dict[str, float]] = []

    def add(self, values: Mapping[str, float], step: int) -> None:
        """Log ``values``, or keep them until the user's first row."""
        self._waiting.append({**values, "train/global_step": step})
        found = trackio_row(self._reporter)
        if found is not None:
            log, row = found
            for waiting in self._waiting:
                log(waiting, step=row)
            self._waiting.clear()


def _log_row(
    reporter: transformers.TrainerCallback,
    args: transformers.TrainingArguments,
    state: transformers.TrainerState,
    values: Mapping[str, float],
    step: int,
) -> None:
    """Pass one row of ours to ``reporter`` at the snapshot's step, like the Trainer's log."""
    then = copy.copy(state)
    then.global_step = step
    reporter.on_log(args, then, transformers.TrainerControl(), logs=dict(values))
