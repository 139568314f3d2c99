r"""The Tracy–Widom law (β = 1): the distribution of the largest eigenvalue of a random matrix at the edge of the bulk.

F₁(z) = det(1 − V_z), where V_z is the integral operator on (0, ∞) of kernel ½ Ai(z + (x + y)/2) (P. L. Ferrari and
H. Spohn, Journal of Physics A 38 (2005) L557). The determinant is evaluated by Gauss–Legendre quadrature, which
converges exponentially (F. Bornemann, Mathematics of Computation 79 (2010) 871). No table is used. Absolute error
below 1e-12 for every z; in the right tail the relative error of :func:`sf` is below 1e-11 up to z = 15.

The largest eigenvalue λ_1 of WᵀW, W with N·M independent entries of variance s², follows that law after scaling:

    μ = s²(√(N−½) + √(M−½))²,    τ = s²(√(N−½) + √(M−½)) (1/√(N−½) + 1/√(M−½))^{1/3},    z = (λ_1 − μ)/τ,

which leaves an error of order M^{−2/3} (I. M. Johnstone, Annals of Statistics 29 (2001) 295; Z. Ma, Bernoulli 18
(2012) 322).
"""

from __future__ import annotations

from functools import lru_cache
from math import sqrt

import numpy as np
from numpy.typing import ArrayLike

from ww_callbacks.spectral.random_matrix.marchenko_pastur import Shape, sides

MEAN = -1.2065335745820
"""Mean of the law."""
VARIANCE = 1.607781034581
"""Variance of the law."""

_NODES = 40
_SECANTS = 50
_REACH = 16.0  # Ai(16) is 4e-20: beyond z + x = 16 the kernel is nothing


@lru_cache(maxsize=1)
def _quadrature() -> tuple[np.ndarray, np.ndarray]:
    return np.polynomial.legendre.leggauss(_NODES)


def _log_cdf(z: float) -> float:
    """Ln F₁(z) as the sum of ln(1 − κ) over the operator's eigenvalues κ, which keeps small 1 − F₁ exact."""
    from scipy.special import airy

    nodes, weights = _quadrature()
    length = 2 * max(_REACH - z, 4.0)
    x, root = length * (nodes + 1) / 2, np.sqrt(length / 2 * weights)
    kernel = 0.5 * airy(z + (x[:, None] + x[None, :]) / 2)[0]
    eigenvalues = np.linalg.eigvalsh(root[:, None] * kernel * root[None, :])
    return float(np.sum(np.log1p(-np.minimum(eigenvalues, 1 - 1e-16))))


def sf(z: ArrayLike) -> np.ndarray:
    """Upper tail 1 − F₁(z): how often pure chance gives a largest eigenvalue beyond z.

    Args:
        z: the normalised largest eigenvalue, any shape; NaN stays NaN.

    Returns:
        Probabilities, of the shape of ``z``.

    >>> round(float(sf(0.9793)), 4)
    0.05
    """

    def one(value: float) -> float:
        if np.isnan(value):
            return float("nan")
        # Beyond the reach only the trace ½∫Ai counts, and it has underflown; below −10, F₁ is under 1e-18.
        return 0.0 if value > _REACH else 1.0 if value < -10 else float(-np.expm1(_log_cdf(value)))

    return np.vectorize(one, otypes=[np.float64])(np.asarray(z, dtype=np.float64))


def cdf(z: ArrayLike) -> np.ndarray:
    """F₁(z), the probability of a largest eigenvalue at or below z.

    Args:
        z: the normalised largest eigenvalue, any shape; NaN stays NaN.

    Returns:
        Probabilities, of the shape of ``z``.

    >>> round(float(cdf(2.0234)), 4)
    0.99
    """
    return 1.0 - sf(z)


@lru_cache(maxsize=256)
def quantile(probability: float) -> float:
    """The z that is exceeded with probability 1 − ``probability``; its inverse is :func:`cdf`.

    Raises:
        ValueError: for a probability outside (1e-10, 1 − 1e-12).

    >>> round(quantile(0.95), 4), round(quantile(0.99), 4)
    (0.9793, 2.0234)
    """
    if not 1e-10 < probability < 1 - 1e-12:
        raise ValueError(f"Expected a probability strictly between 1e-10 and 1 - 1e-12 but got {probability}.")
    wanted = np.log((1 - probability) / probability)
    # The odds' logarithm is nearly straight in z, so the secant method needs few of its costly values. (SciPy's root
    # finders take a third of a second to import, which a training would wait for.)
    (before, z), height = (MEAN, 0.0), _log_odds(MEAN)
    for _ in range(_SECANTS):
        new = _log_odds(z)
        step = (wanted - new) * (z - before) / (new - height)
        before, height, z = z, new, z + step
        if abs(step) < 1e-9:
            break
    return float(z)


def _log_odds(z: float) -> float:
    """Ln((1 − F₁)/F₁)."""
    log_cdf = _log_cdf(z)
    return float(np.log(-np.expm1(log_cdf)) - log_cdf)


def centre_and_scale(shape: Shape, variance: float = 1.0) -> tuple[float, float]:
    """μ and τ of the largest eigenvalue: λ_1 ≈ μ + τ·z with z after Tracy and Widom.

    Args:
        shape: shape of the matrix, in either orientation.
        variance: s², the variance of an entry.

    Returns:
        μ and τ, in units of λ.

    >>> mu, tau = centre_and_scale((100, 100))
    >>> round(mu, 3), round(tau, 3)
    (398.0, 11.677)
    """
    larger, smaller = (sqrt(side - 0.5) for side in sides(shape))
    scale = (larger + smaller) * (1 / larger + 1 / smaller) ** (1 / 3)
    return float(variance * (larger + smaller) ** 2), float(variance * scale)


def z_score(eigenvalue: float, shape: Shape, variance: float) -> float:
    """Z = (λ − μ)/τ of a largest eigenvalue; NaN if the variance is not positive.

    Args:
        eigenvalue: λ, the largest eigenvalue of WᵀW.
        shape: shape of the matrix, in either orientation.
        variance: s², the variance of an entry.

    Returns:
        z, without unit.

    >>> z_score(398.0, (100, 100), 1.0)
    0.0
    """
    if not variance > 0:
        return float("nan")
    centre, scale = centre_and_scale(shape, variance)
    return (eigenvalue - centre) / scale


def edge(shape: Shape, variance: float, level: float = 0.01) -> float:
    """The λ that chance exceeds with probability ``level``: μ + τ·F₁⁻¹(1 − level).

    Args:
        shape: shape of the matrix.
        variance: s², the variance of an entry.
        level: probability of a false alarm.

    Returns:
        The threshold, in units of λ.

    >>> round(edge((100, 100), 1.0, level=0.05), 1)
    409.4
    """
    centre, scale = centre_and_scale(shape, variance)
    return centre + scale * quantile(1 - level)
