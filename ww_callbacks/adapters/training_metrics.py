"""What the loop already knows of the training: its loss, its accuracy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

_ACCURACY_NAMES = (
    "train_acc",
    "train_accuracy",
    "train/acc",
    "train/accuracy",
    "train_acc_epoch",
    "train_accuracy_epoch",
)


class MeanLoss:
    """Mean of the batches' losses since the last reset, summed where the losses lie: no device is waited for."""

    def __init__(self) -> None:
        self._sum: Any = None
        self._count = 0
        self._last: float | None = None

    def add(self, loss: Any, scale: float = 1.0) -> None:
        """Add one batch's loss, times ``scale``; None is left out."""
        if loss is None:
            return
        loss = loss.detach() if hasattr(loss, "detach") else loss
        loss = loss * scale
        self._sum = loss if self._sum is None else self._sum + loss
        self._count += 1

    def mean(self) -> float | None:
        """The mean; where nothing was added since the last reset, the mean before it, or None."""
        return float(self._sum) / self._count if self._count else self._last

    def reset(self) -> None:
        """Begin anew."""
        self._last = self.mean()
        self._sum, self._count = None, 0

    def state(self) -> list[float]:
        """Sum and count, to go on from."""
        return [0.0 if self._sum is None else float(self._sum), self._count]

    def restore(self, state: Sequence[float]) -> None:
        """Go on from what :meth:`state` gave."""
        total, count = state
        self._sum, self._count = (total, int(count)) if count else (None, 0)


def training_accuracy(metrics: Mapping[str, Any]) -> float | None:
    """The accuracy on the training data among what the user logs, by its usual names; None where there is none."""
    for name in _ACCURACY_NAMES:
        if name in metrics:
            return float(metrics[name])
    return None
