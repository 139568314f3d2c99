r"""The exponential law for products of Gaussian matrices: the Jacobian of a very deep random linear network."""

from __future__ import annotations

import numpy as np
from scipy.special import digamma


def gaussian_product_lyapunov(d: int) -> np.ndarray:
    r"""Growth rates :math:`\lim_L \tfrac1L\ln\sigma_k(G_L\cdots G_1)`, k = 1 … d, for i.i.d. N(0, 1) matrices d×d.

    .. math:: \tfrac12\left(\ln 2 + \psi\!\left(\tfrac{d-k+1}{2}\right)\right)

    Entries of variance s² add ln s to each.

    Args:
        d: side of the matrices.

    Returns:
        d rates (ln a layer), descending.

    Raises:
        ValueError: if d < 1.

    Source: C. Newman, "The distribution of Lyapunov exponents: exact results for random matrices" (1986).

    >>> gaussian_product_lyapunov(8).round(3)
    array([ 0.975,  0.898,  0.808,  0.698,  0.558,  0.365,  0.058, -0.635])
    """
    if d < 1:
        raise ValueError(f"Expected a side d ≥ 1, but got {d}.")
    k = np.arange(1, d + 1)
    return 0.5 * (np.log(2) + digamma((d - k + 1) / 2))


def gaussian_product_ratio(d: int) -> np.ndarray:
    r"""The limit of :math:`(\sigma_k/\sigma_1)^{1/L}`: :math:`\exp\tfrac12(\psi(\tfrac{d-k+1}2)-\psi(\tfrac d2))`.

    Args:
        d: side of the matrices.

    Returns:
        d ratios in (0, 1], descending; all below 1 but the first, so every σ_k/σ_1 vanishes exponentially in depth.

    Raises:
        ValueError: if d < 1.

    Source: Feng et al. (2022), theorem on the product of Gaussian Jacobians.
    """
    rates = gaussian_product_lyapunov(d)
    return np.exp(rates - rates[0])


def simulate_gaussian_product(d: int, depth: int, generator: np.random.Generator) -> np.ndarray:
    r"""Rates :math:`\tfrac1L\ln|R_{kk}|` of a product of ``depth`` Gaussian d×d matrices, by repeated QR.

    The product itself overflows and its small σ drown in rounding; the QR factorisation after each factor keeps both
    out, and its diagonal has the same rates as the σ_k.

    Args:
        d: side of the matrices, entries N(0, 1).
        depth: number of factors L.
        generator: where they are drawn from.

    Returns:
        d rates (ln a layer), descending.

    Raises:
        ValueError: if d < 1 or depth < 1.

    Source: G. Benettin et al., "Lyapunov characteristic exponents" (1980).
    """
    if d < 1 or depth < 1:
        raise ValueError(f"Expected d ≥ 1 and depth ≥ 1, but got {d} and {depth}.")
    q = np.eye(d)
    logs = np.zeros(d)
    for _ in range(depth):
        q, r = np.linalg.qr(generator.standard_normal((d, d)) @ q)
        logs += np.log(np.abs(np.diag(r)))
    return np.sort(logs / depth)[::-1]
