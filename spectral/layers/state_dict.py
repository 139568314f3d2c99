"""A mapping of names to arrays → layers, the layout guessed from names and shapes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from spectral.layers.parts import Convention
from spectral.layers.spec import LayerSpec


def inspect_mapping(arrays: Mapping[str, Any], conv: Convention = "matrix") -> list[LayerSpec]:
    """The layers of a state dict."""
    raise NotImplementedError
