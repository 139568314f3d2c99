"""A Lightning Trainer's loggers and progress bar, as sinks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytorch_lightning as pl

from ww_callbacks.integrations.loggers import LoggerSink
from ww_callbacks.integrations.sink import Sink
from ww_callbacks.settings import Settings


def sinks_for(trainer: pl.Trainer, settings: Settings) -> list[Sink]:
    """One sink for every logger that the Trainer has; by class name, for Lightning has two trees of classes.

    TensorBoard and W&B also get what only they can show; any other logger gets the scalars.
    """
    if trainer.fast_dev_run:  # type: ignore[attr-defined]
        return []
    return [_sink(logger, settings) for logger in trainer.loggers]


def _sink(logger: Any, settings: Settings) -> Sink:
    name = type(logger).__name__
    if name == "TensorBoardLogger":
        from ww_callbacks.integrations.tensorboard import TensorBoardSink

        def add(summary: Any, step: int) -> None:
            # Lightning's own metrics of an epoch's end stand at the last step's index, one below the steps done.
            logger.experiment._get_file_writer().add_summary(summary, max(step - 1, 0))

        return TensorBoardSink(add, per_layer=settings.per_layer, histograms=settings.histograms)
    if name == "WandbLogger":
        from ww_callbacks.integrations.wandb import WandbSink

        return WandbSink(logger.experiment, per_layer=settings.per_layer, histograms=settings.histograms)
    return LoggerSink(lambda values, step: logger.log_metrics(dict(values), max(step - 1, 0)), name, settings.per_layer)


def log_settings(trainer: pl.Trainer, settings: Settings) -> None:
    """Log the callback's arguments with the run's configuration, where the logger keeps one beside its metrics."""
    for logger in trainer.loggers:
        if type(logger).__name__ not in ("TensorBoardLogger", "WandbLogger", "DummyLogger"):
            logger.log_hyperparams({"spectral_callback": settings.as_dict()})


def log_folder(trainer: pl.Trainer) -> Path | None:
    """The run's own log folder; None where the Trainer has no logger."""
    for logger in trainer.loggers:
        if type(logger).__name__ == "WandbLogger":
            # Beside W&B's own files and not among them: what lies there is uploaded, W_0 too.
            directory = getattr(logger.experiment, "dir", None)  # type: ignore[attr-defined]
            return Path(directory).parent / "spectral" if isinstance(directory, str) else None
    return Path(trainer.log_dir) if trainer.loggers and trainer.log_dir else None


def console_writer(trainer: pl.Trainer) -> Callable[[str], None] | None:
    """Prints a line above the progress bar without breaking it; None where there is no bar to break."""
    bar = trainer.progress_bar_callback
    if bar is None or "TQDM" not in type(bar).__name__:
        return None
    from tqdm import tqdm

    return tqdm.write
