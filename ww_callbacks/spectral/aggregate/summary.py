"""Layer rows → model-level statistics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from ww_callbacks.spectral.measuring.accuracy import ERROR
from ww_callbacks.spectral.measuring.registry import all_quantities

STATISTICS = ("mean", "median", "q10", "q90", "min", "max")
"""The statistics over layers, in order; quantiles by linear interpolation."""

ESTIMATED = "estimated"
"""Name next to the statistics: how many of the values are estimates."""

NEEDS_EVIDENCE = ("alpha", "alpha_weighted")
"""Quantities that only use layers whose ``alpha_evidence`` is ``sufficient``."""


UPDATES = "lora/"
"""Prefix of the statistics over low-rank updates."""

_UPDATE = ".lora_update"


def summarise_layers(
    rows: Mapping[str, Mapping[str, float | str]], errors: Mapping[str, Mapping[str, float]] | None = None
) -> dict[str, float]:
    """:func:`summarise`, with the low-rank updates of adapters separate from the weights.

    An update of rank r has an effective rank of at most r: among the weights it would look like a collapse.

    Args:
        rows: layer → quantity name → value.
        errors: layer → quantity name → error, for values that are estimates; None if there is no tolerance.

    Returns:
        ``<quantity>/<statistic>`` over the weights, and ``lora/<quantity>/<statistic>`` over the updates. If only
        updates were measured, the former are also over the updates.

    >>> rows = {"q.merged_weight": {"effective_rank": 40.0}, "q.lora_update[default]": {"effective_rank": 2.0}}
    >>> summary = summarise_layers(rows)
    >>> summary["effective_rank/mean"], summary["lora/effective_rank/mean"]
    (40.0, 2.0)
    """
    updates = [layer for layer in rows if _UPDATE in layer]
    weights = [layer for layer in rows if _UPDATE not in layer]

    def over(layers: Sequence[str]) -> dict[str, float]:
        own = None if errors is None else [errors.get(layer, {}) for layer in layers]
        return summarise([rows[layer] for layer in layers], own)

    apart = {UPDATES + name: value for name, value in over(updates).items()} if updates else {}
    return {**over(weights or updates), **apart}


def summarise(
    rows: Sequence[Mapping[str, float | str]], errors: Sequence[Mapping[str, float]] | None = None
) -> dict[str, float]:
    """The headline quantities over layers, without failures.

    All statistics rise with each value. So if every value x_i is within its error e_i, each statistic lies between
    those of the x_i − e_i and of the x_i + e_i.

    Args:
        rows: quantity name → value, one mapping per layer.
        errors: quantity name → error, for values that are estimates, one mapping per layer; None if there is no
            tolerance.

    Returns:
        ``<quantity>/<statistic>`` for every headline quantity that occurs in the rows, over its finite values (for α
        only those with sufficient evidence; NaN if none is left), and ``alpha/share_sufficient``: the share of layers
        with an α that have sufficient evidence. With ``errors``, also ``<quantity>/estimated``: how many values are
        estimates, and ``<quantity>/<statistic>_error``: the error that each statistic has because of them, 0 if none
        are; for every quantity that can be estimated.

    >>> summary = summarise([{"effective_rank": 2.0}, {"effective_rank": 4.0}, {"effective_rank": float("nan")}])
    >>> summary["effective_rank/mean"], summary["effective_rank/max"]
    (3.0, 4.0)

    >>> summary = summarise([{"effective_rank": 2.0}, {"effective_rank": 4.0}], [{}, {"effective_rank": 0.25}])
    >>> [summary[f"effective_rank/{name}"] for name in ("estimated", "median_error", "max_error", "min_error")]
    [1.0, 0.125, 0.25, 0.0]
    """
    summary: dict[str, float] = {}
    reasons = [row.get("alpha_evidence", "sufficient") for row in rows]
    sufficient = np.array([reason == "sufficient" for reason in reasons], dtype=bool)
    for q in all_quantities():
        if not q.headline or not any(q.name in row for row in rows):
            continue
        values = np.array([row.get(q.name, np.nan) for row in rows], dtype=np.float64)
        finite = np.isfinite(values)
        if q.name in NEEDS_EVIDENCE:
            finite &= sufficient
        statistics = _statistics(values[finite])
        for statistic, value in zip(STATISTICS, statistics, strict=True):
            summary[f"{q.name}/{statistic}"] = value
        if errors is None or q.estimate is None:
            continue
        error = np.array([own.get(q.name, 0.0) for own in errors])[finite]
        summary[f"{q.name}/{ESTIMATED}"] = float(np.count_nonzero(error))
        ends = [_statistics(values[finite] + sign * error) for sign in (-1.0, 1.0)]
        for statistic, bound in zip(STATISTICS, np.abs(np.subtract(ends, statistics)).max(axis=0), strict=True):
            summary[f"{q.name}/{statistic}{ERROR}"] = float(bound)
    judged = [row["alpha_evidence"] for row in rows if row.get("alpha_evidence")]
    if judged:
        summary["alpha/share_sufficient"] = judged.count("sufficient") / len(judged)
    return summary


def _statistics(values: np.ndarray) -> list[float]:
    """:data:`STATISTICS` of the values, NaN without any."""
    if len(values) == 0:
        return [np.nan] * len(STATISTICS)
    q10, median, q90 = np.quantile(values, [0.1, 0.5, 0.9])
    return [float(v) for v in (np.mean(values), median, q10, q90, np.min(values), np.max(values))]
