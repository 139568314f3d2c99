"""A metric of the weights against the accuracy of a series of models: does it rank them?

Source: the comparison of C. H. Martin, T. Peng and M. W. Mahoney, Nature Communications 12 (2021) 4122 (least squares,
RMSE and Kendall's τ over a series such as VGG or ResNet).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

_NAN = float("nan")


@dataclass(frozen=True)
class ModelSeries:
    """The association of a metric with accuracy over models.

    Attributes:
        points: one row per model: ``metric``, ``accuracy``, ``fitted``, ``residual``: the scatter and its line.
        models: number of models used.
        slope: slope of the least-squares line of accuracy on the metric.
        intercept: intercept of that line.
        r2: share of the accuracy's variance that the line explains.
        rmse: root mean squared residual, in the unit of the accuracy.
        kendall: Kendall's rank correlation τ_b.
        kendall_p: its two-sided p-value against no association.
        spearman: Spearman's rank correlation.
    """

    points: pd.DataFrame
    models: int
    slope: float
    intercept: float
    r2: float
    rmse: float
    kendall: float
    kendall_p: float
    spearman: float


def model_series(metric: ArrayLike, accuracy: ArrayLike, names: ArrayLike | None = None) -> ModelSeries:
    """Compare a metric with accuracy over a series of models.

    Three models give no evidence, five little: check ``kendall_p`` before the slope.

    Args:
        metric: one number per model, for example its mean α.
        accuracy: one number per model, in any unit; error or loss work as well.
        names: the models' names, the index of ``points``.

    Returns:
        The comparison over the models with two finite numbers; all NaN below two models, or if the metric is the same
        for all.

    Raises:
        ValueError: if the lengths differ.

    >>> series = model_series([3.0, 2.5, 2.0], [70.0, 75.0, 80.0])
    >>> round(series.slope, 6), series.kendall
    (-10.0, -1.0)
    """
    x, y = np.asarray(metric, dtype=np.float64).ravel(), np.asarray(accuracy, dtype=np.float64).ravel()
    if len(x) != len(y):
        raise ValueError(f"Expected one metric and one accuracy per model but got {len(x)} and {len(y)}.")
    points = pd.DataFrame({"metric": x, "accuracy": y}, index=None if names is None else pd.Index(np.ravel(names)))
    points = points[np.isfinite(x) & np.isfinite(y)]
    x, y = points["metric"].to_numpy(), points["accuracy"].to_numpy()
    if len(x) < 2 or np.ptp(x) == 0:
        points = points.assign(fitted=_NAN, residual=_NAN)
        return ModelSeries(points, len(x), _NAN, _NAN, _NAN, _NAN, _NAN, _NAN, _NAN)
    from scipy.stats import kendalltau, spearmanr

    slope, intercept = np.polyfit(x, y, 1)
    fitted = slope * x + intercept
    spread = float(np.sum((y - np.mean(y)) ** 2))
    kendall = kendalltau(x, y)
    varied = spread > 0
    return ModelSeries(
        points=points.assign(fitted=fitted, residual=y - fitted),
        models=len(x),
        slope=float(slope),
        intercept=float(intercept),
        r2=1 - float(np.sum((y - fitted) ** 2)) / spread if varied else _NAN,
        rmse=float(np.sqrt(np.mean((y - fitted) ** 2))),
        kendall=float(kendall.statistic) if varied else _NAN,
        kendall_p=float(kendall.pvalue) if varied else _NAN,
        spearman=float(spearmanr(x, y).statistic) if varied else _NAN,
    )
