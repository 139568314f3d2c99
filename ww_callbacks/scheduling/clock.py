"""Progress of a run: counts steps and epochs from the hooks of any framework."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ww_callbacks.engine.snapshot_kind import Kind
from ww_callbacks.scheduling.cadence import Cadence


class Clock:
    """Counts optimiser steps, batches and epochs; the counts never decrease.

    A framework's counter may not advance (raw optimisers in Lightning, models with their own optimisers in Keras), jump
    (several optimisers), count something else, or restart. It is only used to decide which batches ended in a step.
    Several optimisers that step in one batch are one step, so ``every_n_steps=10`` means every tenth batch that changes
    the weights.

    Args:
        steps: optimiser steps done so far.
        epochs: epochs completed so far.
        counter: the framework's current step count, if it differs from ``steps``.

    Examples:
        >>> clock = Clock()
        >>> [clock.saw_batches(counter=counter) for counter in (3, 6, 9)]  # three optimisers
        [True, True, True]
        >>> clock.steps
        3
    """

    def __init__(self, steps: int = 0, epochs: int = 0, counter: int | None = None) -> None:
        self.steps = steps
        self.batches = 0
        self.epochs = epochs
        self._fraction = 0.0
        self._counter = steps if counter is None else counter
        self._idle = 0
        self._looked = (steps, float(epochs))
        self._began = 0
        self._length = 0

    @property
    def epoch(self) -> float:
        """Epochs completed, including the fraction of the current one."""
        return self.epochs + self._fraction

    def saw_batches(
        self,
        count: int = 1,
        *,
        counter: int | None = None,
        stepped: bool | None = None,
        per_step: int = 1,
        fraction: float = 0.0,
    ) -> bool:
        """Count training batches that have ended.

        Args:
            count: number of batches, if a hook is called once for several.
            counter: the framework's current count of optimiser steps; None if it has none.
            stepped: whether the weights were updated, if the caller knows; the counter is then ignored.
            per_step: number of batches whose gradients are accumulated into one step. If the counter does not advance
                for as many batches, it does not count this training, and batches are counted instead.
            fraction: completed fraction of the epoch; 0 if its length is unknown. It is then taken from the batches of
                the last epoch, and stays below 1 until the epoch ends.

        Returns:
            Whether there was a step.
        """
        self.batches += count
        self._idle += count
        moved = 0 if counter is None else counter - self._counter
        if counter is not None:
            self._counter = counter
        if stepped is not None:
            gained = count if stepped else 0
        elif moved > 0:
            gained = min(moved, count)
        else:
            gained = self._idle // max(per_step, 1)
        if gained:
            self._idle = 0 if moved > 0 or stepped else self._idle % max(per_step, 1)
        self.steps += gained
        if not fraction and self._length:
            fraction = min(self.batches - self._began, self._length - 0.5) / self._length
        self._fraction = max(self._fraction, min(fraction, 1.0))
        return gained > 0

    def saw_epoch(self, completed: int | None = None) -> None:
        """Count an epoch that has ended.

        Args:
            completed: the framework's count of completed epochs, including this one; it may be larger than this
                clock's.
        """
        self.epochs = max(self.epochs + 1, completed or 0)
        self._fraction = 0.0
        self._began, self._length = self.batches, self.batches - self._began

    def due(self, cadence: Cadence) -> Kind | None:
        """The kind of snapshot that became due since the last call; each is returned once."""
        now = (self.steps, float(self.epochs))
        before, self._looked = self._looked, now
        return cadence.due_between(before, now)

    def due_at_epoch_end(self, cadence: Cadence) -> bool:
        """Whether a full snapshot is due at the end of the current epoch."""
        return cadence.due_between((self.steps, float(self.epochs)), (self.steps, self.epochs + 1.0)) == "full"

    def state(self) -> dict[str, Any]:
        """The state as plain numbers."""
        return {
            "steps": self.steps,
            "batches": self.batches,
            "epochs": self.epochs,
            "fraction": self._fraction,
            "counter": self._counter,
            "idle": self._idle,
            "looked": list(self._looked),
            "epoch": [self._began, self._length],
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Restore what :meth:`state` returned.

        Raises:
            KeyError, TypeError, ValueError: if the state is invalid; nothing is changed then.
        """
        steps, batches, epochs, counter, idle = (
            int(state[name]) for name in ("steps", "batches", "epochs", "counter", "idle")
        )
        looked_steps, looked_epochs = state["looked"]
        looked = (int(looked_steps), float(looked_epochs))
        began, length = state.get("epoch", (batches, 0))  # a state of an earlier version has none
        self._began, self._length = int(began), int(length)
        self._fraction = float(state["fraction"])
        self.steps, self.batches, self.epochs = steps, batches, epochs
        self._counter, self._idle, self._looked = counter, idle, looked
