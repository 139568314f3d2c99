"""Phases of a layer's spectrum: Martin and Mahoney's 5+1 phases, decided by explicit tests.

The five phases describe how far training has moved a matrix from noise, and the sixth that its rank collapsed. The
authors decide by eye; here each is a test, applied in this order, and a spectrum that passes none is ``undecided``:

1. **rank-collapsed**: at least 5 % of the singular values are below N·ε·σ_1, ε = 1.2e-7 (float32).
2. The bulk is *Marchenko–Pastur* if its Kolmogorov–Smirnov distance from that law, spikes left out, is at most
   0.02 + 1.5·√(ln M)/M (the second term covers noise in 99 % of cases, the first is a tolerance),
   and at most 10 % of the eigenvalues are spikes. With such a bulk:

   - **random-like**: no eigenvalue beyond the Tracy–Widom edge at 1 %;
   - **bulk+spikes**: at least one is 20 % or more beyond λ₊;
   - **bleeding-out**: there are some, all of them nearer than that.
3. Without such a bulk:

   - **heavy-tailed**: a power law holds the tail on sufficient evidence, with 1 < α ≤ 6;
   - **bulk-decay**: the tail's fit is poor, or its α is above 6: there is no edge any more, and no power law yet.
4. **undecided**: fewer than 50 eigenvalues, or no such bulk and a tail too short to judge.

The limits of 5 %, 0.02, 10 % and 20 % are conventions. Read a phase with its reason, and as a description: no phase is
good or bad in itself.

Source: C. H. Martin and M. W. Mahoney, Implicit self-regularization in deep neural networks, JMLR 22 (2021) 165.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from ww_callbacks.spectral.fits.clauset import PowerLawFit, clauset_fit
from ww_callbacks.spectral.fits.sufficiency import MIN_EIGENVALUES, evidence
from ww_callbacks.spectral.random_matrix.marchenko_pastur import Shape, sides
from ww_callbacks.spectral.random_matrix.spikes import bulk_distance, bulk_tolerance, find_spikes

PHASES = ("random-like", "bleeding-out", "bulk+spikes", "bulk-decay", "heavy-tailed", "rank-collapsed", "undecided")
"""All phases."""

_COLLAPSED_SHARE = 0.05
_SEPARATION = 1.2
_MOST_SPIKES = 0.1
_HEAVIEST_ALPHA = 6.0


@dataclass(frozen=True)
class Phase:
    """The phase of one spectrum.

    Attributes:
        name: one of :data:`PHASES`.
        reason: why, in words with numbers.
    """

    name: str
    reason: str


def phase(eigenvalues: ArrayLike, shape: Shape, fit: PowerLawFit | None = None) -> Phase:
    """Decide the phase of a spectrum.

    Args:
        eigenvalues: λ of one matrix, or of several of one shape pooled, in any order.
        shape: the shape of one such matrix.
        fit: the power law fitted to them, if available.

    Returns:
        The phase and the numbers that decided it. The same for W and c·W.

    >>> from ww_callbacks.spectral.random_matrix.marchenko_pastur import expected_eigenvalues
    >>> phase(expected_eigenvalues((300, 100)), (300, 100)).name
    'random-like'
    """
    values = np.sort(np.asarray(eigenvalues, dtype=np.float64).ravel())
    if len(values) < MIN_EIGENVALUES:
        return Phase("undecided", f"{len(values)} eigenvalues are too few: {MIN_EIGENVALUES} are needed")
    if not (np.isfinite(values).all() and values[-1] > 0):
        return Phase("undecided", "no finite eigenvalue above zero")
    collapsed = _collapsed_share(values, shape)
    if collapsed >= _COLLAPSED_SHARE:
        return Phase("rank-collapsed", f"{collapsed:.0%} of the singular values are zero to float32")
    spikes = find_spikes(values, shape)
    distance = bulk_distance(values, shape, spikes)
    limit = bulk_tolerance(len(values))
    beyond = spikes.eigenvalues / spikes.bulk_max
    against = (
        f"the bulk's distance from Marchenko-Pastur is {distance:.3f} (limit {limit:.3f}), {len(beyond)} of "
        f"{len(values)} eigenvalues are beyond its edge"
    )
    if distance <= limit and len(beyond) <= _MOST_SPIKES * len(values):
        return _with_bulk(beyond, against)
    return _without_bulk(clauset_fit(values) if fit is None else fit, against)


def _collapsed_share(values: np.ndarray, shape: Shape) -> float:
    tolerance = sides(shape)[0] * float(np.finfo(np.float32).eps)
    return float(np.mean(values <= tolerance**2 * values[-1]))


def _with_bulk(beyond: np.ndarray, against: str) -> Phase:
    if len(beyond) == 0:
        return Phase("random-like", against)
    found = f"{against}, the largest at {beyond[0]:.2f} times the edge"
    return Phase("bulk+spikes" if beyond[0] >= _SEPARATION else "bleeding-out", found)


def _without_bulk(fit: PowerLawFit, against: str) -> Phase:
    quality = evidence(fit)
    found = f"{against}; α = {fit.alpha:.2f} on a tail of {fit.tail}, evidence {quality}"
    if quality == "sufficient" and 1 < fit.alpha <= _HEAVIEST_ALPHA:
        return Phase("heavy-tailed", found)
    if quality == "poor fit" or (quality == "sufficient" and fit.alpha > _HEAVIEST_ALPHA):
        return Phase("bulk-decay", found)
    return Phase("undecided", found)
