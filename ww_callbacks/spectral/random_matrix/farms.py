"""FARMS: submatrices of one aspect ratio, so that layers of different shape can be compared.

The shape alone moves α (a wide layer's bulk is narrow, so its tail looks steep). Fixed-aspect subsampling takes from
every layer submatrices of the same aspect ratio Q, pools their eigenvalues and measures those.

Source: Y. Hu, K. Goel, V. Killiakov and Y. Yang, Eigenspectrum analysis of neural networks without aspect ratio bias,
ICML 2025.
"""

from __future__ import annotations

from math import ceil

import numpy as np
from numpy.typing import ArrayLike

from ww_callbacks.spectral.random_matrix.marchenko_pastur import Shape, sides


def windows(shape: Shape, aspect: float = 1.0, overlap: float = 0.0) -> list[tuple[slice, slice]]:
    """Windows of the aspect ratio Q that cover a matrix evenly.

    All windows have one size: the smaller side in full where that leaves N/M ≥ Q, so that no more is cut than needed;
    they are spread evenly from one end to the other, the fewest that leave nothing out at the given overlap.

    Args:
        shape: shape (rows, columns) of the matrix.
        aspect: Q ≥ 1, longer over shorter side of a window; the longer one is along the matrix's longer one.
        overlap: least share of a window that the next one repeats, in [0, 1).

    Returns:
        (rows, columns) of every window.

    Raises:
        ValueError: for an aspect below 1 or an overlap outside [0, 1).

    >>> windows((4, 10), aspect=2.0)
    [(slice(0, 4, None), slice(0, 8, None)), (slice(0, 4, None), slice(2, 10, None))]
    """
    if not aspect >= 1:
        raise ValueError(f"Expected an aspect ratio of at least 1 but got {aspect}.")
    if not 0 <= overlap < 1:
        raise ValueError(f"Expected an overlap in [0, 1) but got {overlap}.")
    larger, smaller = sides(shape)
    long = min(larger, max(1, round(smaller * aspect)))
    short = min(smaller, max(1, round(long / aspect)))
    along = _spread(larger, long, overlap)
    across = _spread(smaller, short, overlap)
    if shape[0] >= shape[1]:
        return [(a, b) for a in along for b in across]
    return [(b, a) for a in along for b in across]


def _spread(length: int, window: int, overlap: float) -> list[slice]:
    """Places of the fewest windows that cover ``length`` with at least this overlap, evenly spread."""
    step = max(1.0, window * (1 - overlap))
    count = 1 + ceil((length - window) / step - 1e-9)
    starts = np.linspace(0, length - window, count).round().astype(int)
    return [slice(int(start), int(start) + window) for start in starts]


def fixed_aspect_submatrices(matrix: ArrayLike, aspect: float = 1.0, overlap: float = 0.0) -> list[np.ndarray]:
    """Submatrices of W of the aspect ratio Q, as views.

    Their eigenvalues, pooled, take the place of W's: ``LayerWeights(fixed_aspect_submatrices(w))`` measures every
    quantity so. The numbers are no longer comparable with those of whole matrices.

    Args:
        matrix: W.
        aspect: Q, longer over shorter side of a window.
        overlap: least share of a window that the next one repeats.

    Raises:
        ValueError: as :func:`windows`.

    >>> [w.shape for w in fixed_aspect_submatrices(np.zeros((64, 256)))]
    [(64, 64), (64, 64), (64, 64), (64, 64)]
    """
    w = np.asarray(matrix)
    rows, columns = w.shape
    return [w[part] for part in windows((rows, columns), aspect, overlap)]
