"""All use of Lightning's undocumented interface.

Each function names the attributes that it reads; tested with Lightning 2.4.0 and 2.6.6. If a later version lacks one,
training continues, and one warning says what no longer works. ``tests/lightning/test_private.py`` fails on the first
version that lacks one.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from ww_callbacks.faults import logger

_SOON = 0.05
"""Margin in seconds before a checkpoint saved by time, because other callbacks run between our check and
Lightning's."""

_said: set[str] = set()


def _lost(attribute: str, consequence: str) -> None:
    """Warn once that ``attribute`` is missing, and of the consequence."""
    if attribute not in _said:
        _said.add(attribute)
        logger.warning("ww-callbacks: this Lightning has no %s: %s. Training continues.", attribute, consequence)


def saves_at_step(callback: Any, trainer: Any) -> bool:
    """Whether a ``ModelCheckpoint`` may save after this batch.

    Reads ``_every_n_train_steps``, ``_train_time_interval`` and ``_last_time_checked``.
    """
    every = getattr(callback, "_every_n_train_steps", None)
    if every is None:
        if hasattr(callback, "every_n_epochs"):
            _lost(
                "ModelCheckpoint._every_n_train_steps",
                "checkpoints within an epoch are chosen by values measured before them",
            )
        return False
    if every >= 1 and trainer.global_step % every == 0:
        return True
    interval = getattr(callback, "_train_time_interval", None)
    last = getattr(callback, "_last_time_checked", None)
    if interval is None or last is None:
        return False
    due = time.monotonic() - last >= interval.total_seconds() - _SOON
    return bool(trainer.strategy.broadcast(due))  # processes have different clocks


def averages_weights(callback: Any) -> bool:
    """Whether a callback averages the weights (has ``_average_model``)."""
    return hasattr(callback, "_average_model")


def averaged_model(callback: Any) -> Any:
    """The averaged model that a callback keeps (``_average_model``); None before training and for other callbacks."""
    return getattr(callback, "_average_model", None)


def validates_now(trainer: Any) -> bool:
    """Whether a validation follows the running batch (``epoch_loop._should_check_val_fx``, ``_data_fetcher``)."""
    check = getattr(trainer.fit_loop.epoch_loop, "_should_check_val_fx", None)
    fetcher = getattr(trainer.fit_loop, "_data_fetcher", None)
    if check is None or fetcher is None:
        _lost("epoch_loop._should_check_val_fx", "snapshots within an epoch have no validation values")
        return False
    return bool(check(fetcher))


def logging_step(trainer: Any, steps: int) -> int:
    """The step under which Lightning itself logs after the running batch (``epoch_loop._batches_that_stepped``)."""
    found = getattr(trainer.fit_loop.epoch_loop, "_batches_that_stepped", None)
    if found is None:
        _lost("epoch_loop._batches_that_stepped", "our values may be a few steps away from yours in the loggers")
        return max(steps - 1, 0)
    return int(found)


def event_file(experiment: Any) -> Callable[[Any, int], object]:
    """Adds a summary to the event file of torch's ``SummaryWriter`` (``_get_file_writer``)."""
    find = getattr(experiment, "_get_file_writer", None)
    if find is None:
        _lost("SummaryWriter._get_file_writer", "TensorBoard does not get our values")
        return lambda summary, step: None
    return find().add_summary
