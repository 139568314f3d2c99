"""Which layers are watched: the selection by name, type and size that ``spectral.analyze`` has too."""

from spectral.layers.selection import select

__all__ = ["select"]
