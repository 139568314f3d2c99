"""Chooses per layer between exact values and estimates within a tolerance."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from math import isfinite
from typing import NamedTuple

import numpy as np

from ww_callbacks.spectral.estimates.estimate import Estimate
from ww_callbacks.spectral.estimates.lanczos import BLOCK, BlockLanczos
from ww_callbacks.spectral.measuring.layer_weights import LayerWeights, Value
from ww_callbacks.spectral.measuring.registry import Quantity
from ww_callbacks.spectral.measuring.reuse import KnownSpectrum
from ww_callbacks.spectral.measuring.values import measure_quantities

SMALLEST = 512
"""Matrices with a smaller side below this are always measured exactly: that takes hundredths of a second."""

LEAST, MOST = 1e-4, 0.1
"""The allowed range of tolerances: float32 products permit no smaller ones, and larger ones are meaningless."""

ERROR = "_error"
"""Suffix of a column of errors in tables and in the record."""

_FIRST_STEPS = 5
_MOST_STEPS = 48
_LEAST_OF_SLOW = 0.25
"""Steps times tolerance that a slow estimate needs: 25 steps for 1 %. The easiest of 16 kinds of matrices took 20."""

_FALL_OF_SLOW, _FALL_AT_FIRST = 1.25, 1.5
"""The error of a slow estimate falls about as the steps to the power of −1.25, and to the power of −1.5 at first; that
of the others falls exponentially."""

_GROWTH = 1.15
"""Least growth of a space between two looks at its errors; a look costs a third of a step."""

_SHARE = 2.0
"""An estimate may cost half of the exact spectrum; beyond that the exact spectrum is computed."""

_PRODUCT, _ORTHOGONAL, _SMALL = 32.0, 550.0, 40.0
"""Cost of q Lanczos steps in the units of :func:`_limit`: per q times elements (the products), per q² times smaller
side (keeping the basis orthogonal), and per (q·block)³ (eigenvalues of the projections). Within 30 % from 512×512 to
4096×4096."""


class Measurement(NamedTuple):
    """The measured values of a layer.

    Attributes:
        values: quantity → value; NaN (``""`` for a text) if there is no value.
        status: as returned by :func:`.measure_quantities`.
        errors: quantity → error, for estimates; all other values are exact.
    """

    values: dict[str, Value]
    status: str
    errors: dict[str, float]


def check_accuracy(accuracy: object) -> float | None:
    """The tolerance for an argument ``accuracy``; None for ``"exact"``.

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
    """The quantities because of which large layers are exact despite ``tolerance``; empty if it has an effect.

    Args:
        quantities: the requested quantities.
        tolerance: the allowed relative error; None for exact values.
        shapes: the shapes of each layer's matrices. Layers that are exact because of their size are ignored.

    >>> from ww_callbacks.spectral.measuring.registry import resolve
    >>> without_effect(resolve(["alpha", "stable_rank"]), 0.01, [[(1024, 1024)]])
    'alpha'
    >>> without_effect(resolve("estimable"), 0.01, [[(1024, 1024)]])
    ''
    """
    whole = [q.name for q in quantities if q.cost != "cheap" and q.estimate is None]
    large = any(map(can_be_estimated, shapes))
    if tolerance is None or not whole or not large:
        return ""
    first = "alpha" if "alpha" in whole else whole[0]
    others = len(whole) - 1
    return f"{first} and {others} other quantities" if others > 1 else " and ".join(whole)


def can_be_estimated(shapes: Sequence[tuple[int, int]]) -> bool:
    """Whether a layer of matrices of these shapes may be estimated.

    >>> can_be_estimated([(4096, 1024)]), can_be_estimated([(4096, 256)]), can_be_estimated([(1024, 1024)] * 9)
    (True, False, False)
    """
    return len(shapes) == 1 and min(shapes[0]) >= SMALLEST


def measure_within(sample: LayerWeights, quantities: Iterable[Quantity], tolerance: float | None) -> Measurement:
    """Measure ``quantities`` in the cheapest way that keeps each within ``tolerance``.

    Args:
        sample: the layer.
        quantities: the quantities to measure.
        tolerance: the allowed relative error (of the argument, if the value is a logarithm); None for exact values.

    Returns:
        Estimates if all quantities that need a spectrum can be estimated, otherwise exact values.
    """
    quantities = list(quantities)
    found: Mapping[str, Estimate] = {}
    if tolerance:
        found, failed = estimates(sample, [q for q in quantities if needs_spectrum(q, sample)], tolerance)
        found = {} if failed else found
    return merged(sample, quantities, found)


def merged(sample: LayerWeights, quantities: Sequence[Quantity], found: Mapping[str, Estimate]) -> Measurement:
    """The estimates ``found``, together with the rest of ``quantities``, measured exactly."""
    if not found:
        return Measurement(*measure_quantities(sample, quantities), {})
    values, status = measure_quantities(sample, [q for q in quantities if q.name not in found])
    values |= {name: estimate.value for name, estimate in found.items()}
    errors = {name: estimate.error for name, estimate in found.items() if estimate.error > 0.0}
    return Measurement({q.name: values[q.name] for q in quantities}, status, errors)


class Plan(NamedTuple):
    """How to measure a layer.

    Attributes:
        quantities: those to measure now; the others wait until the layer has changed more.
        found: those that are estimated, or whose earlier value is still valid; None if the spectrum must be computed.
        vain: the quantities whose estimation failed now.
    """

    quantities: list[Quantity]
    found: Mapping[str, Estimate] | None
    vain: tuple[str, ...] = ()


def plan(
    sample: LayerWeights, quantities: Sequence[Quantity], tolerance: float | None, known: KnownSpectrum | None
) -> Plan:
    """The cheapest way to measure ``quantities`` within ``tolerance``, in a series of measurements of one layer.

    * A value is reused if the change of the weights bounds its change within the tolerance.
    * The others are estimated if possible. Each quantity is checked separately: the effective rank can be reused for
    long but is the most expensive to estimate, and for λ_1 it is the opposite.
    * Quantities that need the whole spectrum (α) wait until the weights have changed by ``tolerance`` of their norm.
    Hill's α waits too if it cannot be estimated. Then, or if another quantity cannot be estimated, all are exact.

    Args:
        sample: the layer.
        quantities: the requested quantities.
        tolerance: the allowed relative error; None for exact values.
        known: the data kept from the layer's last exact spectrum.
    """
    quantities = list(quantities)
    if tolerance is None or not isfinite(sample.largest):
        return Plan(quantities, None if any(needs_spectrum(q, sample) for q in quantities) else {})
    spectral = [q for q in quantities if needs_spectrum(q, sample)]
    if not spectral:
        return Plan(quantities, {})
    whole = [q for q in spectral if q.estimate is None]
    near = known is not None and known.near(tolerance)
    if whole and not (near and all(q.cost == "spectrum" for q in whole)):
        return Plan(quantities, None)
    rest = [q for q in spectral if q not in whole]
    still_valid = {} if known is None else known.still_valid(rest)
    moving = [q for q in rest if q.name not in still_valid]
    may_wait = {q.name for q in moving if near and q.family == "power law"}
    given_up = known.inestimable if known is not None and known.skips > 0 else ()
    tried = [q for q in moving if q.name not in given_up]
    if any(q.name in given_up and q.name not in may_wait for q in moving):
        return Plan(quantities, None)
    found, failed = estimates(sample, tried, tolerance, may_wait)
    if not may_wait.issuperset(failed):
        return Plan(quantities, None, failed)
    found = still_valid | found
    return Plan([q for q in quantities if q not in spectral or q.name in found], found, failed)


def needs_spectrum(quantity: Quantity, sample: LayerWeights) -> bool:
    """Whether measuring it here needs more than the elements."""
    if quantity.cost == "cheap" or (quantity.needs == "previous" and sample.previous is None):
        return False
    return quantity.needs in ("", "previous") or sample.initial is not None or sample.reference is not None


def estimates(
    sample: LayerWeights, quantities: Sequence[Quantity], tolerance: float, may_fail: Collection[str] = ()
) -> tuple[dict[str, Estimate], tuple[str, ...]]:
    """Estimates of ``quantities`` from a Krylov space, and those that cannot be estimated within ``tolerance``.

    If the sample already has a space, it is extended. The space grows until all errors are small enough, or until it
    has cost half as much as the exact spectrum. Its random start is drawn from the sample's seed: the same weights give
    the same estimates.

    Args:
        sample: the layer.
        quantities: the quantities to estimate.
        tolerance: the allowed relative error.
        may_fail: those without which the others are estimated all the same; for any other, all are given up.
    """
    limit = _limit(sample)
    enough = {q.name: _LEAST_OF_SLOW / tolerance if q.slow else _FIRST_STEPS for q in quantities}
    pending = [q for q in quantities if q.estimate is not None and limit >= enough[q.name]]
    failed = [q.name for q in quantities if q not in pending]
    if not pending or not set(failed) <= set(may_fail):
        return {}, tuple(failed)
    space = sample.space = sample.space or BlockLanczos(sample.matrices[0], seed=sample.seed)
    limit = min(limit, space.most_steps)
    steps = max(min(_FIRST_STEPS, limit), space.steps)
    with np.errstate(all="ignore"):
        while True:
            space.extend(steps - space.steps)
            excesses = {q.name: _excess(q, _estimate(q, sample), tolerance) for q in pending}
            failed += [q.name for q in pending if _is_hopeless(q, excesses[q.name], steps, limit)]
            pending = [q for q in pending if q.name not in failed]
            if not pending or not set(failed) <= set(may_fail):
                return {}, tuple(failed)
            if all(excesses[q.name] <= 1.0 for q in pending):
                return {q.name: _estimate(q, sample) for q in pending}, tuple(failed)
            growth = max((excesses[q.name] ** (1.0 / _FALL_AT_FIRST) for q in pending if q.slow), default=0.0)
            steps = min(int(steps * min(max(growth, _GROWTH), 2.0)) + 1, limit)


def _is_hopeless(quantity: Quantity, excess: float, steps: int, limit: int) -> bool:
    """Whether ``limit`` steps will not bring the error, now ``excess`` times the allowed one, within the tolerance."""
    if excess <= 1.0:
        return False
    if steps >= limit:
        return True
    return quantity.slow and steps * excess ** (1.0 / _FALL_OF_SLOW) > limit


def _estimate(quantity: Quantity, sample: LayerWeights) -> Estimate:
    assert quantity.estimate is not None
    return quantity.estimate(sample)


def _excess(quantity: Quantity, estimate: Estimate, tolerance: float) -> float:
    """The ratio of the error to the allowed error."""
    if estimate.within(tolerance, quantity.logarithm):
        return 0.0
    allowed = float(np.log10(1.0 + tolerance)) if quantity.logarithm else tolerance * abs(estimate.value)
    return estimate.error / allowed if isfinite(estimate.value) and allowed > 0.0 else np.inf


def _limit(sample: LayerWeights) -> int:
    """Number of steps that cost half of the exact spectrum, 0.7·n·m² + 2.5·m³; 0 if no step is allowed."""
    if len(sample.matrices) != 1 or not isfinite(sample.largest) or sample.largest == 0.0:
        return 0
    larger, smaller = sample.shape
    if smaller < SMALLEST:
        return 0
    exact = 0.7 * larger * smaller**2 + 2.5 * smaller**3
    steps = np.arange(1.0, _MOST_STEPS + 1.0)
    costs = steps * (_PRODUCT * larger + _ORTHOGONAL * steps) * smaller + _SMALL * (BLOCK * steps) ** 3
    return int(np.searchsorted(costs, exact / _SHARE, side="right"))
