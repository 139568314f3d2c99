"""What the views say about a quantity: title, definition, family."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache


@dataclass(frozen=True)
class QuantityInfo:
    """What is said about a quantity.

    Attributes:
        title: a few words for an axis.
        definition: the formula in one line, with units; empty for a quantity that nobody declared.
        family: what it belongs to.
        cost: ``cheap``, ``spectrum`` or ``request`` as in the register, or ``probe``: at the probe's own cadence.
        headline: whether it is shown first.
        worst: which end is worth a look: ``low``, ``high``, ``both`` or empty.
    """

    title: str
    definition: str
    family: str
    cost: str
    headline: bool
    worst: str


@cache
def quantity_info(name: str) -> QuantityInfo:
    """What is said about the quantity ``name``; one that nobody declared keeps its bare name."""
    from ww_callbacks.spectral.measuring.registry import all_quantities
    from ww_callbacks.spectral.representation.quantities import PROBE_QUANTITIES

    for known in all_quantities():
        if known.name == name:
            return QuantityInfo(known.title, known.definition, known.family, known.cost, known.headline, known.worst)
    if name in PROBE_QUANTITIES:
        probed = PROBE_QUANTITIES[name]
        return QuantityInfo(probed.title, probed.definition, "representation", "probe", False, "low")
    return QuantityInfo(name.replace("_", " "), "", "", "spectrum", False, "")
