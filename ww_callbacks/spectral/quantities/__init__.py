"""The quantities: one family a file, each quantity one function from a ``LayerWeights`` to a number or a short text."""

from importlib import import_module

FAMILIES = (
    "power_law",
    "norms",
    "ranks",
    "scale",
    "distance",
    "update",
    "tail",
    "determinant",
    "random_matrix",
    "shuffle",
    "localisation",
)
"""The files whose import declares the quantities, in the order of their columns."""

for _family in FAMILIES:
    import_module(f"ww_callbacks.spectral.quantities.{_family}")
