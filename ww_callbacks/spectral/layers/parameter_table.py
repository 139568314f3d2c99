"""The table of all parameters of a model: their matrices, or why they are not measured."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Any

from ww_callbacks.spectral.layers import inspect
from ww_callbacks.spectral.layers.spec import LayerSpec

if TYPE_CHECKING:
    import pandas as pd


def describe(model: Any, convolution: str = "matrix") -> pd.DataFrame:
    """List how every parameter of ``model`` is handled, and why: one row per layer or skipped parameter.

    Args:
        model: anything that :func:`ww_callbacks.spectral.layers.inspect` accepts.
        convolution: how a convolution becomes matrices.

    Returns:
        A table with the columns ``layer``, ``measured``, ``kind``, ``type``, ``shape`` (as the framework stores it),
        ``matrices`` (rows × columns, rows = outputs), ``eigenvalues``, ``what`` (how it is measured, or why not)
        and ``parameters``.

    Raises:
        TypeError, ValueError, FileNotFoundError, ImportError: as :func:`ww_callbacks.spectral.layers.inspect`.

    >>> import numpy as np
    >>> describe({"fc.weight": np.eye(3), "fc.bias": np.ones(3)})[["layer", "measured", "matrices", "what"]]
           layer  measured matrices                          what
    0  fc.weight      True      3×3   guessed from name and shape
    1    fc.bias     False           a vector: it has no spectrum
    """
    return table(inspect(model, convolution))


def table(specs: Sequence[LayerSpec]) -> pd.DataFrame:
    """The table of :func:`describe` for layers that have been inspected."""
    import pandas as pd

    rows = [
        {
            "layer": spec.name,
            "measured": not spec.skipped,
            "kind": spec.kind,
            "type": spec.type,
            "shape": "×".join(map(str, spec.shape)),
            "matrices": sizes(spec.matrix_shapes),
            "eigenvalues": spec.eigenvalues,
            "what": spec.skipped or spec.note,
            "parameters": ", ".join(spec.parameters),
        }
        for spec in specs
    ]
    return pd.DataFrame(rows, columns=list(rows[0]) if rows else ["layer", "measured", "what"])


def sizes(shapes: Sequence[tuple[int, int]]) -> str:
    """The shapes of a layer's matrices in words.

    >>> sizes([(64, 32)]), sizes([(64, 32)] * 9)
    ('64×32', '9 of 64×32')
    """
    runs = [(shape, len(list(group))) for shape, group in groupby(shapes)]
    return ", ".join(f"{count} of {n}×{m}" if count > 1 else f"{n}×{m}" for (n, m), count in runs)
