r"""Sums over the whole spectrum, Σ f(λ_i), by stochastic Lanczos quadrature.

A random unit vector g gives gᵀf(A)g = ∫ f dμ_g, whose mean over g is Σ f(λ_i)/M; b Krylov columns give b such measures
with q nodes each (see :mod:`.lanczos`). Three techniques reduce the error:

* **deflation**: a converged Ritz value is an eigenvalue, and gets weight 1 instead of its random weight in the columns
(down to the first cluster that may have been found only in part);
* **control variates**: two sums are known exactly, Σ 1 = M and Σ λ = ‖W‖_F². The weights w of the other nodes become
  w·(a + cx) so that both sums are exact, and only the part of f that no straight line explains is random;
* **two quadratures**: for f = √x the Gauss quadrature is above and the Gauss–Radau quadrature with a node at 0 is below
the exact value. If the density of σ does not vanish at 0 (square matrices), √x = |σ| has a kink that no node resolves.
By the Euler–Maclaurin formula, a node at the kink causes twice the error of a kink between two nodes, with the opposite
sign: the value is (2·Gauss + Radau)/3, and a third of their distance is part of the error. Otherwise the two agree.

The rest of the error is three standard errors over the columns (99 % for 16), and a bound on rounding in float32.

References:
    S. Ubaru, J. Chen and Y. Saad: Fast estimation of tr(f(A)) via stochastic Lanczos quadrature. SIAM J. Matrix Anal.
    Appl. 38 (2017).

    R. A. Meyer, C. Musco, C. Musco and D. P. Woodruff: Hutch++: optimal stochastic trace estimation. SOSA 2021.

    R. P. Adams et al.: Estimating the spectral density of large implicit matrices. arXiv:1802.03451 (2018).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from math import exp, isfinite, log, sqrt

import numpy as np

from ww_callbacks.spectral.estimates.estimate import UNKNOWN, Estimate
from ww_callbacks.spectral.estimates.lanczos import ROUNDING, BlockLanczos, Ritz
from ww_callbacks.spectral.estimates.leading import first_cluster

STANDARD_ERRORS = 3.0
"""Number of standard errors over the columns in the error."""

_DEFLATED = 1e-4
"""Ratio of residual to Ritz value below which a Ritz value is treated as an eigenvalue."""

_DROWNED = 3e-7
"""Rounding error of the smallest eigenvalues due to products in float32, in units of the largest."""


@dataclass(frozen=True)
class SpectralMeasure:
    """Nodes x with weights w such that Σ w·f(x) estimates Σ f(λ_i), for λ in units of their mean ‖W‖_F²/M.

    Attributes:
        nodes: x = λ·M/‖W‖_F², descending.
        weights: number of eigenvalues that each node represents; 1 for those that were found.
        found: number of leading nodes that are eigenvalues.
        columns: for each random start column, its own weights of the other nodes.
    """

    nodes: np.ndarray
    weights: np.ndarray
    found: int
    columns: np.ndarray

    def sum(self, values: np.ndarray) -> float:
        """Σ w·f for the values f at the nodes."""
        return float(np.dot(self.weights, values))

    def standard_error(self, influence: np.ndarray) -> float:
        """Standard error of a number with the influence φ at the nodes, so that it changes by Σ w·φ with the weights.

        The part of φ that is linear in x is known exactly, and does not contribute.
        """
        nodes, weights = self.nodes[self.found :], self.weights[self.found :]
        design = np.stack([np.ones_like(nodes), nodes], axis=1)
        weighted = design.T * weights
        line = design @ np.linalg.solve(weighted @ design, weighted @ influence[self.found :])
        sums = self.columns @ (influence[self.found :] - line)
        return float(np.std(sums, ddof=1)) / sqrt(len(sums))


def spectral_measure(ritz: Ritz, side: int, squared_norm: float, found: int) -> SpectralMeasure | None:
    """The measure of W's eigenvalues from a quadrature.

    Args:
        ritz: the quadrature.
        side: M.
        squared_norm: ‖W‖_F² in its unit.
        found: number of leading values that are eigenvalues.

    Returns:
        The measure; None if the other nodes cannot represent the rest of M and ‖W‖_F².
    """
    nodes = ritz.values * (side / squared_norm)
    columns = ritz.weights[:, found:] * side
    weights, rest = columns.mean(axis=0), nodes[found:]
    count, total = side - found, side - float(np.sum(nodes[:found]))
    moments = [float(np.dot(weights, rest**power)) for power in range(3)]
    determinant = moments[0] * moments[2] - moments[1] ** 2
    if not (total > 0.0 and determinant > 1e-9 * moments[0] * moments[2]):
        return None
    constant = (count * moments[2] - total * moments[1]) / determinant
    slope = (total * moments[0] - count * moments[1]) / determinant
    return SpectralMeasure(nodes, np.concatenate([np.ones(found), weights * (constant + slope * rest)]), found, columns)


def effective_rank(space: BlockLanczos, norm: float) -> Estimate:
    """exp(−Σ p ln p), p = σ/Σσ, of the Krylov space's matrix.

    Args:
        space: a Krylov space of W.
        norm: ‖W‖_F.

    Returns:
        The effective rank with its error; unknown if W has fewer directions than the space.

    Examples:
        >>> w = np.random.default_rng(0).standard_normal((800, 600))
        >>> space = BlockLanczos(w)
        >>> space.extend(12)
        >>> estimate = effective_rank(space, float(np.linalg.norm(w)))
        >>> sigma = np.linalg.svd(w, compute_uv=False)
        >>> p = sigma / sigma.sum()
        >>> bool(abs(estimate.value - np.exp(-np.sum(p * np.log(p)))) < estimate.error)
        True
    """

    def entropy(measure: SpectralMeasure) -> tuple[float, np.ndarray]:
        sigma = np.sqrt(measure.nodes)
        logs = sigma * _log(sigma)
        total, mixed = measure.sum(sigma), measure.sum(logs)
        return log(total) - mixed / total, (sigma - logs + (mixed / total) * sigma) / total

    found = _both(space, norm, entropy)
    return UNKNOWN if found is UNKNOWN else _exponential(found)


def matrix_entropy(space: BlockLanczos, norm: float) -> Estimate:
    """−Σ p ln p in nats, p = λ/Σλ; arguments as for :func:`effective_rank`."""

    def entropy(measure: SpectralMeasure) -> tuple[float, np.ndarray]:
        logs = measure.nodes * _log(measure.nodes) / space.side  # Σ x = M
        return log(space.side) - measure.sum(logs), -logs

    return _both(space, norm, entropy)


def participation_ratio(space: BlockLanczos, norm: float) -> Estimate:
    """(Σλ)²/Σλ²; arguments as for :func:`effective_rank`."""

    def logarithm(measure: SpectralMeasure) -> tuple[float, np.ndarray]:
        squares = measure.sum(measure.nodes**2)
        return log(space.side**2 / squares), -(measure.nodes**2) / squares

    found = _both(space, norm, logarithm)
    return UNKNOWN if found is UNKNOWN else _exponential(found)


def _both(space: BlockLanczos, norm: float, compute: Callable[[SpectralMeasure], tuple[float, np.ndarray]]) -> Estimate:
    """Apply ``compute``, which returns a value and its influence at the nodes, to both quadratures."""
    scaled = float(np.ldexp(norm, -space.exponent)) ** 2
    ritz = space.ritz
    open_ = np.flatnonzero(ritz.residuals > _DEFLATED * ritz.values)
    found = min(int(open_[0]) if len(open_) else len(ritz.values), first_cluster(space)[0])
    ends, errors = [], []
    for quadrature in (ritz, space.radau):
        measure = spectral_measure(quadrature, space.side, scaled, found)
        if measure is None:
            return UNKNOWN
        with np.errstate(all="ignore"):
            value, influence = compute(measure)
            shifted, _ = compute(replace(measure, nodes=(1.0 + ROUNDING) * measure.nodes + _DROWNED * measure.nodes[0]))
        ends.append(value)
        errors.append(STANDARD_ERRORS * measure.standard_error(influence) + abs(shifted - value))
    gauss, radau = ends
    if not (isfinite(gauss) and isfinite(radau)):
        return UNKNOWN
    return Estimate((2.0 * gauss + radau) / 3.0, abs(gauss - radau) / 3.0 + max(errors))


def _exponential(logarithm: Estimate) -> Estimate:
    value = exp(logarithm.value)
    return Estimate(value, value * (exp(logarithm.error) - 1.0))


def _log(values: np.ndarray) -> np.ndarray:
    """Natural logarithm, and 0 at 0, where its factor vanishes."""
    return np.log(np.where(values > 0.0, values, 1.0))
