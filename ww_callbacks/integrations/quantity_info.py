"""Title, definition and family of a quantity, for the views."""

from __future__ import annotations

from functools import cache

from ww_callbacks.spectral.measuring.quantity_info import QuantityInfo


@cache
def quantity_info(name: str) -> QuantityInfo:
    """The description of the quantity ``name``; an undeclared one gets its name as title.

    >>> quantity_info("stable_rank").title, quantity_info("of_mine").title
    ('stable rank', 'of mine')
    """
    from ww_callbacks.spectral.measuring.registry import all_quantities
    from ww_callbacks.spectral.representation.quantities import PROBE_QUANTITIES

    for known in all_quantities():
        if known.name == name:
            return known
    return PROBE_QUANTITIES.get(name) or QuantityInfo(name=name, title=name.replace("_", " "))
