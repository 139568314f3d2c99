"""Size and error against rank."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from ww_callbacks.spectral.compression.factors import check_sigma, check_whole


def compression_table(sigma: np.ndarray, shape: tuple[int, int], ranks: Iterable[int]) -> list[dict[str, float]]:
    r"""What the best approximation of each rank costs and leaves out.

    Args:
        sigma: singular values σ of a rows × columns matrix.
        shape: rows and columns.
        ranks: the ranks r, each between 1 and the number of σ.

    Returns:
        One row a rank: ``rank``; ``size`` = r·(rows + columns) values; ``size_ratio``, over rows·columns;
        ``energy`` = Σ_{i≤r}λ_i/Σλ; ``relative_error`` = ‖W − W_r‖_F/‖W‖_F; ``spectral_error`` = σ_{r+1}/σ_1.

    Raises:
        ValueError: if a rank is out of range, a σ is negative or not finite, or there are more than min(rows, columns).
        TypeError: if a rank is no whole number.
    """
    sigma = check_sigma(sigma, shape)
    rows, columns = shape
    total = np.sum(sigma**2)
    table = []
    for rank in ranks:
        check_whole(rank)
        if not 1 <= rank <= sigma.size:
            raise ValueError(f"Expected a rank between 1 and {sigma.size}, but got {rank}.")
        left = float(np.sum(sigma[rank:] ** 2) / total) if total > 0 else 0.0
        table.append(
            {
                "rank": rank,
                "size": rank * (rows + columns),
                "size_ratio": rank * (rows + columns) / (rows * columns),
                "energy": 1 - left,
                "relative_error": left**0.5,
                "spectral_error": float(sigma[rank] / sigma[0]) if rank < sigma.size and sigma[0] > 0 else 0.0,
            }
        )
    return table
