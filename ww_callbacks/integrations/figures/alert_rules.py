"""The quantity and threshold behind each kind of alert, which the views draw as its evidence."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Literal

import numpy as np

from ww_callbacks.integrations.figures.run_view import RunView

Relative = Literal["", "highest", "first", "usual"]


@dataclass(frozen=True)
class Rule:
    """The comparison that a detector makes.

    Attributes:
        quantity: the quantity of the layers that it reads.
        title: title of the panel.
        thresholds: the thresholds beyond which it raises an alert.
        worst: which values raise it: ``low``, ``high`` or ``both``.
        relative: what each layer's values are divided by: its ``highest`` value so far, its ``first``, its ``usual``
            one (the median of its first five above zero), or nothing.
        log: whether the axis is logarithmic.
    """

    quantity: str
    title: str
    thresholds: tuple[float, ...]
    worst: Literal["low", "high", "both"]
    relative: Relative = ""
    log: bool = False


@cache
def rules() -> dict[str, tuple[Rule, ...]]:
    """Kind of alert → the rules that may have raised it, with the detectors' default thresholds."""
    from ww_callbacks.spectral.detectors.layerwise.alpha_range import AlphaRange
    from ww_callbacks.spectral.detectors.layerwise.correlation_trap import CorrelationTrap
    from ww_callbacks.spectral.detectors.layerwise.dead_layer import DeadLayer
    from ww_callbacks.spectral.detectors.layerwise.explosion import Explosion
    from ww_callbacks.spectral.detectors.layerwise.rank_collapse import RankCollapse
    from ww_callbacks.spectral.detectors.layerwise.representation_collapse import QUANTITY, RepresentationCollapse
    from ww_callbacks.spectral.detectors.layerwise.scale_collapse import ScaleCollapse

    scale, rank, growth = ScaleCollapse(), RankCollapse(), Explosion()
    alpha, trap, dead, features = AlphaRange(), CorrelationTrap(), DeadLayer(), RepresentationCollapse()
    return {
        scale.kind: (
            Rule("frobenius_norm", "norm relative to its highest value", (math.exp(-scale.drop),), "low", "highest"),
            Rule("scale_collapse", "scale against init, log10", (math.log10(scale.ratio),), "low"),
        ),
        rank.kind: (
            Rule("effective_rank", "effective rank relative to its highest value", (rank.share,), "low", "highest"),
        ),
        growth.kind: (
            Rule("frobenius_norm", "norm relative to its first value", (growth.growth,), "high", "first", log=True),
            Rule("relative_update_norm", "change per snapshot relative to the norm", (growth.update_limit,), "high"),
        ),
        dead.kind: (
            Rule("relative_update_norm", "change relative to its usual value", (dead.share,), "low", "usual", log=True),
        ),
        alpha.kind: (Rule("alpha", "α", (alpha.low, alpha.high), "both"),),
        trap.kind: (Rule(trap.quantity, "z of the largest λ of the shuffled weights", (trap.z,), "high"),),
        features.kind: (
            Rule(
                QUANTITY,
                "effective rank of features relative to its highest",
                (features.fall,),
                "low",
                "highest",
            ),
        ),
    }


def rule_for(kind: str, layers: Sequence[str], run: RunView) -> Rule | None:
    """The rule behind an alert of ``kind`` for ``layers``: the first that one of them violated in ``run``."""
    known = [rule for rule in rules().get(kind, ()) if rule.quantity in run.quantities]
    rows = [row for row, layer in enumerate(run.layers) if layer in layers]
    for rule in known:
        values = relative_to(run.values(rule.quantity)[rows][:, run.measured(rule.quantity)], rule.relative)
        low, high = rule.thresholds[0], rule.thresholds[-1]
        if (rule.worst != "high" and (values < low).any()) or (rule.worst != "low" and (values > high).any()):
            return rule
    return known[0] if known else None


def score_threshold() -> float:
    """The probability of overtraining above which an epoch counts towards an alarm."""
    from ww_callbacks.spectral.detectors.signals.coefficients import CALIBRATION, CAUTIOUS
    from ww_callbacks.spectral.detectors.signals.judgement import probability

    return probability(CAUTIOUS, CALIBRATION)


def relative_to(values: np.ndarray, relative: Relative) -> np.ndarray:
    """``values``, shape (layers, T), each row divided by its ``relative`` value; NaN if that is zero or unknown."""
    if not relative or not values.size:
        return values
    if relative == "highest":
        by = np.fmax.accumulate(values, axis=1)
    else:
        by = np.array([[_reference(row, relative)] for row in values])
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(by > 0, values / by, np.nan)


def errors_relative_to(values: np.ndarray, errors: np.ndarray, relative: Relative) -> np.ndarray:
    """Bounds on the errors of ``relative_to(values, relative)``, to first order; 0 where all values are exact.

    For x/x_0 it is (e + |x/x_0|·e_0)/|x_0|, where e_0 is at most the largest error of the layer.
    """
    own = np.nan_to_num(errors)
    if not relative or not values.size:
        return own
    ratio = relative_to(values, relative)
    with np.errstate(divide="ignore", invalid="ignore"):
        by = np.abs(values / ratio)
        return (own + np.abs(ratio) * own.max(axis=1, keepdims=True)) / by


def _reference(row: np.ndarray, relative: Relative) -> float:
    known = row[np.isfinite(row) & ((row > 0) | (relative == "first"))]
    if not len(known):
        return math.nan
    return float(known[0] if relative == "first" else np.median(known[:5]))
