r"""The largest eigenvalues of WᵀW from a Krylov space, each with an error.

A Ritz value θ_i is at most λ_i. Some eigenvalue is within its residual r_i = ‖Au − θu‖, and if all unresolved
eigenvalues are below by a gap γ, the distance is only r_i²/γ (Parlett: The symmetric eigenvalue problem, §11.5). The
gap is taken to the first Ritz value that has not converged, and the error is three times that.

A cluster of more eigenvalues than start columns may be found only in part; see :func:`first_crowded`.

To miss an eigenvalue entirely, so that θ_1 converges to λ_2, all random start columns would have to be nearly
orthogonal to its eigenvector: with b columns and q steps, (λ_1 − θ_1)/λ_1 > ε has a probability of at most
(1.648·√M·e^{−√ε(2q−1)})^b (Kuczyński and Woźniakowski 1992, for each of b independent columns).
"""

from __future__ import annotations

from math import exp, log, sqrt
from typing import NamedTuple

import numpy as np

from ww_callbacks.spectral.estimates.estimate import UNKNOWN, Estimate, midpoint
from ww_callbacks.spectral.estimates.lanczos import ROUNDING, BlockLanczos

CONVERGED = 0.02
"""Residual below which a Ritz value is considered resolved, in units of its distance from the smallest one. At 0.05,
eigenvalues at random places were missed in between."""

_RESOLUTION = 0.58
"""Eigenvalues closer than (this/steps)² of the spectrum's width are not resolved: a polynomial of degree 2q grows by
less than a factor 10 over this distance."""


class Leading(NamedTuple):
    """The largest eigenvalues, in units of (2^exponent)².

    Attributes:
        values: descending.
        errors: how much larger each may be.
        exponent: exponent of the unit.
    """

    values: np.ndarray
    errors: np.ndarray
    exponent: int


def leading_eigenvalues(space: BlockLanczos, count: int) -> Leading:
    """The ``count`` largest eigenvalues of WᵀW, each with a bound on how much larger it may be.

    Args:
        space: a Krylov space of W.
        count: how many; fewer if the space has fewer.

    Returns:
        Values, errors (infinite for values that have not converged) and their unit.

    Examples:
        >>> space = BlockLanczos(np.diag(np.arange(1.0, 65.0)), block=4)
        >>> space.extend(10)
        >>> found = leading_eigenvalues(space, 2)
        >>> bool(np.all(np.abs(found.values - [4096.0, 3969.0]) <= found.errors))
        True
    """
    ritz = space.ritz
    values, residuals = ritz.values, ritz.residuals
    spread = values - values[-1]
    open_ = np.flatnonzero(residuals > CONVERGED * spread)
    first = int(open_[0]) if len(open_) else len(values)
    gaps = values - (values[first] + residuals[first] if len(open_) else 0.0)
    with np.errstate(divide="ignore", invalid="ignore"):
        errors = np.where(gaps > residuals, 3.0 * residuals**2 / gaps, np.inf) + ROUNDING * values[0]
    errors[first:] = np.inf  # it is unknown which eigenvalues these approximate
    crowded = first_crowded(space)
    errors[crowded:] = np.maximum(errors[crowded:], values[crowded : crowded + 1] - values[crowded:])
    return Leading(values[:count], errors[:count], space.exponent)


def first_crowded(space: BlockLanczos) -> int:
    """Index of the first Ritz value that may belong to a cluster of which not all members were found.

    A block of b columns contains at most b copies of a multiple eigenvalue. If b Ritz values are closer together than
    the space can resolve, each of them and each one below may be as large as the first. Without such a cluster it is
    the number of values.
    """
    values, block = space.ritz.values, space.block
    resolution = (_RESOLUTION / space.steps) ** 2 * (values[0] - values[-1])
    crowded = np.flatnonzero(values[: len(values) - block + 1] - values[block - 1 :] < resolution)
    return int(crowded[0]) if len(crowded) else len(values)


def missed_probability(side: int, block: int, steps: int, share: float) -> float:
    """Upper bound on the probability that λ_1 is underestimated by more than ``share`` (Kuczyński and Woźniakowski
    1992).

    Args:
        side: M.
        block: number of random start columns.
        steps: Lanczos steps.
        share: relative error ε.

    Examples:
        >>> missed_probability(4096, 16, 28, 0.01) < 1e-5
        True
    """
    return float(min(1.0, exp(block * min(0.0, log(1.648 * sqrt(side)) - sqrt(share) * (2 * steps - 1)))))


def largest_singular_value(leading: Leading) -> Estimate:
    """σ_1 = √λ_1, between √θ_1 and √(θ_1 + its error)."""
    value, error = float(leading.values[0]), float(leading.errors[0])
    low, high = sqrt(value), sqrt(value + error)
    return Estimate(float(np.ldexp(low, leading.exponent)), float(np.ldexp(high - low, leading.exponent)))


def hill_alpha_of_top(leading: Leading, tail: int) -> Estimate:
    r"""Hill's α = 1 + k/Σ_{i≤k} ln(λ_i/λ_{k+1}) of the k = ``tail`` largest eigenvalues.

    The sum is between its values with λ_{k+1} at its upper bound, and with all others at their upper bounds.

    Args:
        leading: at least k + 1 eigenvalues.
        tail: k.

    Returns:
        The midpoint of the possible values of α; unknown with fewer eigenvalues, or if the sum may be zero.
    """
    values, errors = leading.values, leading.errors
    if len(values) <= tail or not values[tail] > 0.0:
        return UNKNOWN
    low = float(np.sum(np.log(values[:tail]))) - tail * log(values[tail] + errors[tail])
    high = float(np.sum(np.log(values[:tail] + errors[:tail]))) - tail * log(values[tail])
    return midpoint(1.0 + tail / high, 1.0 + tail / low) if low > 1e-13 else UNKNOWN
