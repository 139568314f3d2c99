r"""The largest eigenvalues of WᵀW from a Krylov space, each with an error.

A Ritz value θ_i is at most λ_i. Some eigenvalue is within its residual r_i = ‖Au − θu‖, and if all unresolved
eigenvalues are away by a gap γ, the distance is only r_i²/γ (Parlett: The symmetric eigenvalue problem, §11.5). The gap
is taken to the next Ritz value whose interval θ ± r does not overlap, or to the first that has not converged, whichever
is closer, and the error is three times that.

A cluster of more eigenvalues than start columns may be found only in part; see :func:`first_cluster`.

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

_UNRESOLVED = 1e-6
"""Closer than this, in units of the largest, eigenvalues cannot be told apart by products in float32."""


_ALONE = 0.25
"""As many values as columns within this share of the gap below them may be one cluster."""


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
    values, residuals = space.ritz.values, space.ritz.residuals
    open_ = np.flatnonzero(residuals > CONVERGED * (values - values[-1]))
    first = int(open_[0]) if len(open_) else len(values)
    edges = _cluster_edges(space)
    apart = np.concatenate([[np.inf], values[edges[1:-1] - 1] - values[edges[1:-1]], [np.inf]])
    gaps = np.repeat(np.minimum(apart[:-1], apart[1:]), np.diff(edges))
    gaps = np.minimum(gaps, values - (values[first] + residuals[first] if len(open_) else 0.0))
    with np.errstate(divide="ignore", invalid="ignore"):
        errors = np.where(gaps > residuals, 3.0 * residuals**2 / gaps, np.inf) + ROUNDING * values[0]
    errors[first:] = np.inf  # it is unknown which eigenvalues these approximate
    start, stop = first_cluster(space)
    if start < stop:
        top = values[start] + residuals[start]
        extent = top - (values[stop - 1] - residuals[stop - 1])
        errors[start:] = np.maximum(errors[start:], np.maximum(extent, top + extent - values[start:]))
    return Leading(values[:count], errors[:count], space.exponent)


def first_cluster(space: BlockLanczos) -> tuple[int, int]:
    """Start and end of the first cluster of Ritz values that may have members that were not found.

    A block of b columns contains at most b copies of a multiple eigenvalue, and its space resolves a group of close
    ones only slowly, although all their residuals are small. So b or more Ritz values whose intervals θ ± residual
    form a chain may stand for more eigenvalues, and so may b values with a wide gap below: then none of them bounds the
    largest, and for each one below it is unknown which eigenvalue it is. Start and end are the number of values if
    there is no such cluster.
    """
    values, block, edges = space.ritz.values, space.block, _cluster_edges(space)
    long = np.flatnonzero(np.diff(edges) >= block)
    found = [(int(edges[i]), int(edges[i + 1])) for i in long[:1]]
    last = values[block - 1 : -1]
    alone = np.flatnonzero(values[: len(last)] - last < _ALONE * (last - values[block:]))
    found += [(int(i), int(i) + block) for i in alone[:1]]
    return min(found, default=(len(values), len(values)))


def _cluster_edges(space: BlockLanczos) -> np.ndarray:
    """The start of each cluster of Ritz values whose intervals θ ± residual form a chain, and the number of values."""
    values, residuals = space.ritz.values, space.ritz.residuals + _UNRESOLVED * space.ritz.values[0]
    breaks = np.flatnonzero(values[:-1] - residuals[:-1] > values[1:] + residuals[1:]) + 1
    return np.concatenate([[0], breaks, [len(values)]])


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
