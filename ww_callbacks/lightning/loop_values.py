"""The metrics of a snapshot from Lightning: losses step by step, and the metrics that the user logs."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from ww_callbacks.adapters.training_metrics import StepLosses, in_words, recognised, values_of
from ww_callbacks.scheduling.loop_metrics import LoopMetrics

LOOKS_AN_EPOCH = 50
"""Number of batches per epoch at which a training accuracy that is logged per step is read."""


class LoopValues:
    """Collects the losses and accuracies of the current epoch, and the values of the last validation.

    Args:
        names: metric → its name in the loop, given by the user.
    """

    def __init__(self, names: Mapping[str, str]) -> None:
        self._names = names
        self.loss = StepLosses()
        self._accuracy = StepLosses()
        self._accuracy_name: str | None = None
        self._validated: tuple[int, int] | None = None
        self._explained = False

    def saw_batch(self, trainer: Any, outputs: Any, batch_idx: int) -> None:
        """Record a batch's loss, and the accuracy logged per step, of which Lightning only keeps the last batch's.

        The accuracy is read at about fifty batches per epoch, because each read makes Lightning compute its metrics.
        """
        loss = outputs.get("loss") if isinstance(outputs, Mapping) else outputs
        self.loss.add(loss, trainer.accumulate_grad_batches)
        batches = trainer.num_training_batches
        if math.isfinite(batches) and batch_idx % max(1, int(batches) // LOOKS_AN_EPOCH):
            return
        if self._accuracy_name is None:
            self._accuracy_name = recognised(trainer.callback_metrics, self._names).get("train_accuracy", "")
        value = trainer.callback_metrics.get(self._accuracy_name) if self._accuracy_name else None
        if value is not None and not self._accuracy_name.endswith("epoch"):
            self._accuracy.add(value)

    def saw_validation(self, step: int, epoch: int) -> None:
        """Record that the validation values belong to the weights after ``step``, in the epoch numbered ``epoch``."""
        self._validated = (step, epoch)

    def end_epoch(self) -> None:
        """Start the next epoch."""
        self.loss.reset()
        self._accuracy.reset()

    def explained(self, trainer: Any) -> str:
        """Which of the logged names were recognised, in words; empty if already reported."""
        if self._explained:
            return ""
        self._explained = True
        return in_words(recognised(trainer.callback_metrics, self._names))

    def metrics(self, trainer: Any, step: int, epoch: int, ended: bool) -> LoopMetrics:
        """The metrics of a snapshot.

        Args:
            trainer: the Trainer.
            step: optimiser steps done.
            epoch: number of the current epoch, or of the one that has just ended, from 0.
            ended: whether it is the snapshot at the end of the epoch, which uses any validation within the epoch; other
                snapshots only use one of the same weights.
        """
        values = values_of(trainer.callback_metrics, self._names)
        if (accuracy := self._accuracy.mean()) is not None:
            values["train_accuracy"] = accuracy
        elif not ended:
            values.pop("train_accuracy", None)  # the mean of an earlier epoch
        validated = self._validated is not None and (
            self._validated[1] == epoch if ended else self._validated[0] == step
        )
        if not validated:
            values.pop("val_loss", None)
            values.pop("val_accuracy", None)
        metrics = LoopMetrics(values)
        if (loss := self.loss.mean()) is not None:
            metrics["train_loss"] = loss
        if self.loss.first is not None:
            metrics["first_loss"] = self.loss.first
        groups = [group for optimizer in trainer.optimizers for group in optimizer.param_groups]
        if groups and "lr" in groups[0]:
            metrics["learning_rate"] = float(groups[0]["lr"])
        if ended:
            metrics.epoch_losses = self.loss.parts()
        return metrics
