r"""One judgement of overtraining from what a training loop can see.

.. math:: s = \beta_0 + \sum_k \beta_k\, x_k, \qquad P = \frac{1}{1 + e^{-(a + b s)}}

x are the signals of :class:`.TrainingSignals`, each clipped to a range. A signal that is not known takes its typical
value, so that it says nothing. s is the score that alarms are raised on; P is the probability that training on makes
the weights worse. The coefficients are in ``coefficients.py``; ``benchmarks/early_stopping.py`` fits them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

LIMITS = {
    "slope_z": (-8.0, 8.0),
    "slope_z_rise": (-8.0, 8.0),
    "slope": (-1.0, 1.0),
    "saw": (-0.5, 1.0),
    "jump": (-1.0, 1.0),
    "fall": (-1.0, 4.0),
    "log_loss": (-6.0, 0.5),
    "log_error": (-4.7, 0.1),
    "distance_rise": (0.0, 1.5),
    "norm_rise": (0.0, 1.0),
    "norm_exponent": (-0.5, 1.5),
    "output_exponent": (-0.5, 2.0),
    "hidden_exponent": (-0.5, 2.0),
    "log_epochs": (0.0, 6.0),
    "displacement": (-6.0, 0.5),
    "output_update": (-10.0, 2.0),
    "hidden_update": (-10.0, 2.0),
    "decay": (-7.0, 0.1),
}
"""The range that each signal is clipped to."""

SIGNALS = tuple(LIMITS)


def clipped(name: str, value: float) -> float:
    """A signal within its range; NaN stays NaN."""
    low, high = LIMITS[name]
    return value if math.isnan(value) else min(max(value, low), high)


@dataclass(frozen=True)
class Coefficients:
    """The judgement's coefficients.

    Attributes:
        intercept: β_0.
        weights: β by signal.
        typical: the value that an unknown signal takes.
    """

    intercept: float
    weights: Mapping[str, float]
    typical: Mapping[str, float]

    def score(self, signals: Mapping[str, float]) -> float:
        """s: the higher, the more training on is expected to cost.

        Args:
            signals: signal → value; NaN or absent where not known.

        Examples:
            >>> Coefficients(1.0, {"saw": 2.0}, {"saw": 0.25}).score({"saw": 0.5})
            2.0
            >>> Coefficients(1.0, {"saw": 2.0}, {"saw": 0.25}).score({})
            1.5
        """
        return self.intercept + sum(self.contributions(signals).values())

    def contributions(self, signals: Mapping[str, float]) -> dict[str, float]:
        """β_k·x_k of each signal."""
        out = {}
        for name, weight in self.weights.items():
            value = clipped(name, signals.get(name, math.nan))
            out[name] = weight * (self.typical[name] if math.isnan(value) else value)
        return out


def probability(score: float, calibration: tuple[float, float]) -> float:
    """P = 1/(1 + exp(−(a + b·s))).

    Args:
        score: s.
        calibration: a and b.

    Examples:
        >>> probability(0.0, (0.0, 1.0))
        0.5
    """
    return 1.0 / (1.0 + math.exp(-min(max(calibration[0] + calibration[1] * score, -50.0), 50.0)))
