"""Numerical ranks of features and of Jacobians."""

from __future__ import annotations

import math

import numpy as np

from ww_callbacks.spectral.linalg.spectrum import singular_values

FLOAT32_EPS = 1.19e-7
"""Machine epsilon of float32, 2⁻²³, as the paper rounds it."""


def numerical_rank(sigma: np.ndarray, eps: float | None = None) -> int:
    r"""Numerical rank :math:`\#\{i : \sigma_i \ge \varepsilon\,\sigma_1\}`.

    Args:
        sigma: singular values σ, any order.
        eps: relative threshold ε; None for 1.19e-7 times their number, the resolution of float32.

    Returns:
        The rank; 0 where all σ are zero.

    Source: Feng et al. (2022), section 3.

    >>> numerical_rank(np.array([1.0, 0.5, 1e-9]))
    2
    """
    sigma = np.asarray(sigma, dtype=np.float64)
    if sigma.size == 0 or not sigma.max() > 0:
        return 0
    threshold = FLOAT32_EPS * sigma.size if eps is None else eps
    return int(np.count_nonzero(sigma >= threshold * sigma.max()))


def _as_matrix(features: np.ndarray) -> np.ndarray:
    matrix = np.asarray(features, dtype=np.float64)
    if matrix.ndim != 2:
        raise ValueError(f"Expected a matrix of features (samples × dimensions), but got the shape {matrix.shape}.")
    return matrix


def _centred_spectrum(features: np.ndarray) -> tuple[np.ndarray, float] | None:
    """σ of the centred features, and the threshold below which they are rounding of float32; None if not finite."""
    matrix = _as_matrix(features)
    if matrix.size == 0 or not np.isfinite(matrix).all():
        return None
    sigma = singular_values(matrix - matrix.mean(axis=0))
    # The mean may be far larger than the deviations, so rounding is relative to the features' own size.
    return sigma, FLOAT32_EPS * sigma.size * float(np.linalg.norm(matrix, ord=2))


def feature_rank(features: np.ndarray) -> float:
    r"""Numerical rank of a layer's centred features.

    .. math:: \#\{i : \sigma_i(F - \bar F) \ge \varepsilon\,\sigma_1(F)\}

    Centred, so that it counts directions in which inputs differ: constant features have rank 0.

    Args:
        features: F, samples × dimensions, computed in float32 or better.

    Returns:
        The rank, with ε = 1.19e-7 times the number of singular values; NaN if a feature is not finite.

    Raises:
        ValueError: if ``features`` is not a matrix.

    >>> feature_rank(np.outer([1.0, 2.0, 3.0], [1.0, -1.0]))
    1.0
    """
    spectrum = _centred_spectrum(features)
    if spectrum is None:
        return math.nan
    sigma, threshold = spectrum
    return float(np.count_nonzero((sigma >= threshold) & (sigma > 0)))


def feature_effective_rank(features: np.ndarray) -> float:
    r"""Effective rank of a layer's centred features.

    .. math:: \exp\Big(-\sum_i p_i\ln p_i\Big), \quad p_i = \sigma_i/\sum_j\sigma_j, \quad \sigma = \sigma(F - \bar F)

    Args:
        features: F, samples × dimensions, computed in float32 or better.

    Returns:
        Between 1 and the number of singular values; 0 where the features do not vary; NaN if one is not finite.

    Raises:
        ValueError: if ``features`` is not a matrix.

    Source: O. Roy and M. Vetterli, "The effective rank" (2007).

    >>> round(feature_effective_rank(np.array([[1.0, 0], [-1, 0], [0, 1], [0, -1]])), 6)
    2.0
    """
    spectrum = _centred_spectrum(features)
    if spectrum is None:
        return math.nan
    sigma, threshold = spectrum
    sigma = sigma[(sigma >= threshold) & (sigma > 0)]
    if sigma.size == 0:
        return 0.0
    p = sigma / sigma.sum()
    return float(np.exp(-(p * np.log(p)).sum()))


def jacobian_rank(gram: np.ndarray, eps: float | None = None) -> float:
    r"""Numerical rank of a Jacobian J from its Gram matrix :math:`G=J^\top J` (or :math:`JJ^\top`).

    The eigenvalues λ of G are σ², so the threshold is squared: :math:`\#\{\lambda \ge \varepsilon^2\lambda_1\}`.
    That needs G in float64: ε² is about 1e-8 for a patch of 16×16×3, and G's own rounding 1e-16·λ_1.

    Args:
        gram: G, square, float64.
        eps: relative threshold ε on σ; None for 1.19e-7 times the side of G.

    Returns:
        The rank; 0 where J is zero; NaN if an element of G is not finite.

    Raises:
        ValueError: if ``gram`` is not square or not float64.
    """
    gram = np.asarray(gram)
    if gram.ndim != 2 or gram.shape[0] != gram.shape[1] or gram.dtype != np.float64:
        raise ValueError(f"Expected a square matrix in float64, but got the shape {gram.shape} in {gram.dtype}.")
    if not np.isfinite(gram).all():
        return math.nan
    return numerical_rank(np.sqrt(np.clip(np.linalg.eigvalsh(gram), 0, None)), eps)


def perturbed_pca_dimension(features: np.ndarray) -> float:
    r"""PCA dimension of one input's features under perturbation.

    .. math:: \#\{i : \lambda_i \ge 1.19\cdot10^{-7}\,n\,\lambda_1\}

    Args:
        features: n × dimensions: a layer's features at x + N(0, δ²I) for n draws, in float64.

    Returns:
        The number of eigenvalues λ of the features' covariance above the threshold; 0 if they do not vary; NaN if a
        feature is not finite.

    Raises:
        ValueError: if ``features`` is not a matrix.

    Source: Feng et al. (2022), section 4; n enters the threshold as there.
    """
    matrix = _as_matrix(features)
    if matrix.size == 0 or not np.isfinite(matrix).all():
        return math.nan
    centred = matrix - matrix.mean(axis=0)
    # The covariance has the eigenvalues σ²/n, whichever side the Gram matrix is taken on.
    gram = centred.T @ centred if centred.shape[0] >= centred.shape[1] else centred @ centred.T
    eigenvalues = np.clip(np.linalg.eigvalsh(gram), 0, None)
    # Rounding of the mean alone, relative to the features' own size.
    if eigenvalues[-1] <= matrix.size * (len(matrix) * np.finfo(np.float64).eps * np.abs(matrix).max()) ** 2:
        return 0.0
    return float(numerical_rank(eigenvalues, FLOAT32_EPS * matrix.shape[0]))
