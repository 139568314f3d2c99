"""Matrix → singular values."""

from __future__ import annotations

import numpy as np

from spectral.layers.spec import Array


def singular_values(matrix: Array) -> np.ndarray:
    """Singular values σ of ``matrix``, float64, descending."""
    return np.linalg.svd(np.asarray(matrix, dtype=np.float64), compute_uv=False)
