r"""An average of the weights over the last epoch's steps, kept next to the trained weights.

With n steps per epoch and the decay d = 1 − 1/n, after step t

.. math:: \bar W_t = \frac{\sum_{s \le t} d^{\,t-s}\, W_s}{\sum_{s \le t} d^{\,t-s}},

the exponential moving average without bias towards the start (*debiased*). It is updated in place,
:math:`\bar W \leftarrow \bar W + (W_t - \bar W)\, k/m_t` with :math:`m_t = d^k m_{t-k} + k`, once in k steps:
successive weights differ so little that :data:`UPDATES_AN_EPOCH` of them suffice for an epoch's average.

Only trained values are averaged: parameters that get gradients, and the running statistics of normalisation, which are
not estimated again, because that would take passes over the data. Only :meth:`WeightAverage.save` and
:meth:`WeightAverage.put` write to the model, between two steps.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

UPDATES_AN_EPOCH = 32
"""Updates of the average per epoch, evenly spaced; an epoch of fewer than 64 steps updates at every step."""

Copies = Mapping[str, Any]
"""Name of a weight → its values in host memory."""


class Weights(Protocol):
    """The trained weights of a model, each with its average on the same device."""

    @property
    def sharded(self) -> bool:
        """Whether this process holds only a part of the weights."""

    def follow(self) -> None:
        """Update the averaged weights if the set of trained weights has changed."""

    def blend(self, share: float) -> None:
        """Move the average by this fraction of the distance to the current weights."""

    def average(self) -> Copies:
        """Copies of the average."""

    def now(self) -> Copies:
        """Exact copies of the current weights."""

    def put(self, copies: Copies) -> None:
        """Write copies into the model."""

    def agree(self) -> None:
        """Copy per-process state, such as running statistics, from the first process; a collective."""

    def save_average(self, save: Callable[[Path], object], path: Path) -> None:
        """Write the average to a file with ``save``; the model's weights are exactly restored afterwards."""

    def put_average(self, copies: Copies) -> None:
        """Set the average from copies; names that the model does not have are ignored."""

    def whole(self, copies: Copies) -> Copies:
        """The whole of each of this process's ``copies``, for a checkpoint; a collective if they are sharded."""

    def part(self, copies: Copies) -> Copies:
        """This process's part of what :meth:`whole` returned."""


class NotSharded:
    """The part of :class:`Weights` in which each process holds all weights."""

    sharded = False

    def agree(self) -> None:
        """Does nothing: each process holds all weights."""

    def whole(self, copies: Copies) -> Copies:
        """``copies``."""
        return copies

    def part(self, copies: Copies) -> Copies:
        """``copies``."""
        return copies


class WeightAverage:
    """The debiased average; see the module's docstring.

    Args:
        weights: the weights and their averages.
        steps_per_epoch: optimiser steps per epoch; None if unknown before the first epoch has ended. Until then all
            steps have the same weight.
    """

    def __init__(self, weights: Weights, steps_per_epoch: int | None = None) -> None:
        self.weights = weights
        self._per_epoch = steps_per_epoch
        self._mass = 0.0
        self._waiting = self._in_epoch = 0

    def step(self, steps: int = 1) -> None:
        """Count ``steps`` more steps, and update the average if it is due."""
        self._waiting += steps
        self._in_epoch += steps
        if self._waiting >= max(1, (self._per_epoch or 0) // UPDATES_AN_EPOCH):
            self.settle()

    def settle(self) -> None:
        """Update the average with the current weights."""
        if not self._waiting:
            return
        decay = 1.0 if self._per_epoch is None else 1.0 - 1.0 / max(self._per_epoch, 1)
        self._mass = decay**self._waiting * self._mass + self._waiting
        self.weights.blend(self._waiting / self._mass)
        self._waiting = 0

    def end_epoch(self) -> None:
        """Set the horizon to the length of the epoch that has ended, if it is not known yet."""
        self.weights.follow()
        if self._per_epoch is None and self._in_epoch:
            self._per_epoch = self._in_epoch

    @property
    def begun(self) -> bool:
        """Whether the average has a value yet."""
        return self._mass > 0 or self._waiting > 0

    def save(self, save: Callable[[Path], object], path: Path) -> None:
        """Write the current average to a file with ``save``."""
        self.settle()
        self.weights.save_average(save, path)

    def put(self, copies: Copies) -> None:
        """Write copies into the model."""
        self.weights.put(copies)

    def copies(self) -> Copies:
        """Copies of the current average."""
        self.settle()
        return self.weights.average()

    def saved(self) -> Copies:
        """The average as it is, for a checkpoint; a collective if the weights are sharded."""
        return self.weights.whole(self.weights.average())

    def state(self) -> dict[str, Any]:
        """The state as plain numbers, without the average itself."""
        return {
            "mass": self._mass,
            "per_epoch": self._per_epoch,
            "in_epoch": self._in_epoch,
            "waiting": self._waiting,
        }

    def restore(self, state: Mapping[str, Any], copies: Copies) -> None:
        """Restore what :meth:`state` and :meth:`saved` returned.

        Raises:
            KeyError, TypeError, ValueError: if the state is invalid.
        """
        per_epoch = state["per_epoch"]
        mass, in_epoch, waiting = float(state["mass"]), int(state["in_epoch"]), int(state["waiting"])
        if mass > 0:
            self.weights.put_average(self.weights.part(copies))
        self._mass, self._in_epoch, self._waiting = mass, in_epoch, waiting
        self._per_epoch = None if per_epoch is None else int(per_epoch)


def save_in_place(weights: Weights, save: Callable[[Path], object], path: Path) -> None:
    """Write the average through the model, which holds it temporarily, and its exact weights afterwards."""
    trained = weights.now()
    try:
        weights.put(weights.average())
        save(path)
    finally:
        weights.put(trained)
