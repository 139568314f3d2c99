"""Z-scores of quantities against pure noise of the same shape: the distance from a Gaussian matrix in standard
deviations.

α and the ranks depend on the shape before they depend on anything learned; α of noise is 4.7 at 64×64 and 17 at
2048×512. Their z does not, so layers of different shape can be compared:

    z = (f(W) − mean)/std of f over Gaussian matrices of W's shape, with f = ln(α − 1), or the rank itself.

For one matrix with 16 ≤ M ≤ 4096 and N/M ≤ 64, mean and standard deviation are interpolated, linearly in ln M and
ln N/M, from a table of simulations (:mod:`.simulation`). Elsewhere, and for several matrices pooled, 100 draws of the
same shapes are simulated once per process.

How exact: the table's mean is known to 3–13 % of a standard deviation and the standard deviation to 2–9 %, the larger
figures from M = 1024 on; interpolation adds about as much. Read z as z ± 0.2 or ± 10 %, whichever is larger. Noise's z
of α is normal to the extent that 2.5 % are below −1.6 and 2.5 % above 2.2. A trained layer's ranks are many standard
deviations out, for noise is very regular; there z says how far, not how probable.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from ww_callbacks.spectral.random_matrix.marchenko_pastur import Shape, sides
from ww_callbacks.spectral.random_matrix.nulls.simulation import ASPECTS, SMALLER_SIDES, expected, measures, simulate

DRAWS = 100
"""Draws for shapes that the table does not cover."""

_EIGENVALUES = 8192
"""Maximum number of pooled eigenvalues to simulate, which would take minutes."""


def null_z_score(name: str, value: float, shapes: Sequence[Shape]) -> float:
    """The z of a quantity's value against Gaussian noise of the same shapes.

    Args:
        name: ``alpha``, ``effective_rank``, ``stable_rank`` or ``participation_ratio``.
        value: the quantity's value on the pooled eigenvalues of the matrices.
        shapes: the shapes of these matrices.

    Returns:
        z; NaN if the value is NaN, if there is no spread (M = 1), or for more than 8192 eigenvalues outside the table.

    Raises:
        ValueError: for another name.

    >>> abs(null_z_score("effective_rank", 412.0, [(512, 512)])) < 1.5
    True
    """
    if name not in measures():
        raise ValueError(f"Expected a quantity with a null, one of {sorted(measures())}, but got {name!r}.")
    if name == "alpha":
        value = float(np.log(value - 1)) if value > 1 else float("nan")
    if np.isnan(value):
        return value
    mean, std = null_moments(name, tuple(sides(shape) for shape in shapes))
    return (value - mean) / std if std > 0 else float("nan")


@lru_cache(maxsize=4096)
def null_moments(name: str, shapes: tuple[Shape, ...]) -> tuple[float, float]:
    """Mean and standard deviation of f on Gaussian noise: from the table where it reaches, else simulated.

    Args:
        name: the quantity.
        shapes: (N, M) of every matrix.
    """
    larger, smaller = shapes[0]
    inside = SMALLER_SIDES[0] <= smaller <= SMALLER_SIDES[-1] and larger / smaller <= ASPECTS[-1]
    if len(shapes) == 1 and inside:
        shift, std = _interpolated(name, smaller, larger / smaller)
    elif sum(smaller for _, smaller in shapes) <= _EIGENVALUES:
        shift, std = _simulated(tuple(sorted(shapes)))[name]
    else:
        return float("nan"), float("nan")
    return expected(name, shapes) + shift, std


@lru_cache(maxsize=256)
def _simulated(shapes: tuple[Shape, ...]) -> dict[str, tuple[float, float]]:
    return simulate(shapes, DRAWS)


def _interpolated(name: str, smaller: int, aspect: float) -> tuple[float, float]:
    from scipy.interpolate import RegularGridInterpolator

    from ww_callbacks.spectral.random_matrix.nulls.table import TABLE

    table = np.array(TABLE[name])
    table[..., 1] = np.log(table[..., 1])
    at = RegularGridInterpolator((np.log(SMALLER_SIDES), np.log(ASPECTS)), table)
    shift, log_std = at([[np.log(smaller), np.log(aspect)]])[0]
    return float(shift), float(np.exp(log_std))
