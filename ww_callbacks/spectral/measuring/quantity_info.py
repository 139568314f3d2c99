"""Name, title, definition, family and cost of a quantity."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Worst = Literal["", "low", "high", "both"]
Cost = Literal["cheap", "spectrum", "request", "probe"]


@dataclass(frozen=True, kw_only=True, eq=False)
class QuantityInfo:
    """The description of a quantity.

    Attributes:
        name: the key in every record, logger and table; WeightWatcher's name if it has one.
        title: a few words for axis labels.
        definition: the formula in one line, with its units (log10 or ln, λ or σ); empty for an undeclared quantity.
        family: ``norm``, ``rank``, ``power law``, ``distance``, ``update``, ``scale``, ``shape``, ``random matrix``,
            ``localisation``, ``representation``.
        cost: ``cheap`` reads only the elements, ``spectrum`` needs the singular values, ``request`` needs more and is
            measured only if named, ``probe`` runs the model and has its own cadence.
        default: whether it is measured by default.
        headline: whether its model-level summary is streamed by default.
        worst: which values are critical: ``low``, ``high``, ``both`` or none.
    """

    name: str
    title: str
    definition: str = ""
    family: str = ""
    cost: Cost = "spectrum"
    default: bool = False
    headline: bool = False
    worst: Worst = ""
