"""Reuses values of an earlier spectrum while the change of the weights bounds their error."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import ceil, isfinite, isnan

import numpy as np

from ww_callbacks.spectral.estimates.estimate import Estimate
from ww_callbacks.spectral.measuring.layer_weights import LayerWeights, Value
from ww_callbacks.spectral.measuring.registry import Quantity

SMALLEST = 256
"""Layers with fewer eigenvalues are always measured again: that costs no more than the bounds."""

_RUNGS = 8
"""Number of bounds kept per quantity, evenly spaced up to the distance at which it exceeds the tolerance."""

_LONGEST = 64
"""Largest number of exact spectra between two attempts to estimate."""

_FARTHEST = 2.0
"""The largest distance considered, in units of the tolerance times ‖V‖_F."""

_SHORTEST = 2.0**-12
"""The smallest distance considered, in units of the largest."""


@dataclass(frozen=True)
class Reach:
    """How far the weights can change before a quantity's value is outdated.

    Attributes:
        value: the exact value.
        unit: the distance from one bound to the next.
        bounds: bounds on the change of the value after a change of the weights of 1, 2, … units; empty if none is
            allowed.
    """

    value: float
    unit: float
    bounds: tuple[float, ...]

    @classmethod
    def of(cls, sample: LayerWeights, quantity: Quantity, value: float, tolerance: float) -> Reach:
        """The bounds up to which ``quantity`` stays within ``tolerance``."""
        change = quantity.change
        assert change is not None
        if isnan(value) and quantity.needs == "reference":  # not computable for W_0, so not later either
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
        """The value after this change of the weights; None if it may have changed by more than the tolerance."""
        rung = ceil(distance / self.unit) if isfinite(distance) else _RUNGS + 1
        if rung > len(self.bounds):
            return None
        return Estimate(self.value, self.bounds[rung - 1] if rung else 0.0)


def _no_change(sample: LayerWeights, distance: float) -> float:
    return 0.0


@dataclass(frozen=True)
class KnownSpectrum:
    """The data kept from a layer's last exact spectrum, as plain values.

    Attributes:
        reaches: quantity → its value then, and its bounds.
        norm: ‖V‖_F of the weights V at that time.
        moved: an upper bound of ‖W−V‖_F: the sum of the changes from snapshot to snapshot.
        inestimable: quantities whose estimation failed.
        skips: number of exact spectra until it is tried again.
        patience: number of exact spectra between the last two attempts; it doubles with each that fails.
    """

    reaches: Mapping[str, Reach]
    norm: float
    moved: float = 0.0
    inestimable: tuple[str, ...] = ()
    skips: int = 0
    patience: int = 0

    @classmethod
    def of(
        cls,
        sample: LayerWeights,
        quantities: Sequence[Quantity],
        values: Mapping[str, Value],
        tolerance: float,
        moved: float = 0.0,
    ) -> KnownSpectrum | None:
        """The data to keep of a layer that was measured exactly; None if it has too few eigenvalues.

        Args:
            sample: the layer, with its singular values computed.
            quantities: those whose values may be requested again.
            values: their values.
            tolerance: the allowed relative error.
            moved: the last change of the weights in ‖·‖_F, if there was one.
        """
        if len(sample.eigenvalues) < SMALLEST or not sample.largest_singular_value > 0.0:
            return None
        # No bounds are needed while the weights change so much between snapshots that no value could be reused.
        fast = moved > _FARTHEST * tolerance * sample.norm
        known = {} if fast else {q: values.get(q.name) for q in quantities if q.change is not None}
        with np.errstate(all="ignore"):
            reaches = {
                q.name: Reach.of(sample, q, value, tolerance) for q, value in known.items() if isinstance(value, float)
            }
        return cls(reaches, sample.norm)

    def after(self, distance: float) -> KnownSpectrum:
        """The same after a further change of the weights."""
        return replace(self, moved=self.moved + distance)

    def tried_in_vain(self, vain: tuple[str, ...], before: KnownSpectrum | None) -> KnownSpectrum:
        """The same with the estimations that failed.

        Args:
            vain: the quantities whose estimation was tried now and failed.
            before: what was known before this spectrum.
        """
        inestimable, skips, patience = (before.inestimable, before.skips, before.patience) if before else ((), 0, 0)
        if vain:
            patience = min(max(1, 2 * patience), _LONGEST)
            return replace(self, inestimable=vain, skips=patience, patience=patience)
        return replace(self, inestimable=inestimable, skips=max(0, skips - 1), patience=patience)

    def near(self, tolerance: float) -> bool:
        """Whether the weights have changed by less than ``tolerance`` of their norm."""
        return self.moved <= tolerance * self.norm

    def still_valid(self, quantities: Sequence[Quantity]) -> dict[str, Estimate]:
        """The values among ``quantities`` that are still valid, each with its bound."""
        found = {q.name: self.reaches[q.name].after(self.moved) for q in quantities if q.name in self.reaches}
        return {name: estimate for name, estimate in found.items() if estimate is not None}
