"""Tracks whether the training loss has lost its improvement."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass
class LossMemory:
    """The training loss so far, as plain values.

    The improvement is first − lowest.

    Attributes:
        loss_first, loss_lowest: the first and lowest finite losses, or None.
        loss_seen: number of finite losses.
        loss_stuck: True if the loss has lost more than half of its improvement (or never improved), False if not, None
            if there were fewer than two training losses.
    """

    loss_first: float | None = None
    loss_lowest: float | None = None
    loss_seen: int = 0
    loss_stuck: bool | None = None

    def take(self, metrics: Mapping[str, float]) -> None:
        """Process the snapshot's training loss, if there is one."""
        value = metrics.get("train_loss")
        if value is None:
            return
        if not math.isfinite(value):
            self.loss_stuck = True
            return
        loss = float(value)
        first = self.loss_first = loss if self.loss_first is None else self.loss_first
        lowest = self.loss_lowest = loss if self.loss_lowest is None else min(self.loss_lowest, loss)
        self.loss_seen += 1
        # a single loss shows no improvement yet
        self.loss_stuck = None if self.loss_seen < 2 else loss >= lowest + 0.5 * (first - lowest)

    def gained_little(self) -> bool:
        """Whether the lowest of several losses is still above 0.8 of the first."""
        if self.loss_first is None or self.loss_lowest is None:
            return False
        return self.loss_seen >= 3 and self.loss_lowest > 0.8 * self.loss_first
