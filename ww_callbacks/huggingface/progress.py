"""Progress of a Trainer in epochs: its own count if the data has a length, otherwise passes over the data."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import transformers
from transformers.trainer_utils import has_length

from ww_callbacks.scheduling.cadence import Plan

_CLOSE = 1e-6
"""``state.epoch`` is a sum of fractions."""


def plan(args: transformers.TrainingArguments, state: transformers.TrainerState, loader: Any) -> Plan:
    """The planned steps, and the steps per epoch if the data has a length.

    Without one the Trainer's ``num_train_epochs`` is the largest integer, so only the steps count.
    """
    per_epoch = None
    if has_length(loader):
        per_epoch = max(1, math.ceil(len(loader) / args.gradient_accumulation_steps))
    return Plan(steps=state.max_steps or None, steps_per_epoch=per_epoch)


@dataclass
class EpochClock:
    """Epochs completed; never decreases.

    Uses ``state.epoch``. If the data has no length, that is the share of the planned steps within the first pass over
    the data, and a completed pass counts as one epoch.

    Attributes:
        sized: whether the data has a length.
        passes: number of completed passes over the data.
        reached: epochs completed at the last call, including the fraction of the current one.
        ended_at: the step at which the last epoch ended, or training began.
    """

    sized: bool = True
    passes: int = 0
    reached: float = 0.0
    ended_at: int = 0

    @classmethod
    def of(cls, loader: Any, step: int) -> EpochClock:
        """The clock of a training with this loader, which starts or continues at ``step``."""
        return cls(sized=has_length(loader), ended_at=step)

    def now(self, state: transformers.TrainerState) -> float:
        """Epochs completed, with the fraction of the one that runs."""
        epoch = float(state.epoch or 0.0)
        whole = round(epoch)
        self.reached = max(self.reached, float(whole) if abs(epoch - whole) < _CLOSE else epoch)
        return self.reached

    def end_epoch(self, state: transformers.TrainerState, control: transformers.TrainerControl) -> int | None:
        """Count the epoch that ends; None if it ends before its data does, with the training, or had no step.

        When resuming in a later pass over a stream, the Trainer skips the earlier passes and ends an epoch for each.
        """
        epoch = self.now(state)
        before, self.ended_at = self.ended_at, state.global_step
        if state.global_step == before:
            return None
        unfinished = control.should_training_stop and not (self.sized and epoch == round(epoch))
        if unfinished:
            return None
        self.passes += 1
        # A callback may end an epoch early (`should_epoch_stop`): the next one starts at the next whole number.
        self.reached = max(self.reached, float(math.ceil(epoch) if self.sized else self.passes))
        return int(self.reached)
