"""The scalars of a snapshot for loggers: a few numbers for the whole model, and the worst layers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ww_callbacks.integrations.quantity_info import quantity_info
from ww_callbacks.integrations.schema import Alert, Snapshot, Value
from ww_callbacks.spectral.aggregate.summary import ESTIMATED, NEEDS_EVIDENCE, STATISTICS, UPDATES
from ww_callbacks.spectral.measuring.accuracy import ERROR
from ww_callbacks.spectral.measuring.registry import Quantity, all_quantities
from ww_callbacks.spectral.measuring.values import is_measured
from ww_callbacks.spectral.number_text import with_error

PREFIX = "spectral/"
LAYER_PREFIX = "spectral_layers/"
LEAST_SECONDS, MOST_COST = 60, 0.1
LAYERS_NAMED = 3
"""Layers that a sentence names at most."""
_ERRORS = tuple(f"/{statistic}{ERROR}" for statistic in STATISTICS if statistic != "median")


@dataclass(frozen=True)
class Outlier:
    """A layer with one of the worst values of a quantity.

    Attributes:
        quantity: the quantity.
        layer: the layer.
        value: its value.
        median: the median over the measured layers.
        error: the error of the value; 0 if it is exact.
        median_error: the error of the median, because some of the values are estimates.
    """

    quantity: Quantity
    layer: str
    value: float
    median: float
    error: float = 0.0
    median_error: float = 0.0


def scalars(snapshot: Snapshot) -> dict[str, float]:
    """``spectral/<quantity>/<statistic>`` and the callback's cost; missing values are left out.

    Of the errors of statistics over estimates, those of the medians are included.
    """
    values = {PREFIX + name: value for name, value in snapshot.model.items() if not name.endswith(_ERRORS)}
    values[PREFIX + "overhead"] = snapshot.overhead
    return {name: float(value) for name, value in values.items() if math.isfinite(value)}


def costs_too_much(overhead: float, seconds: float, budget: float | None) -> bool:
    """Whether the callback has used more than the share ``budget`` of the time; without a budget, a tenth.

    For a training of less than a minute, the share is meaningless.

    >>> costs_too_much(0.02, 600, 0.01), costs_too_much(0.02, 600, None), costs_too_much(0.5, 20, None)
    (True, False, False)
    """
    return bool(seconds > LEAST_SECONDS and overhead > (MOST_COST if budget is None else budget))


def layer_scalars(snapshot: Snapshot) -> dict[str, float]:
    """``spectral_layers/<layer>/<quantity>``: every finite number of every layer, and the errors of estimates."""
    return {
        f"{LAYER_PREFIX}{row.layer}/{name}": float(value)
        for row in snapshot.rows
        for name, value in (*row.values.items(), *((f"{name}{ERROR}", error) for name, error in row.errors.items()))
        if not isinstance(value, str) and math.isfinite(value)
    }


def describe(name: str) -> str:
    """The definition of the quantity of the scalar ``name``; empty if it belongs to none."""
    parts = name.replace(PREFIX + UPDATES, PREFIX).split("/")
    of_layer = name.startswith(LAYER_PREFIX)
    known = quantity_info(parts[-1].removesuffix(ERROR) if of_layer else parts[1] if len(parts) > 1 else "")
    if not known.definition:
        return ""
    about = {
        f"/median{ERROR}": "error of the median, because some values are estimates",
        f"/{ESTIMATED}": "number of layers whose value is an estimate",
        ERROR: "error of the estimate",
    }
    what = next((f"{text}; " for end, text in about.items() if name.endswith(end)), "")
    return f"{known.title}: {what}{known.definition}"


def outliers(snapshot: Snapshot, count: int = 3) -> list[Outlier]:
    """The ``count`` worst layers of each headline quantity, worst first.

    The quantity defines which values are critical; if both ends are, the distance from the median counts.
    """
    found = []
    for quantity in all_quantities():
        if not (quantity.headline and quantity.worst):
            continue
        values = np.array(
            [_number(name, row.values) for row in snapshot.rows]
            if (name := quantity.name) in NEEDS_EVIDENCE
            else [row.values.get(name, math.nan) for row in snapshot.rows]
        )
        places = np.flatnonzero(np.isfinite(values))
        if len(places) < 2:
            continue
        values = values[places]
        median = float(np.median(values))
        uncertain = snapshot.model.get(f"{name}/median{ERROR}", 0.0)
        for worst in np.argsort(-_badness(values, median, quantity.worst), kind="stable")[:count].tolist():
            row = snapshot.rows[places[worst]]
            found.append(
                Outlier(quantity, row.layer, float(values[worst]), median, row.errors.get(name, 0.0), uncertain)
            )
    return found


def unmeasured(snapshot: Snapshot) -> list[tuple[str, str]]:
    """The layers whose values are missing, and why."""
    return [(row.layer, row.status) for row in snapshot.rows if not is_measured(row.status)]


def layers_text(layers: Sequence[str], most: int = LAYERS_NAMED) -> str:
    """Names of layers in a sentence: a few of them and the number of others; ``the model`` for none."""
    if not layers:
        return "the model"
    rest = len(layers) - most
    return ", ".join(layers[:most]) + (f" and {rest} more" if rest > 0 else "")


def evidence_text(alert: Alert) -> str:
    """The alert's evidence in one line: ``alpha 1.62, D 0.04``, estimates with their error."""
    known = alert.evidence
    return ", ".join(
        f"{name} {with_error(value, known[name + ERROR]) if name + ERROR in known else f'{value:.4g}'}"
        for name, value in known.items()
        if not name.endswith(ERROR) or name.removesuffix(ERROR) not in known
    )


def _badness(values: np.ndarray, median: float, worst: str) -> np.ndarray:
    if worst == "both":
        return np.abs(values - median)
    return values if worst == "high" else -values


def _number(name: str, values: Mapping[str, Value]) -> float:
    if name in NEEDS_EVIDENCE and values.get("alpha_evidence", "sufficient") != "sufficient":
        return math.nan
    value = values.get(name, math.nan)
    return math.nan if isinstance(value, str) else float(value)
