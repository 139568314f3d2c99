"""The rank at which the power-law tail begins, with explained variance and localisation along the ranks.

If the tail contains what was learned, then truncating W to the tail's rank should keep it. The explained variance is
the share of ‖W‖_F² that remains; the localisation ratio of the singular vectors shows whether the directions change
there.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from ww_callbacks.spectral.fits.clauset import clauset_fit
from ww_callbacks.spectral.linalg.singular_vectors import localisation


@dataclass(frozen=True)
class TailRank:
    """One matrix along its ranks k = 1…M, by descending singular value.

    Attributes:
        rank: number of eigenvalues in the power-law tail (λ ≥ xmin); 0 without a fit.
        xmin: where the tail begins.
        alpha: the tail's exponent.
        explained_variance: share Σ_{i≤k} λ_i / Σλ for every k.
        localization_ratio: ‖v_k‖₁/‖v_k‖_∞ of every singular vector, on the matrix's smaller side.
    """

    rank: int
    xmin: float
    alpha: float
    explained_variance: np.ndarray
    localization_ratio: np.ndarray

    @property
    def explained_by_tail(self) -> float:
        """Share of ‖W‖_F² in the tail; NaN without a fit."""
        return float(self.explained_variance[self.rank - 1]) if self.rank else float("nan")

    def rank_for(self, share: float) -> int:
        """The smallest rank that explains this share of ‖W‖_F².

        Raises:
            ValueError: if the share is outside (0, 1].
        """
        if not 0 < share <= 1:
            raise ValueError(f"Expected a share in (0, 1] but got {share}.")
        # the last entry is 1 up to rounding
        return min(int(np.searchsorted(self.explained_variance, share)) + 1, len(self.explained_variance))


def tail_rank(matrix: ArrayLike) -> TailRank:
    """The rank of W's power-law tail, its explained variance and the localisation of its singular vectors.

    Args:
        matrix: W.

    Returns:
        The curves; explained variance is NaN for a zero matrix.

    >>> found = tail_rank(np.diag(np.arange(1.0, 101.0) ** -0.5))
    >>> found.rank_for(0.5), len(found.explained_variance)
    (8, 100)
    """
    vectors = localisation(matrix)
    fit = clauset_fit(vectors.eigenvalues)
    with np.errstate(divide="ignore", invalid="ignore"):
        explained = np.cumsum(vectors.eigenvalues) / np.sum(vectors.eigenvalues)
    return TailRank(
        rank=fit.tail if np.isfinite(fit.alpha) else 0,
        xmin=fit.xmin,
        alpha=fit.alpha,
        explained_variance=explained,
        localization_ratio=vectors.localization_ratio,
    )
