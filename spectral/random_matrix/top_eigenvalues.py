"""The few largest eigenvalues of WᵀW without the others."""

from __future__ import annotations

import numpy as np

_DENSE = 256
"""Up to this many eigenvalues the whole spectrum is quicker than Lanczos."""


def largest_eigenvalues(matrix: np.ndarray, count: int, *, shift: float = 0.0, seed: int = 0) -> np.ndarray:
    """The ``count`` largest eigenvalues of (W − c·11ᵀ)ᵀ(W − c·11ᵀ), by Lanczos with a seeded start.

    Args:
        matrix: W, float64 or float32; it is neither changed nor copied.
        count: how many.
        shift: c, subtracted from every element without forming the difference.
        seed: of the start vector.

    Returns:
        min(count, M) eigenvalues, descending, to about 1e-8 of the largest (1e-5 in float32).

    Raises:
        numpy.linalg.LinAlgError: if the iteration does not converge.

    >>> largest_eigenvalues(np.diag([1.0, 2.0, 3.0]), 2).round(9).tolist()
    [9.0, 4.0]
    """
    from scipy.sparse.linalg import ArpackError, LinearOperator, eigsh

    w = matrix if matrix.shape[0] >= matrix.shape[1] else matrix.T
    smaller = w.shape[1]
    count = min(count, smaller)
    if smaller <= _DENSE or count > smaller // 4:
        centred = w - shift
        return np.linalg.eigvalsh(centred.T @ centred)[: -count - 1 : -1]

    def apply(x: np.ndarray) -> np.ndarray:
        y = w @ x - shift * np.sum(x)
        return np.asarray(w.T @ y - shift * np.sum(y))

    start = np.asarray(np.random.default_rng(seed).standard_normal(smaller), dtype=w.dtype)
    operator = LinearOperator((smaller, smaller), matvec=apply, dtype=w.dtype)
    basis = min(smaller, 4 * count + 60)
    try:
        found = eigsh(operator, k=count, which="LA", v0=start, ncv=basis, tol=1e-5, return_eigenvectors=False)
    except ArpackError as error:
        raise np.linalg.LinAlgError(f"Lanczos did not converge: {error}") from error
    return np.sort(found)[::-1]
