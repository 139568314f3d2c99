"""The quantities: one family per file, each quantity a function from a ``LayerWeights`` to a number or a short text."""

from importlib import import_module

FAMILIES = (
    "tail.power_law",
    "norms",
    "ranks",
    "change.scale",
    "change.distance",
    "change.update",
    "tail.alternative_fits",
    "tail.determinant",
    "random_matrix",
    "shuffle",
    "tail.localisation",
)
"""The modules that declare the quantities, in the order of their columns."""

for _family in FAMILIES:
    import_module(f"ww_callbacks.spectral.quantities.{_family}")
