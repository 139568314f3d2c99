"""Ranks that a layer's spectrum suggests keeping."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from ww_callbacks.spectral.compression.factors import check_sigma


@dataclass(frozen=True)
class SuggestedRanks:
    """Ranks to try, from generous to bold; each is a guess whose accuracy has to be measured.

    Attributes:
        effective: effective rank exp(−Σ p ln p), p = σ/Σσ, rounded up.
        energy: least r with Σ_{i≤r} λ_i ≥ ``share`` of Σλ.
        tail: number of eigenvalues in the power-law tail, λ ≥ xmin; 0 where there is no fit.
        break_even: largest rank at which the factors store fewer values than the matrix.
    """

    effective: int
    energy: int
    tail: int
    break_even: int


def suggest_ranks(
    sigma: np.ndarray, shape: tuple[int, int], xmin: float = math.nan, share: float = 0.9
) -> SuggestedRanks:
    """The ranks that effective rank, explained energy and the power-law tail suggest.

    Args:
        sigma: singular values σ.
        shape: rows and columns of the matrix.
        xmin: start of the power-law tail in λ = σ², or NaN.
        share: share of Σλ for ``energy``.

    Returns:
        The ranks; all but ``break_even`` at least 1 and at most the number of σ (``tail`` 0 without a fit).

    Raises:
        ValueError: if no σ is positive, one is negative or not finite, there are more than min(rows, columns), or
            ``share`` is not in (0, 1].

    >>> suggest_ranks(np.array([2.0, 1.0, 1.0, 0.0]), (4, 4), xmin=2.0)
    SuggestedRanks(effective=3, energy=3, tail=1, break_even=1)
    """
    sigma = check_sigma(sigma, shape)
    if not sigma[0] > 0:
        raise ValueError("Expected at least one singular value above zero, but got zeros: a zero matrix has no rank.")
    if not 0 < share <= 1:
        raise ValueError(f"Expected `share` in (0, 1], but got {share}.")
    p = sigma[sigma > 0] / sigma.sum()
    energy = np.cumsum(sigma**2) / np.sum(sigma**2)
    rows, columns = shape
    return SuggestedRanks(
        effective=min(sigma.size, math.ceil(np.exp(-np.sum(p * np.log(p))) - 1e-9)),
        energy=min(sigma.size, int(np.searchsorted(energy, share * (1 - 1e-12))) + 1),
        tail=int(np.count_nonzero(sigma**2 >= xmin)) if math.isfinite(xmin) else 0,
        break_even=(rows * columns - 1) // (rows + columns),
    )
