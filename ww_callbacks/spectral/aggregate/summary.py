"""Layer rows → model-level statistics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from ww_callbacks.spectral.measuring.registry import all_quantities

STATISTICS = ("mean", "median", "q10", "q90", "min", "max")
"""The statistics over layers, in order; quantiles by linear interpolation."""

NEEDS_EVIDENCE = ("alpha", "alpha_weighted")
"""Quantities that only use layers whose ``alpha_evidence`` is ``sufficient``."""


UPDATES = "lora/"
"""Prefix of the statistics over low-rank updates."""

_UPDATE = ".lora_update"


def summarise_layers(rows: Mapping[str, Mapping[str, float | str]]) -> dict[str, float]:
    """:func:`summarise`, with the low-rank updates of adapters separate from the weights.

    An update of rank r has an effective rank of at most r: among the weights it would look like a collapse.

    Args:
        rows: layer → quantity name → value.

    Returns:
        ``<quantity>/<statistic>`` over the weights, and ``lora/<quantity>/<statistic>`` over the updates. If only
        updates were measured, the former are also over the updates.

    >>> rows = {"q.merged_weight": {"effective_rank": 40.0}, "q.lora_update[default]": {"effective_rank": 2.0}}
    >>> summary = summarise_layers(rows)
    >>> summary["effective_rank/mean"], summary["lora/effective_rank/mean"]
    (40.0, 2.0)
    """
    updates = [values for layer, values in rows.items() if _UPDATE in layer]
    weights = [values for layer, values in rows.items() if _UPDATE not in layer]
    apart = {UPDATES + name: value for name, value in summarise(updates).items()} if updates else {}
    return {**summarise(weights or updates), **apart}


def summarise(rows: Sequence[Mapping[str, float | str]]) -> dict[str, float]:
    """The headline quantities over layers, without failures.

    Args:
        rows: quantity name → value, one mapping per layer.

    Returns:
        ``<quantity>/<statistic>`` for every headline quantity that occurs in the rows, over its finite values (for α
        only those with sufficient evidence; NaN if none is left), and ``alpha/share_sufficient``: the share of layers
        with an α that have sufficient evidence.

    >>> summary = summarise([{"effective_rank": 2.0}, {"effective_rank": 4.0}, {"effective_rank": float("nan")}])
    >>> summary["effective_rank/mean"], summary["effective_rank/max"]
    (3.0, 4.0)
    """
    summary: dict[str, float] = {}
    for q in all_quantities():
        if not q.headline or not any(q.name in row for row in rows):
            continue
        counted = rows
        if q.name in NEEDS_EVIDENCE:
            counted = [row for row in rows if row.get("alpha_evidence", "sufficient") == "sufficient"]
        values = np.array([row[q.name] for row in counted if q.name in row], dtype=np.float64)
        values = values[np.isfinite(values)]
        for statistic, value in zip(STATISTICS, _statistics(values), strict=True):
            summary[f"{q.name}/{statistic}"] = value
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
