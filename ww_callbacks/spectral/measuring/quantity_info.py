"""What is known of every quantity, whoever measures it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Worst = Literal["", "low", "high", "both"]
Cost = Literal["cheap", "spectrum", "request", "probe"]


@dataclass(frozen=True, kw_only=True)
class QuantityInfo:
    """What is known of one quantity besides its value.

    Attributes:
        name: the key in every record, logger and table; WeightWatcher's name where it has one.
        title: a few words for axis labels.
        definition: the formula in one line, with its units (log10 or ln, λ or σ); empty for a quantity that nobody
            declared.
        family: ``norm``, ``rank``, ``power law``, ``distance``, ``update``, ``scale``, ``shape``, ``random matrix``,
            ``localisation``, ``representation``.
        cost: ``cheap`` reads only the elements, ``spectrum`` needs the singular values, ``request`` needs more and is
            measured only when named, ``probe`` needs the model to run and has a cadence of its own.
        default: whether it is measured when nothing is said.
        headline: whether its model-level summary is streamed by default.
        worst: which end is worth a look: ``low``, ``high``, ``both`` or nothing.
    """

    name: str
    title: str
    definition: str = ""
    family: str = ""
    cost: Cost = "spectrum"
    default: bool = False
    headline: bool = False
    worst: Worst = ""
