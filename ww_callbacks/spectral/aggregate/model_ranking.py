"""A metric of the weights against the accuracy of a series of models: does it predict who is better?

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
    """How a metric goes with accuracy over models.

    Attributes:
        points: one row a model: ``metric``, ``accuracy``, ``fitted``, ``residual``: the scatter and its line.
        models: how many models were used.
        slope: of accuracy on the metric, least squares.
        intercept: of that line.
        r2: share of the accuracy's variance that the line explains.
        rmse: √ of the mean squared residual, in the accuracy's unit.
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

    Three models say nothing, five little: look at ``kendall_p`` before the slope.

    Args:
        metric: one number a model, for example its mean α.
        accuracy: one number a model, in any unit; error or loss will do as well.
        names: the models' names, the index of ``points``.

    Returns:
        The comparison over the models of which both numbers are finite; all NaN below two models, or where the metric
        is the same for all.

    Raises:
        ValueError: if the lengths differ.

    >>> series = model_series([3.0, 2.5, 2.0], [70.0, 75.0, 80.0])
    >>> round(series.slope, 6), series.kendall
    (-10.0, -1.0)
    """
    x, y = np.asarray(metric, dtype=np.float64).ravel(), np.asarray(accuracy, dtype=np.float64).ravel()
    if len(x) != len(y):
        raise ValueError(f"Expected one metric and one accuracy a model but got {len(x)} and {len(y)}.")
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
