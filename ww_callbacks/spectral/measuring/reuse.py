"""Values of a known spectrum that still hold, because the weights have hardly moved since."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import ceil, isfinite, isnan

import numpy as np

from ww_callbacks.spectral.estimates.estimate import Estimate
from ww_callbacks.spectral.measuring.layer_weights import LayerWeights, Value
from ww_callbacks.spectral.measuring.registry import Quantity

SMALLEST = 256
"""Layers with fewer eigenvalues are measured anew each time: that costs no more than the bounds."""

_RUNGS = 8
"""Bounds kept of a quantity, at equal steps up to the distance at which it exceeds the tolerance."""

_FARTHEST = 2.0
"""The largest distance looked at, in units of the tolerance times ‖V‖_F."""

_SHORTEST = 2.0**-12
"""The smallest, in units of the largest."""


@dataclass(frozen=True)
class Reach:
    """How far a quantity's value can be trusted.

    Attributes:
        value: the exact value.
        unit: the distance from one bound to the next.
        bounds: how much the value can have changed after a move of 1, 2, … units; none where no move is allowed.
    """

    value: float
    unit: float
    bounds: tuple[float, ...]

    @classmethod
    def of(cls, sample: LayerWeights, quantity: Quantity, value: float, tolerance: float) -> Reach:
        """As far as the change of ``quantity`` stays within ``tolerance``."""
        change = quantity.change
        assert change is not None
        if isnan(value) and quantity.needs == "reference":  # what cannot be told of W_0 cannot be told later either
            change = _no_change

        def after(distance: float) -> Estimate:
            return Estimate(value, change(sample, distance))

        distance = farthest = _FARTHEST * tolerance * sample.norm
        while not after(distance).within(tolerance, quantity.logarithm):
            distance *= 0.7
            if distance < _SHORTEST * farthest:
                return cls(value, distance, ())
        unit = distance / _RUNGS
        return cls(value, unit, tuple(after(rung * unit).error for rung in range(1, _RUNGS + 1)))

    def after(self, distance: float) -> Estimate | None:
        """The value after a move of so much; None where it may have changed by more than the tolerance."""
        rung = ceil(distance / self.unit) if isfinite(distance) else _RUNGS + 1
        if rung > len(self.bounds):
            return None
        return Estimate(self.value, self.bounds[rung - 1] if rung else 0.0)


def _no_change(sample: LayerWeights, distance: float) -> float:
    return 0.0


@dataclass(frozen=True)
class KnownSpectrum:
    """What is kept of a layer's last exact spectrum, as plain values.

    Attributes:
        reaches: quantity → its value then, and how far it can be trusted.
        norm: ‖V‖_F of the weights V then.
        moved: at least ‖W−V‖_F: the sum of the moves from snapshot to snapshot.
        inestimable: quantities that it was tried in vain to estimate together; it is not tried again.
    """

    reaches: Mapping[str, Reach]
    norm: float
    moved: float = 0.0
    inestimable: tuple[str, ...] = ()

    @classmethod
    def of(
        cls, sample: LayerWeights, quantities: Sequence[Quantity], values: Mapping[str, Value], tolerance: float
    ) -> KnownSpectrum | None:
        """What to keep of a layer that was measured exactly; None where it has too few eigenvalues.

        Args:
            sample: the layer, its singular values computed.
            quantities: those whose values may be asked for again.
            values: their values.
            tolerance: the relative error that is allowed.
        """
        if len(sample.eigenvalues) < SMALLEST or not sample.largest_singular_value > 0.0:
            return None
        known = {q: values.get(q.name) for q in quantities if q.change is not None}
        with np.errstate(all="ignore"):
            reaches = {
                q.name: Reach.of(sample, q, value, tolerance) for q, value in known.items() if isinstance(value, float)
            }
        return cls(reaches, sample.norm)

    def after(self, distance: float) -> KnownSpectrum:
        """The same after another move of the weights."""
        return replace(self, moved=self.moved + distance)

    def near(self, tolerance: float) -> bool:
        """Whether the weights have moved by less than ``tolerance`` of their norm."""
        return self.moved <= tolerance * self.norm

    def standing(self, quantities: Sequence[Quantity]) -> dict[str, Estimate]:
        """The values of those of ``quantities`` that still hold, each with its bound."""
        found = {q.name: self.reaches[q.name].after(self.moved) for q in quantities if q.name in self.reaches}
        return {name: estimate for name, estimate in found.items() if estimate is not None}
