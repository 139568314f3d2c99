"""Whether logged validation values have turned for the worse by more than their noise."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from typing import Any

REMEMBERED = 20
"""Values that the noise is estimated from."""
CLEAR = 0.05
"""A score that is lower than its best by this share of it has fallen; a loss that is higher is not as good."""
RISEN = 0.2
"""What is worse than the best by this share of it is no noise, however few the values."""
SLIPPED = 0.02
"""A value that got worse twice in a row by less than this share of the best may still be noise."""
LATER = 3
"""Epochs after the best in which a value can be as good; the average of the weights is best a few epochs later."""
SMALLEST = 0.005
"""A change below this share of the best value never counts."""


def noise_of(values: Sequence[float]) -> float:
    """Robust standard deviation of the change from one epoch to the next: 1.4826 times its median absolute deviation.

    Args:
        values: values of successive epochs.

    Returns:
        The deviation; 0 with fewer than three values.

    Examples:
        >>> round(noise_of([1.0, 1.0, 1.1, 1.0, 1.0, 6.0]), 4)
        0.1483
    """
    changes = [b - a for a, b in pairwise(values)]
    if len(changes) < 2:
        return 0.0
    middle = _median(changes)
    return 1.4826 * _median([abs(c - middle) for c in changes])


def _median(values: Sequence[float]) -> float:
    ordered = sorted(values)
    half = len(ordered) // 2
    return ordered[half] if len(ordered) % 2 else 0.5 * (ordered[half - 1] + ordered[half])


@dataclass
class ValidationTrend:
    """The trend of one validation value, online.

    The value is worse where it lies beyond its best by more than ``margin`` times its noise and half a per cent of it.
    It has turned where that held in ``streak`` epochs in a row without a new best.

    Attributes:
        margin: multiples of the noise.
        higher_is_better: whether a score is followed, and not a loss.
        epochs: values seen.
        best: best value so far.
        best_at: (step, epoch) of it.
        good_at: (step, epoch) of the last value before the streak that was as good as the best: no worse than its noise
            and ``CLEAR`` allow, at most ``LATER`` epochs after it, and not the second in a row
            that was worse than the one before.
        after: (step, epoch) of the first value after that one; empty if there is none.
        last: the last value.
        streak: epochs in a row in which it was worse.
        since: (step, epoch) at which that began.
        climb: epochs in a row since the best, each worse than the one before; 0 if one was not.
        climb_since: (step, epoch) at which that began.
        broken: whether a value since the best was no worse than the one before.
        recent: the last values.
        worse: whether the last value is worse than the best by more than the noise.
    """

    margin: float = 2.0
    higher_is_better: bool = False
    epochs: int = 0
    best: float | None = None
    best_at: list[float] = field(default_factory=list)
    good_at: list[float] = field(default_factory=list)
    after: list[float] = field(default_factory=list)
    last: float | None = None
    streak: int = 0
    since: list[float] = field(default_factory=list)
    climb: int = 0
    climb_since: list[float] = field(default_factory=list)
    broken: bool = False
    recent: list[float] = field(default_factory=list)
    worse: bool = False

    def update(self, value: float, step: int, epoch: float) -> None:
        """Take the value of an epoch; values that are not finite are passed over."""
        if not math.isfinite(value):
            return
        cost = -value if self.higher_is_better else value
        sign = -1.0 if self.higher_is_better else 1.0
        self.recent.append(value)
        del self.recent[:-REMEMBERED]
        self.epochs += 1
        before, self.last = self.last, value
        best = math.inf if self.best is None else sign * self.best
        if cost < best:
            self.best, self.best_at, self.good_at, self.after = value, [step, epoch], [step, epoch], []
            self.streak, self.since, self.climb, self.climb_since, self.broken = 0, [], 0, [], False
            self.worse = False
            return
        if self.broken or before is None or not cost > sign * before:
            self.climb, self.broken = 0, True
        else:
            self.climb += 1
            self.climb_since = self.climb_since or [step, epoch]
        self.worse = cost > best + self.margin * noise_of(self.recent) + SMALLEST * abs(best)
        if not self.worse:
            near = cost <= best + CLEAR * abs(best) and epoch - self.best_at[1] <= LATER
            if near and self.streak == 0 and self.climb < 2:
                self.good_at, self.after = [step, epoch], []
            else:
                self.after = self.after or [step, epoch]
            return
        self.after = self.after or [step, epoch]
        self.streak += 1
        if self.streak == 1:
            self.since = [step, epoch]

    def turned(self, share: float, least: int) -> bool:
        """Whether it has been worse for ``least`` epochs and this share of all epochs."""
        return self.streak >= max(least, math.ceil(share * self.epochs))

    @property
    def setback(self) -> float:
        """By which share of its best the last value is worse; 0 before the first."""
        if self.best is None or self.last is None or not self.best:
            return 0.0
        return abs(self.last - self.best) / abs(self.best)

    @property
    def falls(self) -> bool:
        """Whether a value since the best was worse by more than the noise, or the last ones got worse and worse."""
        return self.streak > 0 or (self.climb >= 2 and self.setback > SLIPPED) or self.setback > CLEAR

    @property
    def declines(self) -> bool:
        """Whether the last value is clearly worse than the best, or the last three got worse and worse."""
        return self.setback > (CLEAR if self.worse else RISEN) or self.climb >= 3

    @property
    def declines_since(self) -> list[float]:
        """(step, epoch) at which it began to get worse, after ``good_at``; empty if it did not."""
        if self.climb:
            return list(max(self.climb_since, self.after))
        return list(self.since or self.after)

    def state_dict(self) -> dict[str, Any]:
        """The state as JSON-able plain values."""
        return asdict(self)

    @classmethod
    def of(cls, state: Mapping[str, Any]) -> ValidationTrend:
        """The trend that was saved."""
        return cls(**{"good_at": state["best_at"], **state})  # an older version saved no ``good_at``
