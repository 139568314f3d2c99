"""Growth exponents in log time, online: what a quantity gains over the last doubling of a run's clock."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

THINNING = 1.02
"""Snapshots closer in time than this ratio share one point of the history, which keeps it to about 40 points."""


class Clock:
    """How far a run has gone: cumulative learning rate where it is known, optimiser steps where it is not.

    A falling learning rate freezes the weights, so that epochs go on while nothing moves; cumulative learning rate does
    not. The rate between two snapshots is taken as the mean of the two.
    """

    def __init__(self) -> None:
        self.time = 0.0
        self._step: int | None = None
        self._rate: float | None = None

    def advance(self, step: int, rate: float | None) -> float:
        """Go to ``step``, where the learning rate is ``rate``, and return the time since the start."""
        if rate is not None and not (math.isfinite(rate) and rate >= 0):
            rate = None
        if self._step is None:
            self._step, self._rate = 0, rate
        if rate is not None and self._rate is None and self.time == 0:
            self._rate = rate
        if rate is None or self._rate is None:  # one clock for the whole run: without a rate, the last known one
            mean = self._rate if self._rate is not None else 1.0
        else:
            mean = 0.5 * (rate + self._rate)
            self._rate = rate
        self.time += max(step - self._step, 0) * mean
        self._step = step
        return self.time

    def state_dict(self) -> dict[str, Any]:
        """The state as JSON-able plain values."""
        return {"time": self.time, "step": self._step, "rate": self._rate}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore a saved state."""
        self.time, self._step, self._rate = state["time"], state["step"], state["rate"]


class LogSlopes:
    r"""Slopes of several series x in log time over the last doubling, and their rise above their own minimum.

    .. math:: s(t) = \frac{x(t) - x(h)}{\ln(t/h)}, \qquad \text{rise}(t) = s(t) - \min_{b \le \tau \le t} s(\tau)

    with h the first snapshot at or after t/2 (at the latest the one before) and b the end of the burn-in. For x = ln y,
    s is the exponent of growth y ∝ t^s; it does not depend on the scale of y or on the unit of time.

    ``past`` holds x(h). Memory is bounded: points older than t/2 are dropped and points closer than ``THINNING`` share
    one.
    """

    def __init__(self, burn_in: int):
        self.burn_in = burn_in
        self.snapshots = 0
        self.slopes: dict[str, float] = {}
        self.past: dict[str, float] = {}
        self.lowest: dict[str, float] = {}
        self._times: list[float] = []
        self._points: list[dict[str, float]] = []

    def add(self, time: float, values: Mapping[str, float]) -> bool:
        """Take the values at ``time``; False where time has not moved on, and nothing is changed."""
        if time <= 0 or (self._times and time <= self._times[-1]):
            return False
        self.snapshots += 1
        # with room for rounding, so that the unit of time cannot move the boundary
        while len(self._times) > 1 and self._times[0] < 0.5 * time * (1 - 1e-9):
            self._times.pop(0)
            self._points.pop(0)
        self.slopes, self.past = {}, {}
        for name, value in values.items():
            past = next(((t, p[name]) for t, p in zip(self._times, self._points, strict=True) if name in p), None)
            if past is not None:
                self.past[name] = past[1]
                slope = (value - past[1]) / math.log(time / past[0])
                self.slopes[name] = slope
                if self.snapshots >= self.burn_in:
                    self.lowest[name] = min(self.lowest.get(name, math.inf), slope)
        if not self._times or time >= THINNING * self._times[-1]:
            self._times.append(time)
            self._points.append(dict(values))
        return True

    def rise(self, name: str) -> float | None:
        """Rise of the slope of ``name`` above its own minimum; None while unknown."""
        if name not in self.slopes or name not in self.lowest:
            return None
        return self.slopes[name] - self.lowest[name]

    def state_dict(self) -> dict[str, Any]:
        """The state as JSON-able plain values."""
        return {
            "snapshots": self.snapshots,
            "slopes": dict(self.slopes),
            "past": dict(self.past),
            "lowest": dict(self.lowest),
            "times": list(self._times),
            "points": [dict(p) for p in self._points],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore a saved state."""
        self.snapshots = state["snapshots"]
        self.slopes, self.lowest = dict(state["slopes"]), dict(state["lowest"])
        self.past = dict(state["past"])
        self._times, self._points = list(state["times"]), [dict(p) for p in state["points"]]
