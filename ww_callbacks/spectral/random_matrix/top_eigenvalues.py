"""The largest eigenvalues of a symmetric matrix, without the full spectrum."""

from __future__ import annotations

import numpy as np

_DENSE = 160
"""Up to this side the whole spectrum is as fast as Lanczos."""


def largest_eigenvalues(symmetric: np.ndarray, count: int, *, seed: int = 0) -> np.ndarray:
    """The ``count`` largest eigenvalues of a symmetric matrix, by Lanczos with a seeded start.

    Args:
        symmetric: the M×M matrix, float64 or float32.
        count: how many.
        seed: of the start vector.

    Returns:
        min(count, M) eigenvalues, descending, to about 1e-9 of the largest (1e-6 in float32).

    Raises:
        numpy.linalg.LinAlgError: if the iteration does not converge.

    >>> largest_eigenvalues(np.diag([1.0, 2.0, 3.0]), 2).tolist()
    [3.0, 2.0]
    """
    from scipy.sparse.linalg import ArpackError, eigsh

    side = len(symmetric)
    count = min(count, side)
    if side <= _DENSE or count > side // 8:
        return np.linalg.eigvalsh(symmetric)[: -count - 1 : -1]
    start = np.random.default_rng(seed).standard_normal(side).astype(symmetric.dtype)
    basis = min(side, 4 * count + 60)
    try:
        found = eigsh(symmetric, k=count, which="LA", v0=start, ncv=basis, tol=1e-5, return_eigenvectors=False)
    except ArpackError as error:
        raise np.linalg.LinAlgError(f"Lanczos did not converge: {error}") from error
    return np.sort(found)[::-1]


def eigenvalues_beyond(symmetric: np.ndarray, cut: float) -> np.ndarray:
    """The eigenvalues of a symmetric matrix beyond ``cut``, or its largest alone if there is none, descending.

    How many there are is not known, so more are requested, fourfold each time, until the last is no longer beyond.

    >>> eigenvalues_beyond(np.diag([1.0, 2.0, 3.0]), 1.5).tolist(), eigenvalues_beyond(np.eye(2), 5.0).tolist()
    ([3.0, 2.0], [1.0])
    """
    count = 1
    while True:
        found = largest_eigenvalues(symmetric, count)
        if found[-1] <= cut or len(found) == len(symmetric):
            return found[: max(1, int(np.count_nonzero(found > cut)))]
        count *= 4
