"""Values of a known spectrum that still hold, because the weights have hardly moved since."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import ceil, isfinite, isnan

import numpy as np

from ww_callbacks.spectral.estimates.estimate import Estimate
from ww_callbacks.spectral.measuring.layer_weights import LayerWeights, Value
from ww_callbacks.spectral.measuring.registry import Quantity

SMALLEST = 128
"""Layers with fewer eigenvalues are measured anew each time: that costs no more than the bounds."""

_RUNGS = 16
"""Distances for which bounds are kept; the largest is the tolerance times σ_1, twice as far as λ_1 itself allows."""


@dataclass(frozen=True)
class KnownSpectrum:
    """What is kept of a layer's last exact spectrum: values, and how far they can have moved, as plain values.

    Attributes:
        values: quantity → exact value then.
        bounds: quantity → how much it can have changed after a move of 1, 2, … units, as far as the tolerance allows.
        unit: the distance between two bounds.
        norm: ‖V‖_F of the weights V then.
        moved: at least ‖W−V‖_F: the sum of the moves from snapshot to snapshot.
        inestimable: whether an estimate was tried in vain; it is not tried again.
    """

    values: Mapping[str, float]
    bounds: Mapping[str, tuple[float, ...]]
    unit: float
    norm: float
    moved: float = 0.0
    inestimable: bool = field(default=False, kw_only=True)

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
        unit = tolerance * sample.largest_singular_value / _RUNGS
        bounds: dict[str, tuple[float, ...]] = {}
        known: dict[str, float] = {}
        with np.errstate(all="ignore"):
            for quantity in quantities:
                value = values.get(quantity.name)
                if quantity.change is None or not isinstance(value, float):
                    continue
                found: list[float] = []
                for rung in range(1, _RUNGS + 1):
                    # What cannot be told of W_0 cannot be told now either.
                    missing = isnan(value) and quantity.needs == "reference"
                    estimate = Estimate(value, 0.0 if missing else quantity.change(sample, rung * unit))
                    if not estimate.within(tolerance, quantity.logarithm):
                        break
                    found.append(estimate.error)
                known[quantity.name], bounds[quantity.name] = value, tuple(found)
        return cls(known, bounds, unit, sample.norm)

    def after(self, distance: float) -> KnownSpectrum:
        """The same after another move of the weights."""
        return replace(self, moved=self.moved + distance)

    def near(self, tolerance: float) -> bool:
        """Whether the weights have moved by less than ``tolerance`` of their norm."""
        return self.moved <= tolerance * self.norm

    def standing(self, quantities: Sequence[Quantity]) -> dict[str, Estimate] | None:
        """The values that still hold, each with its bound; None unless all ``quantities`` are within the tolerance."""
        rung = ceil(self.moved / self.unit) if isfinite(self.moved) else _RUNGS + 1
        found = {}
        for quantity in quantities:
            bounds = self.bounds.get(quantity.name, ())
            if quantity.name not in self.values or rung > len(bounds):
                return None
            found[quantity.name] = Estimate(self.values[quantity.name], bounds[rung - 1] if rung else 0.0)
        return found
