"""The scalars of a snapshot for loggers: a few numbers for the whole model, and the worst layers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from heapq import nlargest

import numpy as np

from ww_callbacks.integrations.quantity_info import quantity_info
from ww_callbacks.integrations.schema import Alert, Snapshot, Value
from ww_callbacks.spectral.aggregate.summary import NEEDS_EVIDENCE, UPDATES
from ww_callbacks.spectral.measuring.registry import Quantity, all_quantities
from ww_callbacks.spectral.measuring.values import is_measured

PREFIX = "spectral/"
LAYER_PREFIX = "spectral_layers/"
LEAST_SECONDS, MOST_COST = 60, 0.1


@dataclass(frozen=True)
class Outlier:
    """A layer with one of the worst values of a quantity.

    Attributes:
        quantity: the quantity.
        layer: the layer.
        value: its value.
        median: the median over the measured layers.
    """

    quantity: Quantity
    layer: str
    value: float
    median: float


def scalars(snapshot: Snapshot) -> dict[str, float]:
    """``spectral/<quantity>/<statistic>`` and the callback's cost; missing values are left out."""
    values = {PREFIX + name: value for name, value in snapshot.model.items()}
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
    """``spectral_layers/<layer>/<quantity>``: every finite number of every layer."""
    return {
        f"{LAYER_PREFIX}{row.layer}/{name}": float(value)
        for row in snapshot.rows
        for name, value in row.values.items()
        if not isinstance(value, str) and math.isfinite(value)
    }


def describe(name: str) -> str:
    """The definition of the quantity of the scalar ``name``; empty if it belongs to none."""
    parts = name.replace(PREFIX + UPDATES, PREFIX).split("/")
    known = quantity_info(parts[-1] if name.startswith(LAYER_PREFIX) else parts[1] if len(parts) > 1 else "")
    return f"{known.title}: {known.definition}" if known.definition else ""


def outliers(snapshot: Snapshot, count: int = 3) -> list[Outlier]:
    """The ``count`` worst layers of each headline quantity, worst first.

    The quantity defines which values are critical; if both ends are, the distance from the median counts.
    """
    found = []
    for quantity in all_quantities():
        if not (quantity.headline and quantity.worst):
            continue
        values = [(row.layer, _number(quantity.name, row.values)) for row in snapshot.rows]
        values = [(layer, value) for layer, value in values if math.isfinite(value)]
        if len(values) < 2:
            continue
        median = float(np.median([value for _, value in values]))
        ranked = nlargest(count, values, key=lambda item: _badness(item[1], median, quantity.worst))
        found += [Outlier(quantity, layer, value, median) for layer, value in ranked]
    return found


def unmeasured(snapshot: Snapshot) -> list[tuple[str, str]]:
    """The layers whose values are missing, and why."""
    return [(row.layer, row.status) for row in snapshot.rows if not is_measured(row.status)]


def layers_text(layers: Sequence[str], most: int = 3) -> str:
    """Names of layers in a sentence: a few of them and the number of others; ``the model`` for none."""
    if not layers:
        return "the model"
    rest = len(layers) - most
    return ", ".join(layers[:most]) + (f" and {rest} more" if rest > 0 else "")


def evidence_text(alert: Alert) -> str:
    """The alert's evidence in one line: ``alpha 1.62, D 0.04``."""
    return ", ".join(f"{name} {value:.4g}" for name, value in alert.evidence.items())


def _badness(value: float, median: float, worst: str) -> float:
    if worst == "both":
        return abs(value - median)
    return value if worst == "high" else -value


def _number(name: str, values: Mapping[str, Value]) -> float:
    if name in NEEDS_EVIDENCE and values.get("alpha_evidence", "sufficient") != "sufficient":
        return math.nan
    value = values.get(name, math.nan)
    return math.nan if isinstance(value, str) else float(value)
