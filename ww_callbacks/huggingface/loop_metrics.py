"""The metrics of a snapshot from a Trainer: the loss of each step, the learning rate, the evaluations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import transformers

from ww_callbacks.adapters.training_metrics import StepLosses, recognised, values_of
from ww_callbacks.huggingface.private import running_loss
from ww_callbacks.scheduling.loop_metrics import LoopMetrics

_OF_AN_EVALUATION = ("val_loss", "val_accuracy")


class TrainerMetrics:
    """The metrics of the next snapshot.

    Args:
        asked: metric → its name in the loop, given by the user.
    """

    def __init__(self, asked: Mapping[str, str]) -> None:
        self._asked = asked
        self._losses = StepLosses()
        self._before: Any = None
        self._epoch_ended = False
        self._trained: dict[str, float] = {}
        self.names: dict[str, str] = {}
        """Metric → the name under which the loop logs it, as far as recognised."""

    def step(self, trainer: transformers.Trainer | None, state: transformers.TrainerState) -> None:
        """Record the loss of the last step on its device, without waiting for it."""
        if self._epoch_ended:
            self._losses.reset()
            self._epoch_ended = False
        total, logged_at = running_loss(trainer)
        if total is None:
            return
        total = total.detach()
        # The Trainer's sum restarts after each row that it logs.
        begun = self._before is None or logged_at >= state.global_step - 1
        self._losses.add(total.clone() if begun else total - self._before)
        self._before = total.clone()

    def end_epoch(self) -> None:
        """Start the next epoch's losses at its first step: until then those of this epoch may be read."""
        self._epoch_ended = True

    def logged(self, logs: Mapping[str, Any]) -> None:
        """Record the logged training metrics, such as TRL's accuracy."""
        if "loss" not in logs:
            return
        self.names |= {m: n for m, n in recognised(logs, self._asked).items() if m not in _OF_AN_EVALUATION}
        self._trained |= {m: v for m, v in values_of(logs, self._asked).items() if m not in _OF_AN_EVALUATION}

    def collect(self, optimizer: Any, evaluation: Mapping[str, Any] | None, ended: bool) -> LoopMetrics:
        """The metrics of a snapshot taken now.

        Args:
            optimizer: the Trainer's optimiser.
            evaluation: the metrics of the evaluation of these weights; None without one.
            ended: whether an epoch ends here.
        """
        metrics = LoopMetrics(self._trained)
        self._trained = {}
        if evaluation is not None:
            metrics |= values_of(evaluation, self._asked)
        if (loss := self._losses.mean()) is not None:
            metrics["train_loss"] = loss
        if self._losses.first is not None:
            metrics["first_loss"] = self._losses.first
        if optimizer is not None:
            metrics["learning_rate"] = float(optimizer.param_groups[0]["lr"])
        if ended:
            metrics.epoch_losses = self._losses.parts()
        return metrics

    def evaluated(self, evaluation: Mapping[str, Any]) -> None:
        """Record the metric names of an evaluation."""
        self.names |= recognised(evaluation, self._asked)

    def state(self) -> list[Any]:
        """The state as plain values."""
        return [self._losses.state(), self._epoch_ended]

    def restore(self, state: Sequence[Any]) -> None:
        """Restore what :meth:`state` returned.

        Raises:
            TypeError, ValueError: if the state is invalid.
        """
        losses, ended = state
        self._losses.restore(losses)
        self._epoch_ended = bool(ended)
