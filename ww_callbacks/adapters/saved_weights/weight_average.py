r"""An average of the weights over the last epoch's steps, kept beside the weights that are trained.

With n steps an epoch and the decay d = 1 − 1/n, after step t

.. math:: \bar W_t = \frac{\sum_{s \le t} d^{\,t-s}\, W_s}{\sum_{s \le t} d^{\,t-s}},

the exponential moving average without a weight of its own for the start (*debiased*). It is updated in place,
:math:`\bar W \leftarrow \bar W + (W_t - \bar W)\, k/m_t` with :math:`m_t = d^k m_{t-k} + k`, once in k steps:
successive weights differ so little that :data:`UPDATES_AN_EPOCH` of them tell an epoch's average.

Only what is trained is averaged: parameters that get gradients, and the running statistics of normalisation. Those are
averaged like the weights, not estimated anew, which would take passes over the data. What the training reads is never
written, but by
:meth:`WeightAverage.save` and :meth:`WeightAverage.put`, between two steps.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

UPDATES_AN_EPOCH = 32
"""Times an epoch that the average is updated, at equal distances; at every step in an epoch of fewer than 64 steps."""

Copies = Mapping[str, Any]
"""Name of a weight → its values in host memory."""


class Weights(Protocol):
    """The weights of a model that are trained, with an average beside each, on the same device."""

    @property
    def sharded(self) -> bool:
        """Whether this process holds a part of the weights only."""

    def follow(self) -> None:
        """Average what the model has and trains now, where that has changed."""

    def blend(self, share: float) -> None:
        """Move the average towards the current weights by this share of the way."""

    def average(self) -> Copies:
        """Copies of the average."""

    def now(self) -> Copies:
        """Copies of the current weights, to the bit."""

    def put(self, copies: Copies) -> None:
        """Write copies into the model."""

    def agree(self) -> None:
        """Take over what every process has for itself, such as running statistics, from the first; a collective."""

    def save_average(self, save: Callable[[Path], object], path: Path) -> None:
        """Write the average to a file as ``save`` writes the weights; the model is then as it was, to the bit."""

    def put_average(self, copies: Copies) -> None:
        """Take copies for the average; names that the model does not have are passed over."""


class WeightAverage:
    """See the module's text.

    Args:
        weights: the weights and where their averages lie.
        steps_per_epoch: optimiser steps an epoch; None where that is known only when the first epoch has ended. Until
            then all steps weigh the same.
    """

    def __init__(self, weights: Weights, steps_per_epoch: int | None = None) -> None:
        self.weights = weights
        self._per_epoch = steps_per_epoch
        self._mass = 0.0
        self._waiting = self._in_epoch = 0

    def step(self, steps: int = 1) -> None:
        """Take the weights after ``steps`` more steps into the average, if it is time."""
        self._waiting += steps
        self._in_epoch += steps
        if self._waiting >= max(1, (self._per_epoch or 0) // UPDATES_AN_EPOCH):
            self.settle()

    def settle(self) -> None:
        """Take the current weights into the average."""
        if not self._waiting:
            return
        decay = 1.0 if self._per_epoch is None else 1.0 - 1.0 / max(self._per_epoch, 1)
        self._mass = decay**self._waiting * self._mass + self._waiting
        self.weights.blend(self._waiting / self._mass)
        self._waiting = 0

    def end_epoch(self) -> None:
        """Take the length of the epoch that has ended for the horizon, where it is not known yet."""
        self.weights.follow()
        if self._per_epoch is None and self._in_epoch:
            self._per_epoch = self._in_epoch

    @property
    def begun(self) -> bool:
        """Whether the average holds anything."""
        return self._mass > 0 or self._waiting > 0

    def save(self, save: Callable[[Path], object], path: Path) -> None:
        """Write the current average to a file, as ``save`` writes the weights."""
        self.settle()
        self.weights.save_average(save, path)

    def put(self, copies: Copies) -> None:
        """Write copies into the model."""
        self.weights.put(copies)

    def copies(self) -> Copies:
        """Copies of the current average."""
        self.settle()
        return self.weights.average()

    def state(self) -> dict[str, Any]:
        """Plain numbers to go on from, beside the average itself."""
        return {
            "mass": self._mass,
            "per_epoch": self._per_epoch,
            "in_epoch": self._in_epoch,
            "waiting": self._waiting,
        }

    def restore(self, state: Mapping[str, Any], copies: Copies) -> None:
        """Go on from what :meth:`state` and :meth:`Weights.average` gave.

        Raises:
            KeyError, TypeError, ValueError: if it is not one.
        """
        per_epoch = state["per_epoch"]
        mass, in_epoch, waiting = float(state["mass"]), int(state["in_epoch"]), int(state["waiting"])
        if mass > 0:
            self.weights.put_average(copies)
        self._mass, self._in_epoch, self._waiting = mass, in_epoch, waiting
        self._per_epoch = None if per_epoch is None else int(per_epoch)


def save_in_place(weights: Weights, save: Callable[[Path], object], path: Path) -> None:
    """Write the average through the model: it holds the average meanwhile, and then its weights again, to the bit."""
    trained = weights.now()
    try:
        weights.put(weights.average())
        save(path)
    finally:
        weights.put(trained)
