"""A Lightning Trainer's loggers and progress bar, as sinks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ww_callbacks.integrations.sinks.loggers import LoggerSink
from ww_callbacks.integrations.sinks.sink import Sink
from ww_callbacks.lightning.private import event_file
from ww_callbacks.settings import Settings

if TYPE_CHECKING:
    import pytorch_lightning as pl


def sinks_for(trainer: pl.Trainer, settings: Settings, logged_at: Callable[[int], int]) -> list[Sink]:
    """One sink for every logger of the Trainer; by class name, because Lightning has two packages with the same
    classes.

    TensorBoard and W&B get their own sinks; any other logger gets the scalars.

    Args:
        trainer: the Trainer.
        settings: the callback's arguments.
        logged_at: optimiser steps done → the step under which Lightning logs its values at that time.
    """
    if trainer.fast_dev_run:  # type: ignore[attr-defined]
        return []
    return [_sink(logger, settings, logged_at) for logger in trainer.loggers]


def _sink(logger: Any, settings: Settings, logged_at: Callable[[int], int]) -> Sink:
    name = type(logger).__name__
    if name == "TensorBoardLogger":
        from ww_callbacks.integrations.sinks.tensorboard import TensorBoardSink

        def add(summary: Any, step: int) -> None:
            event_file(logger.experiment)(summary, logged_at(step))

        return TensorBoardSink(add, per_layer=settings.per_layer, histograms=settings.histograms)
    if name == "WandbLogger":
        from ww_callbacks.integrations.sinks.wandb import WandbSink

        return WandbSink(logger.experiment, per_layer=settings.per_layer, histograms=settings.histograms)
    return LoggerSink(lambda values, step: logger.log_metrics(dict(values), logged_at(step)), name, settings.per_layer)


def log_settings(trainer: pl.Trainer, settings: Settings) -> None:
    """Log the callback's arguments with the run's configuration, if the logger stores one."""
    for logger in trainer.loggers:
        if type(logger).__name__ not in ("TensorBoardLogger", "WandbLogger", "DummyLogger"):
            logger.log_hyperparams({"spectral_callback": settings.as_dict()})


def log_folder(trainer: pl.Trainer) -> Path | None:
    """The run's log folder, preferably TensorBoard's; None if the Trainer has no logger."""
    by_name: dict[str, Any] = {type(logger).__name__: logger for logger in reversed(trainer.loggers)}
    if "TensorBoardLogger" in by_name:
        return Path(by_name["TensorBoardLogger"].log_dir or ".")
    if "WandbLogger" in by_name:
        # Not in the folder of W&B's files, which is uploaded, including W_0.
        run = by_name["WandbLogger"].experiment
        directory = getattr(run, "dir", None)
        if not isinstance(directory, str) or run.disabled:
            return None  # `trainer.log_dir` would wait for processes that do not read it
        return Path(directory).parent / "spectral"
    return Path(trainer.log_dir) if trainer.loggers and trainer.log_dir else None


def console_writer(trainer: pl.Trainer) -> Callable[[str], None] | None:
    """Prints a line above the progress bar without breaking it; None if there is no bar."""
    bar = trainer.progress_bar_callback
    if bar is None or "TQDM" not in type(bar).__name__:
        return None
    from tqdm import tqdm

    return tqdm.write
