"""The metrics of a snapshot from Keras: losses within an epoch, metrics, the learning rate."""

from __future__ import annotations

from collections.abc import Mapping
from math import isclose
from threading import Lock
from typing import Any

import keras
import numpy as np

from ww_callbacks.adapters.training_metrics import PARTS, in_words, recognised, values_of
from ww_callbacks.scheduling.loop_metrics import LoopMetrics

_MOST = 128 * PARTS
"""Maximum number of points of an epoch before every second one is dropped."""


class BatchValues:
    """One value of the batches' ``logs`` over an epoch.

    Keras logs the mean since the start of the epoch; a user's train step often logs the value of the batch. From the
    points (batches done, value), both give the sum up to any batch: as n·mean, or by adding up. Keras may call the
    hooks of batches on several threads, in any order. Memory is constant.
    """

    def __init__(self) -> None:
        self._points: list[tuple[int, float]] = []
        self._first: tuple[int, float] | None = None
        self._lock = Lock()

    def add(self, done: int, value: float) -> None:
        """Record the value logged after ``done`` batches of the epoch."""
        with self._lock:
            self._points.append((done, value))
            self._first = min(self._first or (done, value), (done, value))
            if len(self._points) >= _MOST:
                self._points = sorted(self._points)[1::2]

    @property
    def first(self) -> float | None:
        """The value of the epoch's first batch; None without any."""
        return self._first[1] if self._first is not None else None

    @property
    def last(self) -> float | None:
        """The latest value; None without any."""
        return max(self._points)[1] if self._points else None

    def _sums(self, running: bool) -> tuple[np.ndarray, np.ndarray]:
        """Batches done, and the sum of the values so far; both start at 0."""
        done, values = (
            np.array(column, dtype=np.float64) for column in zip((0, 0.0), *sorted(self._points), strict=True)
        )
        return done, done * values if running else np.cumsum(np.diff(done, prepend=0.0) * values)

    def mean(self, running: bool) -> float | None:
        """Mean over the epoch so far; None without values.

        Args:
            running: whether the values are means since the start of the epoch.
        """
        if not self._points:
            return None
        done, sums = self._sums(running)
        return float(sums[-1] / done[-1])

    def parts(self, running: bool) -> tuple[float, ...]:
        """Means of ten equal parts of the epoch; empty with fewer than ten points."""
        if len(self._points) < PARTS:
            return ()
        done, sums = self._sums(running)
        edges = np.interp(np.linspace(0.0, done[-1], PARTS + 1), done, sums)
        return tuple(float(v) for v in np.diff(edges) * PARTS / done[-1])


class LoopValues:
    """The metrics of the next snapshot, from the ``logs`` that Keras passes to its callbacks.

    Keras converts the ``logs`` of each batch to numbers for its progress bar and history, in parallel with the training
    if the backend allows it; nothing here waits for a device.

    Args:
        names: metric → its name in ``logs``, given by the user.
        first_loss: loss of the run's first batch, if the run is resumed.
    """

    def __init__(self, names: Mapping[str, str], first_loss: float | None = None) -> None:
        self._names = names
        self.first_loss = first_loss
        self._values: dict[str, BatchValues] = {}
        self._running: dict[str, bool] = {}
        self._seen: tuple[tuple[str, ...], dict[str, str]] = ((), {})
        self.batches = 0
        """Number of completed batches of the epoch."""

    def _trained(self, logs: Mapping[str, Any]) -> dict[str, str]:
        """``train_loss`` and ``train_accuracy`` → their names in the ``logs`` of batches."""
        keys = tuple(logs)
        if keys != self._seen[0]:
            found = {"train_loss": "loss"} | recognised(keys, self._names)
            found = {m: n for m, n in found.items() if m in ("train_loss", "train_accuracy") and n in logs}
            self._seen = (keys, found)
        return self._seen[1]

    def saw_batch(self, batch: int, logs: Mapping[str, Any]) -> None:
        """Record the ``logs`` after the batch numbered ``batch``; from any thread."""
        for metric, name in self._trained(logs).items():
            if (value := _number(logs[name])) is not None:
                self._values.setdefault(metric, BatchValues()).add(batch + 1, value)
        self.batches = max(self.batches, batch + 1)

    def saw_trackers(self, tracked: Mapping[str, Any]) -> None:
        """Distinguish a mean since the start of the epoch from the value of one batch.

        Args:
            tracked: the values of Keras's metrics after the epoch's last batch. A mean that Keras tracks equals the
                last batch's ``logs``; a train step that logs the batch's value does not update it.
        """
        for metric, name in self._seen[1].items():
            last = self._values[metric].last if metric in self._values else None
            mean = _number(tracked.get(name))
            self._running[metric] = last is not None and mean is not None and isclose(mean, last, rel_tol=1e-4)
        self._keep_first()

    def _keep_first(self) -> None:
        if self.first_loss is None and "train_loss" in self._values:
            self.first_loss = self._values["train_loss"].first

    def begin_epoch(self) -> None:
        """Start the next epoch."""
        self._values = {}
        self.batches = 0

    def explained(self, logs: Mapping[str, Any]) -> str:
        """Which of the logged names were recognised, in words."""
        return in_words(recognised(logs, self._names))

    def metrics(self, logs: Mapping[str, Any], optimizer: Any, ended: bool) -> LoopMetrics:
        """The metrics of a snapshot.

        Args:
            logs: of the batch or the epoch that has just ended.
            optimizer: the optimizer that steps; None if unknown.
            ended: whether an epoch has ended.
        """
        metrics = LoopMetrics(values_of(logs, self._names))
        for metric in ("train_loss", "train_accuracy"):
            value = _number(logs.get(self._trained(logs).get(metric, "")))
            if metric in self._values and not self._running.get(metric, True):
                value = self._values[metric].mean(running=False)
            if value is not None:
                metrics[metric] = value
        self._keep_first()
        if self.first_loss is not None:
            metrics["first_loss"] = self.first_loss
        if ended and "train_loss" in self._values:
            metrics.epoch_losses = self._values["train_loss"].parts(self._running.get("train_loss", True))
        rate = _number(getattr(optimizer, "learning_rate", None))
        if rate is not None:
            metrics["learning_rate"] = rate
        return metrics


def _number(value: Any) -> float | None:
    """A number or a tensor of one element as a float; None for anything else."""
    if value is None:
        return None
    try:
        return float(keras.ops.convert_to_numpy(value) if keras.ops.is_tensor(value) else value)
    except (TypeError, ValueError):
        return None


def own_optimizers(model: Any) -> list[Any]:
    """The optimizers that are attributes of ``model``, as in a custom ``train_step`` of a GAN or VAE."""
    held = [part for v in vars(model).values() for part in (v if isinstance(v, list | tuple) else [v])]
    return [part for part in held if isinstance(part, keras.optimizers.Optimizer) and part is not model.optimizer]
