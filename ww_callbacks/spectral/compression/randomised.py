"""The randomised range finder and its error bounds.

Source: N. Halko, P.-G. Martinsson, J. Tropp, "Finding structure with randomness: Probabilistic algorithms for
constructing approximate matrix decompositions", SIAM Review 53 (2011). Numbers of algorithms and theorems are theirs.
"""

from __future__ import annotations

import math

import numpy as np

from ww_callbacks.spectral.compression.factors import Factors, check_rank, split


def _check_generator(generator: np.random.Generator) -> None:
    if not isinstance(generator, np.random.Generator):
        raise TypeError(
            f"Expected a NumPy generator, but got {generator!r}. Make one of a seed: `np.random.default_rng(0)`."
        )


def range_finder(
    matrix: np.ndarray, size: int, generator: np.random.Generator, power_iterations: int = 0
) -> np.ndarray:
    r"""An orthonormal basis Q that nearly holds the range of A: :math:`A \approx QQ^\top A`.

    Algorithm 4.3 with the orthonormalisation of algorithm 4.4: Q spans :math:`(AA^\top)^q A\,\Omega`, Ω Gaussian.

    Args:
        matrix: A, rows × columns.
        size: ℓ = rank + oversampling, the number of columns of Q.
        generator: where Ω is drawn from.
        power_iterations: q; 1 or 2 where the spectrum falls slowly, as that of weights does.

    Returns:
        Q, rows × ℓ.

    Raises:
        ValueError: if ``matrix`` is no finite matrix, or ``size`` or ``power_iterations`` is out of range.
        TypeError: if ``size`` is no whole number, or ``generator`` no generator.
    """
    matrix = check_rank(matrix, size)
    _check_generator(generator)
    if power_iterations < 0:
        raise ValueError(f"Expected `power_iterations` ≥ 0, but got {power_iterations}.")
    q = np.linalg.qr(matrix @ generator.standard_normal((matrix.shape[1], size)))[0]
    for _ in range(power_iterations):
        q = np.linalg.qr(matrix @ np.linalg.qr(matrix.T @ q)[0])[0]
    return q


def randomised_svd(
    matrix: np.ndarray, rank: int, generator: np.random.Generator, oversampling: int = 10, power_iterations: int = 1
) -> Factors:
    """Rank-r factors by the range finder and the SVD of the small matrix QᵀA (algorithm 5.1).

    Args:
        matrix: W, rows × columns.
        rank: r.
        generator: where the test matrix is drawn from.
        oversampling: p, columns beyond r; cut to what the matrix allows.
        power_iterations: see :func:`range_finder`.

    Returns:
        The factors, float64.

    Raises:
        ValueError, TypeError: as :func:`range_finder`.
    """
    matrix = check_rank(matrix, rank)
    q = range_finder(matrix, min(rank + oversampling, *matrix.shape), generator, power_iterations)
    u, sigma, vt = np.linalg.svd(q.T @ matrix, full_matrices=False)
    return split(q @ u[:, :rank], sigma[:rank], vt[:rank])


def expected_error(sigma: np.ndarray, rank: int, oversampling: int, power_iterations: int = 0) -> float:
    r"""Bound of the expected :math:`\lVert A - QQ^\top A\rVert_2`, from the singular values (theorem 10.6, cor. 10.10).

    .. math:: \Big[\Big(1+\sqrt{\tfrac{k}{p-1}}\Big)\sigma_{k+1}^{m}
              + \tfrac{e\sqrt{k+p}}{p}\Big(\sum_{j>k}\sigma_j^{2m}\Big)^{1/2}\Big]^{1/m}, \quad m = 2q+1

    Args:
        sigma: singular values of A.
        rank: k ≥ 1.
        oversampling: p ≥ 2.
        power_iterations: q.

    Returns:
        The bound, in units of σ; 0 where k reaches the number of σ.

    Raises:
        ValueError: if k < 1, p < 2 or q < 0.
    """
    if rank < 1 or oversampling < 2 or power_iterations < 0:
        raise ValueError(
            f"Expected rank ≥ 1, oversampling ≥ 2 and power_iterations ≥ 0, "
            f"but got {rank}, {oversampling} and {power_iterations}."
        )
    tail = np.sort(np.asarray(sigma, dtype=np.float64))[::-1][rank:]
    if tail.size == 0 or tail[0] == 0:
        return 0.0
    m = 2 * power_iterations + 1
    # Relative to the first σ of the tail, so that its powers do not underflow.
    inner = 1 + math.sqrt(rank / (oversampling - 1))
    inner += math.e * math.sqrt(rank + oversampling) / oversampling * math.sqrt(np.sum((tail / tail[0]) ** (2 * m)))
    return float(tail[0] * inner ** (1 / m))


def expected_truncation_error(sigma: np.ndarray, rank: int, oversampling: int = 10, power_iterations: int = 1) -> float:
    r"""Bound of the expected spectral error of :func:`randomised_svd`, from the singular values.

    Cutting the SVD of QᵀA down to rank k adds at most :math:`\sigma_{k+1}` to :func:`expected_error` (theorem 9.3).
    Where the matrix allows no oversampling, Q holds the whole range and :math:`\sigma_{k+1}` alone is left.

    Args:
        sigma: singular values of A.
        rank: k.
        oversampling: p, as given to :func:`randomised_svd`.
        power_iterations: q.

    Returns:
        The bound, in units of σ.

    Raises:
        ValueError: as :func:`expected_error`.
    """
    ordered = np.sort(np.asarray(sigma, dtype=np.float64))[::-1]
    cut = float(ordered[rank]) if rank < ordered.size else 0.0
    if rank + oversampling >= ordered.size:
        return cut
    return cut + expected_error(ordered, rank, oversampling, power_iterations)


def certified_error(matrix: np.ndarray, q: np.ndarray, generator: np.random.Generator, probes: int = 10) -> float:
    r"""An upper bound of :math:`\lVert A - QQ^\top A\rVert_2` that fails with probability at most 10^−probes.

    Equation (4.3): :math:`10\sqrt{2/\pi}\,\max_i\lVert(I-QQ^\top)A\omega_i\rVert`, ω_i Gaussian. It needs no spectrum
    of A, only ``probes`` products with it.

    Args:
        matrix: A, rows × columns.
        q: Q, orthonormal, rows × ℓ.
        generator: where ω is drawn from, independent of what made Q.
        probes: number of ω.

    Returns:
        The bound, in units of σ.

    Raises:
        ValueError: if ``matrix`` is no finite matrix or ``probes`` < 1.
        TypeError: if ``generator`` is no generator.
    """
    if probes < 1:
        raise ValueError(f"Expected `probes` ≥ 1, but got {probes}.")
    matrix = check_rank(matrix, 1)
    _check_generator(generator)
    y = matrix @ generator.standard_normal((matrix.shape[1], probes))
    return float(10 * math.sqrt(2 / math.pi) * np.linalg.norm(y - q @ (q.T @ y), axis=0).max())


def range_to_tolerance(
    matrix: np.ndarray, tolerance: float, generator: np.random.Generator, block: int = 16
) -> np.ndarray:
    r"""A basis Q with :math:`\lVert A - QQ^\top A\rVert_2 \le` ``tolerance``, grown block by block, then cut.

    As algorithm 4.2, but with power iterations on what is left, :math:`B = (I-QQ^\top)A`. Equation (4.3), applied to
    :math:`(BB^\top)^2B`, whose norm is :math:`\lVert B\rVert^5`, certifies

    .. math:: \lVert B\rVert \le \beta = \Big(10\sqrt{2/\pi}\,\max_i\lVert (BB^\top)^2B\omega_i\rVert\Big)^{1/5}

    with the same probability: the factor of looseness becomes its fifth root. Q grows until β ≤ ``tolerance``/√2; of
    it, the first ℓ left singular vectors of :math:`QQ^\top A` are kept, as few as
    :math:`\beta^2 + \sigma_{\ell+1}(Q^\top A)^2 \le` ``tolerance``² allows, since the two errors are orthogonal.

    Args:
        matrix: A, rows × columns.
        tolerance: in units of σ, > 0.
        generator: where the test vectors are drawn from.
        block: columns added at a time; also the number of probes, so a step errs with probability 10^−block at most.

    Returns:
        Q, rows × ℓ, with ℓ the rank that the tolerance needs, somewhat overestimated, and at most the smaller side; no
        column where the tolerance is far above the norm of A.

    Raises:
        ValueError: if ``matrix`` is no finite matrix, or ``tolerance`` or ``block`` is not positive.
        TypeError: if ``generator`` is no generator.
    """
    if not tolerance > 0 or block < 1:
        raise ValueError(f"Expected a positive `tolerance` and `block` ≥ 1, but got {tolerance} and {block}.")
    # In units of the tolerance, so that fifth powers neither overflow nor underflow near the decision.
    matrix = check_rank(matrix, 1) / tolerance
    _check_generator(generator)
    q = np.zeros((matrix.shape[0], 0))
    bound = 0.0  # what the whole range leaves
    while q.shape[1] < min(matrix.shape):
        y = _left_out(q, matrix @ generator.standard_normal((matrix.shape[1], block)))
        for _ in range(2):
            y = _left_out(q, matrix @ (matrix.T @ y))
        certified = (10 * math.sqrt(2 / math.pi) * np.linalg.norm(y, axis=0).max()) ** (1 / 5)
        if certified <= math.sqrt(0.5):  # half of the squared tolerance stays for the cut
            bound = certified
            break
        y = y[:, : min(matrix.shape) - q.shape[1]]
        for _ in range(2):  # again: where y is nearly of lower rank, QR makes columns that Q holds already
            y = np.linalg.qr(_left_out(q, y))[0]
        q = np.hstack([q, y])
    u, sigma, _ = np.linalg.svd(q.T @ matrix, full_matrices=False)
    return q @ u[:, : np.count_nonzero(bound**2 + sigma**2 > 1)]


def _left_out(q: np.ndarray, y: np.ndarray) -> np.ndarray:
    """(I − QQᵀ)y."""
    return y - q @ (q.T @ y)
