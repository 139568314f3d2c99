"""The values of quantities on one layer, and the layer's status."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from math import isfinite, isinf

import numpy as np

from ww_callbacks.spectral.measuring.layer_weights import LayerWeights, Value
from ww_callbacks.spectral.measuring.registry import Quantity, is_own

PARTLY = "partly: "
"""Prefix of a layer's status if only the user's own quantities failed."""


def is_measured(status: str) -> bool:
    """Whether all built-in quantities of a layer with this ``status`` could be measured.

    >>> is_measured("ok"), is_measured("partly: mine: KeyError: 'x'"), is_measured("non-finite")
    (True, True, False)
    """
    return status == "ok" or status.startswith(PARTLY)


def measure_quantities(sample: LayerWeights, quantities: Sequence[Quantity]) -> tuple[dict[str, Value], str]:
    """The values of ``quantities`` on one layer, and its status; never raises because of the values of the weights.

    Args:
        sample: the layer; it drops earlier weights once no quantity compares with them.
        quantities: the quantities to measure, see :func:`ww_callbacks.spectral.measuring.registry.resolve`.

    Returns:
        Values by name: NaN (``""`` for a text) if there is no value; and the status: ``ok``, ``non-finite`` (no
        values), ``zero`` (all elements are 0; only sizes and distances have values), or ``failed: `` with the
        quantities and the reason; ``partly: `` instead, if only the user's own quantities failed.
    """
    cheap, spectral, needs, missing = _order(tuple(quantities))
    values = dict(missing)
    failures: dict[str, str] = {}
    with np.errstate(all="ignore"):
        largest = sample.largest
        if not isfinite(largest):
            return values, "non-finite"
        _fill(values, failures, sample, cheap)
        if spectral:
            sample.release(needs)
        _fill(values, failures, sample, spectral)
    if failures:
        own = all(is_own(q.function) for q in quantities if q.name in failures)
        if own and largest == 0.0:
            return values, "zero"
        reasons = "; ".join(_by_reason({name: failures[name] for name in values if name in failures}))
        return values, (PARTLY if own else "failed: ") + reasons
    return values, "zero" if largest == 0.0 else "ok"


@lru_cache(maxsize=256)
def _order(
    quantities: tuple[Quantity, ...],
) -> tuple[list[Quantity], list[Quantity], frozenset[str], dict[str, Value]]:
    """Those that read the elements, the others with what they need, and the values where there is none.

    The former come first, so that W_0 and the last weights are freed before a spectrum is computed.
    """
    cheap = [q for q in quantities if q.cost == "cheap"]
    spectral = [q for q in quantities if q.cost != "cheap"]
    missing: dict[str, Value] = {q.name: "" if q.text else np.nan for q in quantities}
    return cheap, spectral, frozenset(q.needs for q in spectral), missing


def _fill(
    values: dict[str, Value], failures: dict[str, str], sample: LayerWeights, quantities: Sequence[Quantity]
) -> None:
    """Set the values of ``quantities``, or the reason why one has none."""
    known = sample.known
    for q in quantities:
        needs = q.needs
        try:
            if needs:
                if needs == "previous":
                    if sample.previous is None:
                        continue
                elif sample.initial is None:
                    if sample.reference is None:
                        continue
                elif not isfinite(sample.from_initial.norm):
                    raise ValueError("the baseline's norm is not finite")
            value = known[q.name] if q.name in known else q.function(sample)
            if q.text:
                values[q.name] = value
            elif not isinf(number := float(value)):
                values[q.name] = number
            elif needs != "previous":  # infinite values at the last snapshot were reported there
                raise OverflowError("beyond the range of float64")
        except Exception as error:  # One quantity's failure must neither hide the others nor reach the training.
            failures[q.name] = f"{type(error).__name__}: {error}"


def _by_reason(failures: Mapping[str, str]) -> Iterator[str]:
    """The names of the failed quantities, grouped by reason."""
    for reason in dict.fromkeys(failures.values()):
        yield f"{', '.join(name for name, why in failures.items() if why == reason)}: {reason}"
