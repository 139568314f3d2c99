"""Hill's estimate of α with a tail of given size, which avoids jumps of xmin.

B. M. Hill, Annals of Statistics 3 (1975) 1163. With the upper half of the spectrum as tail it is the estimate of
TempBalance (Zhou et al. 2023) and FARMS (Hu et al. 2025).
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from ww_callbacks.spectral.fits.clauset import NO_FIT, RELATIVE_CUT, PowerLawFit, usable


def hill_fit(
    eigenvalues: np.ndarray,
    tail: int | None = None,
    cut: float | Literal["weightwatcher"] = RELATIVE_CUT,
) -> PowerLawFit:
    """α = 1 + k / Σ_{i=1}^{k} ln(λ_(i)/λ_(k+1)), over the k largest eigenvalues λ_(1) ≥ … ≥ λ_(k).

    Args:
        eigenvalues: λ, in any order.
        tail: k; None for half of the eigenvalues.
        cut: see :func:`ww_callbacks.spectral.fits.clauset.usable`.

    Returns:
        The fit with xmin = λ_(k+1); ``NO_FIT`` with fewer than two eigenvalues, or all in the tail equal.

    Raises:
        ValueError: if ``tail`` is not between 1 and the number of eigenvalues less one.

    >>> round(hill_fit(np.array([1.0, 1.0, 2.0, 4.0])).alpha, 4)
    1.9618
    """
    x = usable(eigenvalues, cut)
    if len(x) < 2:
        return NO_FIT
    k = len(x) // 2 if tail is None else tail
    if not 1 <= k < len(x):
        raise ValueError(f"Expected a `tail` from 1 to {len(x) - 1} but got {tail}.")
    xmin = x[-k - 1]
    logs = np.log(x[-k:] / xmin)
    if not logs[-1] > 1e-13:
        return NO_FIT
    beta = k / float(np.sum(logs))
    gap = np.abs(-np.expm1(-beta * logs) - np.arange(k) / k)
    return PowerLawFit(1.0 + beta, float(xmin), float(x[-1]), float(np.max(gap)), beta / k**0.5, k, len(x))


def hill_alpha(eigenvalues: ArrayLike, tail: int | None = None) -> float:
    """Hill's α of the k largest eigenvalues: the exponent of :func:`hill_fit`.

    Args:
        eigenvalues: λ, in any order.
        tail: k; None for half of the eigenvalues.

    Returns:
        α; NaN with fewer than two eigenvalues, or where all in the tail are equal.

    Raises:
        ValueError: if ``tail`` is not between 1 and the number of eigenvalues less one.

    Examples:
        >>> round(hill_alpha([1.0, 1.0, 2.0, 4.0]), 4)
        1.9618
    """
    return hill_fit(np.asarray(eigenvalues, dtype=np.float64), tail).alpha
