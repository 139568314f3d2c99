"""Whether the training loss has lost what the run had gained."""

from __future__ import annotations

import math
from collections.abc import Mapping

from ww_callbacks.spectral.detectors.arguments import Memory


class LossMemory:
    """Whether the training loss has lost what the run had gained; kept in a detector's plain memory.

    The gain is first − lowest. ``stuck`` is True where the loss is back above half of it (or nothing was ever gained),
    False where it is not, None where no training loss is known.
    """

    @staticmethod
    def take(memory: Memory, metrics: Mapping[str, float]) -> None:
        """Take the snapshot's training loss, if there is one."""
        value = metrics.get("train_loss")
        if value is None:
            return
        if not math.isfinite(value):
            memory["loss_stuck"] = True
            return
        first = memory.setdefault("loss_first", float(value))
        lowest = min(memory.get("loss_lowest", math.inf), float(value))
        memory["loss_lowest"] = lowest
        # the first loss alone tells nothing: there is no gain yet
        known = memory["loss_seen"] = memory.get("loss_seen", 0) + 1
        memory["loss_stuck"] = None if known < 2 else value >= lowest + 0.5 * (first - lowest)

    @staticmethod
    def stuck(memory: Memory) -> bool | None:
        """See the class."""
        return memory.get("loss_stuck")

    @staticmethod
    def gained_little(memory: Memory) -> bool:
        """Whether the lowest loss of several is still above 0.8 of the first."""
        return memory.get("loss_seen", 0) >= 3 and memory["loss_lowest"] > 0.8 * memory["loss_first"]
