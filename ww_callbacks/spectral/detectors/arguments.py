"""Checks shared by the detectors: numbers, arguments and saved states."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from typing import Any

Values = Mapping[str, float | str]


def number(values: Values | Mapping[str, float], name: str) -> float | None:
    """The finite number under ``name``, or None.

    >>> number({"alpha": 2.5, "D": float("nan"), "alpha_evidence": "poor fit"}, "alpha")
    2.5
    >>> number({"alpha": 2.5, "D": float("nan"), "alpha_evidence": "poor fit"}, "D") is None
    True
    """
    value = values.get(name)
    if type(value) is float:  # nearly always
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, str) or not math.isfinite(value):
        return None
    return float(value)


def check_state(state: Mapping[str, Any], detector: str) -> dict[str, Any]:
    """A deep copy of the saved state.

    Raises:
        ValueError: if it belongs to another detector.
    """
    if not isinstance(state, Mapping) or state.get("detector") != detector:
        came = state.get("detector") if isinstance(state, Mapping) else type(state).__name__
        raise ValueError(f"Expected the saved state of the detector `{detector}` but got that of `{came}`.")
    return copy.deepcopy(dict(state))


def at_least_one(persistence: int) -> int:
    """``persistence``, checked.

    Raises:
        ValueError: if it is not valid.
    """
    if isinstance(persistence, bool) or not isinstance(persistence, int) or persistence < 1:
        raise ValueError(
            f"Expected `persistence` to be a whole number of snapshots, 1 or more, but got {persistence!r}."
        )
    return persistence


def positive(name: str, value: float) -> float:
    """``value``, checked.

    Raises:
        ValueError: if it is not valid.
    """
    if not isinstance(value, int | float) or not math.isfinite(value) or value <= 0:
        raise ValueError(f"Expected `{name}` to be a positive number but got {value!r}.")
    return float(value)
