"""Correlation flow: slope and roughness of α over the depth of a network.

In a well-conditioned network α stays constant from layer to layer; according to the source, information does not pass
where it rises or jumps. The slope measures the rise of α over depth, the roughness its jumps.

Source: C. H. Martin, T. Peng and M. W. Mahoney, Nature Communications 12 (2021) 4122 (who call the picture correlation
flow and read it by eye).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

_NAN = float("nan")


@dataclass(frozen=True)
class CorrelationFlow:
    """α over depth, in numbers.

    Attributes:
        layers: number of layers used.
        slope: least-squares slope of α over relative depth (0 first layer, 1 last): the climb over the whole network.
        slope_error: standard error of the slope.
        median_slope: median of all pairwise slopes (Theil–Sen), robust against a single outlier.
        roughness: mean |α_{l+1} − α_l| from one used layer to the next.
        mean: mean of α.
        spread: standard deviation of α about its mean.
    """

    layers: int
    slope: float
    slope_error: float
    median_slope: float
    roughness: float
    mean: float
    spread: float


def correlation_flow(alphas: ArrayLike, usable: ArrayLike | None = None) -> CorrelationFlow:
    """Slope and roughness of α (or of any quantity) over depth.

    Args:
        alphas: one number per layer, in depth order; NaN if there is none.
        usable: which of them to use, for example those of sufficient evidence; all finite ones by default.

    Returns:
        The numbers; NaN for those that need more layers than there are (a slope two, its error three).

    Raises:
        ValueError: if ``usable`` has another length.

    >>> flow = correlation_flow([2.0, 2.5, 3.0])
    >>> flow.slope, flow.roughness
    (1.0, 0.5)
    """
    values = np.asarray(alphas, dtype=np.float64).ravel()
    keep = np.isfinite(values)
    if usable is not None:
        chosen = np.asarray(usable, dtype=bool).ravel()
        if len(chosen) != len(values):
            raise ValueError(f"Expected {len(values)} entries in `usable`, one per layer, but got {len(chosen)}.")
        keep &= chosen
    depth = np.arange(len(values)) / max(1, len(values) - 1)
    x, y = depth[keep], values[keep]
    if len(y) < 2:
        return CorrelationFlow(len(y), _NAN, _NAN, _NAN, _NAN, float(y[0]) if len(y) else _NAN, _NAN)
    from scipy.stats import linregress, theilslopes

    line = linregress(x, y)
    return CorrelationFlow(
        layers=len(y),
        slope=float(line.slope),
        slope_error=float(line.stderr) if len(y) > 2 else _NAN,
        median_slope=float(theilslopes(y, x)[0]),
        roughness=float(np.mean(np.abs(np.diff(y)))),
        mean=float(np.mean(y)),
        spread=float(np.std(y)),
    )
