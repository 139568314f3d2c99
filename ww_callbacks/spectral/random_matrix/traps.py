r"""Correlation traps: eigenvalues of the element-wise shuffled W beyond the edge of the Marchenko–Pastur bulk.

A shuffle keeps the elements and destroys their correlations, so its spectrum should fill the bulk and no more. What
sticks out comes from the elements themselves, and there are two kinds:

* *centred* traps, of W with its mean taken off: a few elements are far larger than the rest;
* *uncentred* traps, of the unchanged W: these, and the mean. A mean m adds a rank-one part of strength
  θ = √(NM)·|m|/s, which shows from θ > (NM)^{1/4} on. Healthy ReLU layers acquire one.

A shuffle keeps s² and m exactly, hence the edge is known without a fit, and only the largest eigenvalues of the shuffle
are wanted: one Gram product and a Lanczos iteration, no second spectrum.

Source: the notion is WeightWatcher's (C. H. Martin and collaborators); edge and test as in ``tracy_widom``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from ww_callbacks.spectral.random_matrix import tracy_widom
from ww_callbacks.spectral.random_matrix.marchenko_pastur import Shape, edges, sides
from ww_callbacks.spectral.random_matrix.nulls.random_nulls import shuffled
from ww_callbacks.spectral.random_matrix.spikes import critical_strength
from ww_callbacks.spectral.random_matrix.top_eigenvalues import eigenvalues_beyond
from ww_callbacks.spectral.random_matrix.weightwatcher_mp import weightwatcher_cut

Cut = Literal["tracy-widom", "weightwatcher"]


@dataclass(frozen=True)
class Traps:
    """The traps of one shuffle of one matrix.

    Attributes:
        centred: eigenvalues of the shuffled W − mean beyond the cut.
        uncentred: eigenvalues of the shuffled W beyond the cut.
        z_centred: the centred shuffle's largest eigenvalue in Tracy–Widom units.
        z_uncentred: the uncentred shuffle's largest eigenvalue in Tracy–Widom units.
        largest: the uncentred shuffle's largest eigenvalue in units of λ.
        cut: the λ beyond which an eigenvalue counts as a trap.
    """

    centred: int
    uncentred: int
    z_centred: float
    z_uncentred: float
    largest: float
    cut: float


def mean_strength(matrix: ArrayLike) -> float:
    """How strong the mean element is as a rank-one part: (NM)^{1/4}·|mean|/std; beyond 1 it is an uncentred trap.

    Args:
        matrix: W.

    Returns:
        θ/θ_c, without a unit; inf where all elements are equal and not 0, NaN where all are 0.

    >>> mean_strength([[1.0, 3.0], [1.0, 3.0]])
    2.8284271247461903
    """
    w = np.asarray(matrix, dtype=np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        return float(critical_strength(w.shape) * np.divide(abs(np.mean(w)), np.std(w)))


def trap_cut(shape: Shape, mean: float, level: float, rule: Cut) -> float:
    """The λ beyond which an eigenvalue of a shuffle is a trap, in units of s².

    Args:
        shape: shape of the matrix.
        mean: mean of the elements in units of s, which only WeightWatcher's rule looks at.
        level: probability that a healthy random matrix has a trap, for the rule ``"tracy-widom"``.
        rule: ``"tracy-widom"``, or ``"weightwatcher"`` for its heuristic with the closed-form edge in place of its fit.

    Raises:
        ValueError: for another rule.
    """
    if rule == "tracy-widom":
        return tracy_widom.edge(shape, 1.0, level)
    if rule == "weightwatcher":
        # WeightWatcher's cut is written for eigenvalues of mean 1; with the mean in, theirs is N(1 + mean²) s².
        unit = sides(shape)[0] * (1 + mean**2)
        return unit * weightwatcher_cut(edges(shape)[1] / unit, shape)
    raise ValueError(f"Expected the rule 'tracy-widom' or 'weightwatcher' but got {rule!r}.")


def correlation_traps(
    matrix: ArrayLike, rng: np.random.Generator, *, level: float = 0.01, rule: Cut = "tracy-widom"
) -> Traps:
    """Shuffle W once and count the eigenvalues beyond the edge of the bulk.

    The elements are standardised in float64; product and iteration run in float32. z is exact to about 0.001, and the
    count is exact if no eigenvalue is that close to the threshold.

    Args:
        matrix: W.
        rng: random generator of the shuffle.
        level: probability that a random matrix has a centred trap. It holds for elements without a heavy tail. Large
            elements cause traps: a matrix of Laplace elements has one in 14 % of cases at 120×80 and in 9 % at 400×300,
            for a level of 5 %.
        rule: what counts as a trap: beyond the Tracy–Widom quantile, or beyond WeightWatcher's heuristic threshold.

    Returns:
        The traps; none and z = NaN if all elements are equal, because there is no bulk then.

    Raises:
        ValueError: for a level outside (0, 1) or an unknown rule.

    >>> from ww_callbacks.spectral.random_matrix.nulls.random_nulls import generator
    >>> w = generator(1).standard_normal((200, 100))
    >>> correlation_traps(w, generator(0)).uncentred, correlation_traps(w + 1.0, generator(0)).uncentred
    (0, 1)
    """
    if not 0 < level < 1:
        raise ValueError(f"Expected a level between 0 and 1 but got {level}.")
    w = shuffled(matrix, rng)
    unit = float(np.max(np.abs(w), initial=0.0))
    if unit > 0:
        w /= unit  # so that nothing over- or underflows when it is squared
    scale, mean = float(np.std(w)), float(np.mean(w))
    # A constant matrix has rounding for a standard deviation.
    if not scale > 1e-12 * abs(mean):
        nan = float("nan")
        return Traps(0, 0, nan, nan, nan, nan)
    shape: Shape = w.shape
    mean /= scale
    cut = trap_cut(shape, mean, level, rule)
    w /= scale
    w -= mean
    tall = (w if shape[0] >= shape[1] else w.T).astype(np.float32)
    del w
    gram = tall.T @ tall
    centred = eigenvalues_beyond(gram, cut)
    # (C + m·11ᵀ)ᵀ(C + m·11ᵀ) = CᵀC + m(c1ᵀ + 1cᵀ) + m²N·11ᵀ, c = Cᵀ1: the mean costs no second product.
    sums = mean * tall.sum(axis=0, dtype=np.float64)
    gram += (sums[:, None] + sums[None, :] + mean**2 * len(tall)).astype(np.float32)
    uncentred = eigenvalues_beyond(gram, cut)
    return Traps(
        centred=int(np.count_nonzero(centred > cut)),
        # A rank-one change moves at most one eigenvalue across; more than that is rounding next to a huge mean.
        uncentred=min(int(np.count_nonzero(uncentred > cut)), int(np.count_nonzero(centred > cut)) + 1),
        z_centred=tracy_widom.z_score(float(centred[0]), shape, 1.0),
        z_uncentred=tracy_widom.z_score(float(uncentred[0]), shape, 1.0),
        largest=float(uncentred[0] * np.square(scale * unit)),
        cut=float(cut * np.square(scale * unit)),
    )
