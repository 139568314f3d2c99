"""The values of quantities on one layer, and the layer's status."""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite, isinf

import numpy as np

from ww_callbacks.spectral.measuring.layer_weights import LayerWeights, Value
from ww_callbacks.spectral.measuring.registry import Quantity


def measure_quantities(sample: LayerWeights, quantities: Sequence[Quantity]) -> tuple[dict[str, Value], str]:
    """The values of ``quantities`` on one layer, and its status; never raises for what is in the weights.

    Args:
        sample: the layer; it forgets earlier weights once nothing more is to be compared with them.
        quantities: what to measure, see :func:`ww_callbacks.spectral.measuring.registry.resolve`.

    Returns:
        Values by name: NaN (``""`` for a text) where a value cannot be had; and the status: ``ok``, ``non-finite`` (no
        value is given), ``zero`` (all elements are 0: sizes and distances are given), or ``failed: `` with the
        quantities and the reason.
    """
    # Those that read elements come first: before a spectrum takes its memory, W_0 and the last weights can go.
    spectral = [q for q in quantities if q.cost != "cheap"]
    ordered = [*(q for q in quantities if q.cost == "cheap"), *spectral]
    values: dict[str, Value] = {q.name: "" if q.text else np.nan for q in quantities}
    failures: dict[str, list[str]] = {}
    with np.errstate(all="ignore"):
        largest = sample.largest
        released = False
        finite = isfinite(largest)
        for q in ordered:
            if q.cost != "cheap" and not released:
                sample.release({later.needs for later in spectral})
                released = True
            if not finite or (q.needs == "previous" and sample.previous is None):
                continue
            compares = q.needs in ("initial", "reference")
            if compares and sample.initial is None and sample.reference is None:
                continue
            try:
                if compares and sample.initial is not None and not isfinite(sample.from_initial.norm):
                    raise ValueError("the baseline's norm is not finite")
                value = q.function(sample)
                if isinstance(value, str) or not isinf(value):
                    values[q.name] = value if q.text else float(value)
                elif q.needs != "previous":  # what was infinite at the last snapshot was said there
                    raise OverflowError("beyond the range of float64")
            except Exception as error:  # One quantity's failure must neither hide the others nor reach the training.
                failures.setdefault(f"{type(error).__name__}: {error}", []).append(q.name)
    if not isfinite(largest):
        return values, "non-finite"
    if failures:
        return values, "failed: " + "; ".join(f"{', '.join(names)}: {reason}" for reason, names in failures.items())
    return values, "zero" if largest == 0.0 else "ok"
