"""When a snapshot is due."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ww_callbacks.engine.snapshot_kind import Kind

SNAPSHOTS_OF_A_RUN_WITHOUT_EPOCHS = 20
FEW_EPOCHS = 5
STEPS_WHERE_NOTHING_IS_PLANNED = 500


@dataclass(frozen=True)
class Plan:
    """What the trainer knows in advance about the length of the run; None if unknown.

    Attributes:
        epochs: planned epochs.
        steps: planned optimiser steps.
        steps_per_epoch: optimiser steps per epoch.
    """

    epochs: float | None = None
    steps: int | None = None
    steps_per_epoch: int | None = None

    @property
    def effective_epochs(self) -> float | None:
        """The actual number of epochs: ``steps`` may end the run before ``epochs`` does."""
        by_steps = self.steps / self.steps_per_epoch if self.steps and self.steps_per_epoch else None
        known = [e for e in (self.epochs, by_steps) if e is not None]
        return min(known) if known else None

    @property
    def total_steps(self) -> int | None:
        """The actual number of optimiser steps."""
        by_epochs = self.epochs * self.steps_per_epoch if self.epochs and self.steps_per_epoch else None
        known = [s for s in (self.steps, by_epochs) if s is not None]
        return math.ceil(min(known)) if known else None


@dataclass(frozen=True)
class Cadence:
    """A full snapshot every n epochs or steps, and optionally cheap ones more often.

    Attributes:
        every_n_epochs: epochs between full snapshots; None if not counted in epochs.
        every_n_steps: steps between full snapshots; None if not counted in steps.
        cheap_every_n_steps: steps between snapshots of the quantities that need no spectrum; None for no such
            snapshots.
    """

    every_n_epochs: int | None = None
    every_n_steps: int | None = None
    cheap_every_n_steps: int | None = None

    @classmethod
    def resolve(
        cls,
        every_n_epochs: int | None,
        every_n_steps: int | None,
        cheap_every_n_steps: int | None,
        plan: Plan,
    ) -> Cadence:
        """The requested cadence; by default every epoch, or about twenty times per run with few or no epochs."""
        if every_n_epochs is None and every_n_steps is None:
            epochs, steps, sized = plan.effective_epochs, plan.total_steps, plan.steps_per_epoch is not None
            if sized and (epochs is None or epochs >= FEW_EPOCHS):
                every_n_epochs = 1
            elif steps is not None:
                every_n_steps = max(1, round(steps / SNAPSHOTS_OF_A_RUN_WITHOUT_EPOCHS))
                # Overtraining is judged at the end of an epoch, in short runs too.
                every_n_epochs = 1 if epochs is not None and epochs >= 2 else None
            else:  # an epoch over a stream may never end
                every_n_epochs = None if epochs is None else 1
                every_n_steps = STEPS_WHERE_NOTHING_IS_PLANNED
        return cls(every_n_epochs, every_n_steps, cheap_every_n_steps)

    def due_at_step(self, step: int) -> Kind | None:
        """The kind of snapshot due after optimiser step ``step`` (counted from 1)."""
        if self.every_n_steps and step % self.every_n_steps == 0:
            return "full"
        if self.cheap_every_n_steps and step % self.cheap_every_n_steps == 0:
            return "cheap"
        return None

    def due_at_epoch(self, epoch: int) -> Kind | None:
        """The kind of snapshot due after ``epoch`` completed epochs (counted from 1)."""
        return "full" if self.every_n_epochs and epoch % self.every_n_epochs == 0 else None

    def due_between(self, before: tuple[int, float], now: tuple[int, float]) -> Kind | None:
        """The kind of snapshot that became due between two points of a run, each a pair (steps, epochs)."""

        def passed(every: int | None, old: float, new: float) -> bool:
            return every is not None and new // every > old // every

        if passed(self.every_n_steps, before[0], now[0]) or passed(self.every_n_epochs, before[1], now[1]):
            return "full"
        return "cheap" if passed(self.cheap_every_n_steps, before[0], now[0]) else None

    def __str__(self) -> str:
        parts = []
        if self.every_n_epochs:
            parts.append("every epoch" if self.every_n_epochs == 1 else f"every {self.every_n_epochs} epochs")
        if self.every_n_steps:
            parts.append("every step" if self.every_n_steps == 1 else f"every {self.every_n_steps} steps")
        if self.cheap_every_n_steps:
            parts.append(f"cheap quantities every {self.cheap_every_n_steps} steps")
        return ", ".join(parts)
