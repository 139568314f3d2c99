"""Exact where that is asked for or cheaper, estimated with an error where a tolerance allows it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from math import isfinite
from typing import NamedTuple

import numpy as np

from ww_callbacks.spectral.estimates.estimate import Estimate
from ww_callbacks.spectral.estimates.lanczos import BlockLanczos
from ww_callbacks.spectral.measuring.layer_weights import LayerWeights, Value
from ww_callbacks.spectral.measuring.registry import Quantity
from ww_callbacks.spectral.measuring.reuse import KnownSpectrum
from ww_callbacks.spectral.measuring.values import measure_quantities

SMALLEST = 512
"""Matrices whose smaller side is below this are always measured exactly: that takes hundredths of a second."""

LEAST, MOST = 1e-4, 0.1
"""Tolerances between these can be asked for: float32 products allow no less, and more says nothing."""

ERROR = "_error"
"""What a column of errors has after the name of its quantity, in tables and in the record."""

_FIRST_STEPS = 5
_MOST_STEPS = 48
_TELLING = 10
"""From so many steps on the errors tell how many more are needed."""

_HOPELESS = 1.5
"""Steps needed over steps allowed beyond which the exact spectrum is computed at once."""

_SHARE = 2.0
"""An estimate may cost half of the exact spectrum before that is computed instead."""

_STEP = 80.0
"""Cost of one Lanczos step, with its share of the rest, a matrix element, in the units of :func:`_limit`."""


class Measurement(NamedTuple):
    """What was measured of a layer.

    Attributes:
        values: by quantity; NaN (``""`` for a text) where there is no value.
        status: as :func:`.measure_quantities` gives it.
        errors: by quantity, of those that are estimates; all others are exact.
    """

    values: dict[str, Value]
    status: str
    errors: dict[str, float]


def check_accuracy(accuracy: object) -> float | None:
    """The tolerance that ``accuracy`` stands for; None for ``"exact"``.

    Raises:
        ValueError: if it is neither ``"exact"`` nor a tolerance.

    >>> check_accuracy("exact"), check_accuracy(0.01)
    (None, 0.01)
    """
    if isinstance(accuracy, str) and accuracy == "exact":
        return None
    if isinstance(accuracy, bool) or not isinstance(accuracy, int | float) or not LEAST <= accuracy <= MOST:
        raise ValueError(
            f"Expected `accuracy` to be 'exact' or a relative error from {LEAST:g} to {MOST:g} (0.01 is 1 %) but got "
            f"{accuracy!r}."
        )
    return float(accuracy)


def without_effect(
    quantities: Iterable[Quantity], tolerance: float | None, shapes: Iterable[Sequence[tuple[int, int]]]
) -> str:
    """The quantities that make large layers exact in spite of ``tolerance``; empty if it has an effect.

    Args:
        quantities: what is asked for.
        tolerance: the relative error that is allowed; None for none.
        shapes: of the matrices of each layer. Layers that are exact by their size alone are no reason.

    >>> from ww_callbacks.spectral.measuring.registry import resolve
    >>> without_effect(resolve(["alpha", "stable_rank"]), 0.01, [[(1024, 1024)]])
    'alpha'
    >>> without_effect(resolve("estimable"), 0.01, [[(1024, 1024)]])
    ''
    """
    whole = [q.name for q in quantities if q.cost != "cheap" and q.estimate is None]
    large = any(len(matrices) == 1 and min(matrices[0]) >= SMALLEST for matrices in shapes)
    if tolerance is None or not whole or not large:
        return ""
    first = "alpha" if "alpha" in whole else whole[0]
    others = len(whole) - 1
    return f"{first} and {others} other quantities" if others > 1 else " and ".join(whole)


def measure_within(sample: LayerWeights, quantities: Iterable[Quantity], tolerance: float | None) -> Measurement:
    """Measure ``quantities`` by the cheapest way that keeps each of them within ``tolerance``.

    Args:
        sample: the layer.
        quantities: what to measure.
        tolerance: the relative error that is allowed (of the argument, where the value is a logarithm); None for none.

    Returns:
        Estimates where all that need a spectrum can be estimated, else exact values.
    """
    quantities = list(quantities)
    found = estimates(sample, [q for q in quantities if needs_spectrum(q, sample)], tolerance) if tolerance else None
    if found is None:
        return Measurement(*measure_quantities(sample, quantities), {})
    return merged(sample, quantities, found)


def merged(sample: LayerWeights, quantities: Sequence[Quantity], found: Mapping[str, Estimate]) -> Measurement:
    """The estimates ``found`` with the rest of ``quantities``, which is measured."""
    values, status = measure_quantities(sample, [q for q in quantities if q.name not in found])
    values |= {name: estimate.value for name, estimate in found.items()}
    errors = {name: estimate.error for name, estimate in found.items() if estimate.error > 0.0}
    return Measurement({q.name: values[q.name] for q in quantities}, status, errors)


class Plan(NamedTuple):
    """How to measure a layer.

    Attributes:
        quantities: those to measure now; the others wait until the layer has moved further.
        found: those of them that are estimated, or whose old value stands; None if the spectrum is to be computed.
        vain: the quantities that it was tried in vain to estimate together.
    """

    quantities: list[Quantity]
    found: Mapping[str, Estimate] | None
    vain: tuple[str, ...] = ()


def plan(
    sample: LayerWeights, quantities: Sequence[Quantity], tolerance: float | None, known: KnownSpectrum | None
) -> Plan:
    """The cheapest way to have ``quantities`` within ``tolerance``, in a series of measurements of one layer.

    * What needs the whole spectrum (α) waits while the weights have moved by less than ``tolerance`` of their norm
      since it was measured; so does nothing else.
    * A value stands where the move bounds its change within the tolerance.
    * The others are estimated, if they can be; if not, all is exact. The effective rank stands for long and costs most
      to estimate, and it is the other way round with λ_1: therefore each is asked by itself.

    Args:
        sample: the layer.
        quantities: what is asked for.
        tolerance: the relative error that is allowed; None for none.
        known: what is kept of the layer's last exact spectrum.
    """
    quantities = list(quantities)
    spectral = [q for q in quantities if needs_spectrum(q, sample)]
    if tolerance is None or not spectral or not isfinite(sample.largest):
        return Plan(quantities, {} if not spectral else None)
    whole = [q for q in spectral if q.estimate is None]
    near = known is not None and known.near(tolerance)
    if whole and not (near and all(q.cost == "spectrum" for q in whole)):
        return Plan(quantities, None)
    now = [q for q in quantities if q not in whole]
    rest = [q for q in spectral if q not in whole]
    standing = {} if known is None else known.standing(rest)
    moving = [q for q in rest if q.name not in standing]
    if not moving:
        return Plan(now, standing)
    names = tuple(q.name for q in moving)
    vain = () if known is None else known.inestimable
    found = None if vain and set(vain) <= set(names) else estimates(sample, moving, tolerance)
    if found is None:
        return Plan(quantities, None, vain or names)
    return Plan(now, standing | found)


def needs_spectrum(quantity: Quantity, sample: LayerWeights) -> bool:
    """Whether measuring it here takes more than reading the elements."""
    if quantity.cost == "cheap" or (quantity.needs == "previous" and sample.previous is None):
        return False
    return quantity.needs in ("", "previous") or sample.initial is not None or sample.reference is not None


def estimates(sample: LayerWeights, quantities: Sequence[Quantity], tolerance: float) -> dict[str, Estimate] | None:
    """Every one of ``quantities`` within ``tolerance`` from a Krylov space; None where the exact spectrum is needed.

    The sample's own space is extended, if it has one already.

    The space grows until all errors are small enough, or until the exact spectrum would have cost less than twice as
    much. Its random start is drawn from the sample's seed: the same weights give the same estimates.
    """
    limit = _limit(sample)
    if limit < _FIRST_STEPS or not all(q.estimate is not None for q in quantities):
        return None
    sample.space = sample.space or BlockLanczos(sample.matrices[0], seed=sample.seed)
    limit = min(limit, sample.space.most_steps)
    steps = max(min(_FIRST_STEPS, limit), sample.space.steps)
    with np.errstate(all="ignore"):
        while quantities:
            sample.space.extend(steps - sample.space.steps)
            excess = max(_excess(q, _estimate(q, sample), tolerance) for q in quantities)
            if excess <= 1.0:
                break
            # Errors of sums fall as steps^−1.5 or faster, those of the largest eigenvalues exponentially.
            factor = excess ** (1.0 / 1.5)
            if steps >= limit or (steps >= _TELLING and isfinite(factor) and steps * factor > _HOPELESS * limit):
                return None
            steps = min(int(steps * min(max(factor, 1.2), 2.0)) + 1, limit)
        return {q.name: _estimate(q, sample) for q in quantities}


def _estimate(quantity: Quantity, sample: LayerWeights) -> Estimate:
    assert quantity.estimate is not None
    return quantity.estimate(sample)


def _excess(quantity: Quantity, estimate: Estimate, tolerance: float) -> float:
    """The error over the one that is allowed."""
    if estimate.within(tolerance, quantity.logarithm):
        return 0.0
    allowed = float(np.log10(1.0 + tolerance)) if quantity.logarithm else tolerance * abs(estimate.value)
    return estimate.error / allowed if isfinite(estimate.value) and allowed > 0.0 else np.inf


def _limit(sample: LayerWeights) -> int:
    """Steps that cost half of the exact spectrum, which costs n·m² + 2.2·m³; 0 where none is made."""
    if len(sample.matrices) != 1 or not isfinite(sample.largest) or sample.largest == 0.0:
        return 0
    larger, smaller = sample.shape
    if smaller < SMALLEST:
        return 0
    exact = larger * smaller**2 + 2.2 * smaller**3
    return min(_MOST_STEPS, int(exact / (_SHARE * _STEP * larger * smaller)))
