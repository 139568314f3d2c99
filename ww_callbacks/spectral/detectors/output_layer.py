"""Finds the network's output layer among the measured layers."""

from __future__ import annotations

import re
from collections.abc import Sequence

from ww_callbacks.spectral.layers.spec import LayerSpec

_NO_MATRIX = {"norm", "bias", "other"}
_TIED = re.compile(r"^tied: measured as `(?P<owner>.+)`")


def output_layer(specs: Sequence[LayerSpec]) -> str | None:
    """The last layer in depth order that has a matrix, or the layer that it is tied to.

    Args:
        specs: every layer of the model in depth order, including the skipped ones.

    Returns:
        Its name, even if it is not watched; None if the model has no such layer.

    >>> import numpy as np
    >>> from ww_callbacks.spectral.layers import inspect
    >>> output_layer(inspect({"body.weight": np.zeros((8, 4)), "head.weight": np.zeros((2, 8))}))
    'head.weight'
    """
    for spec in reversed(specs):
        tied = _TIED.match(spec.skipped)
        if tied is not None:
            return tied["owner"]
        if spec.kind not in _NO_MATRIX and len(spec.shape) >= 2:
            return spec.name
    return None
