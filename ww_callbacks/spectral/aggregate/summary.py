"""Layer rows → model-level statistics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

import numpy as np

from ww_callbacks.spectral.measuring.registry import all_quantities

STATISTICS = ("mean", "median", "q10", "q90", "min", "max")
"""The statistics over layers, in order; quantiles by linear interpolation."""

ESTIMATED, ERROR = "estimated", "error"
"""Names next to the statistics: how many of the values are estimates, and the error of the statistics."""

NEEDS_EVIDENCE = ("alpha", "alpha_weighted")
"""Quantities that only use layers whose ``alpha_evidence`` is ``sufficient``."""


UPDATES = "lora/"
"""Prefix of the statistics over low-rank updates."""

_UPDATE = ".lora_update"


def summarise_layers(
    rows: Mapping[str, Mapping[str, float | str]], errors: Mapping[str, Mapping[str, float]] = MappingProxyType({})
) -> dict[str, float]:
    """:func:`summarise`, with the low-rank updates of adapters separate from the weights.

    An update of rank r has an effective rank of at most r: among the weights it would look like a collapse.

    Args:
        rows: layer → quantity name → value.
        errors: layer → quantity name → error, for values that are estimates.

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
        return summarise([rows[layer] for layer in layers], [errors.get(layer, {}) for layer in layers])

    apart = {UPDATES + name: value for name, value in over(updates).items()} if updates else {}
    return {**over(weights or updates), **apart}


def summarise(
    rows: Sequence[Mapping[str, float | str]], errors: Sequence[Mapping[str, float]] = ()
) -> dict[str, float]:
    """The headline quantities over layers, without failures.

    All statistics rise with each value. So if every value x_i is within its error e_i, each statistic lies between
    those of the x_i − e_i and of the x_i + e_i.

    Args:
        rows: quantity name → value, one mapping per layer.
        errors: quantity name → error, for values that are estimates, one mapping per layer; none if all are exact.

    Returns:
        ``<quantity>/<statistic>`` for every headline quantity that occurs in the rows, over its finite values (for α
        only those with sufficient evidence; NaN if none is left), and ``alpha/share_sufficient``: the share of layers
        with an α that have sufficient evidence. Where values are estimates, also ``<quantity>/estimated``, how many
        they are, and ``<quantity>/error``: the largest error that one of the statistics has because of them.

    >>> summary = summarise([{"effective_rank": 2.0}, {"effective_rank": 4.0}, {"effective_rank": float("nan")}])
    >>> summary["effective_rank/mean"], summary["effective_rank/max"]
    (3.0, 4.0)

    >>> summary = summarise([{"effective_rank": 2.0}, {"effective_rank": 4.0}], [{}, {"effective_rank": 0.25}])
    >>> summary["effective_rank/estimated"], summary["effective_rank/error"]
    (1.0, 0.25)
    """
    summary: dict[str, float] = {}
    errors = errors or [{}] * len(rows)
    for q in all_quantities():
        if not q.headline or not any(q.name in row for row in rows):
            continue
        counted = [
            (row[q.name], own.get(q.name, 0.0))
            for row, own in zip(rows, errors, strict=True)
            if q.name in row
            and (q.name not in NEEDS_EVIDENCE or row.get("alpha_evidence", "sufficient") == "sufficient")
        ]
        values, error = np.array(counted, dtype=np.float64).reshape(-1, 2).T
        error = error[np.isfinite(values)]
        values = values[np.isfinite(values)]
        statistics = _statistics(values)
        summary.update(zip((f"{q.name}/{statistic}" for statistic in STATISTICS), statistics, strict=True))
        if estimated := np.count_nonzero(error):
            ends = [_statistics(values + sign * error) for sign in (-1.0, 1.0)]
            summary[f"{q.name}/{ESTIMATED}"] = float(estimated)
            summary[f"{q.name}/{ERROR}"] = float(np.abs(np.subtract(ends, statistics)).max())
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
