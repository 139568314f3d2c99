"""The detectors that a run has by default."""

from __future__ import annotations

from collections.abc import Mapping
from inspect import signature
from typing import Any, Literal, get_args

from ww_callbacks.spectral.detectors.base import Detector
from ww_callbacks.spectral.detectors.layerwise.alpha_range import AlphaRange
from ww_callbacks.spectral.detectors.layerwise.correlation_trap import CorrelationTrap
from ww_callbacks.spectral.detectors.layerwise.dead_layer import DeadLayer
from ww_callbacks.spectral.detectors.layerwise.explosion import Explosion
from ww_callbacks.spectral.detectors.layerwise.rank_collapse import RankCollapse
from ww_callbacks.spectral.detectors.layerwise.scale_collapse import ScaleCollapse
from ww_callbacks.spectral.detectors.non_finite import NonFinite
from ww_callbacks.spectral.detectors.overtraining import Overtraining
from ww_callbacks.spectral.detectors.signals.coefficients import EAGER

Preset = Literal["off", "cautious", "eager"]

PRESETS: Mapping[str, Mapping[str, Any]] = {
    "off": {"stops": False},
    "cautious": {},
    "eager": {"threshold": EAGER, "stops_overconfident": True},
}
"""Arguments of :class:`Overtraining`. ``off`` equals ``cautious``, but its findings never stop the run."""


def default_detectors(
    preset: Preset | str = "off", *, fine_tuning: bool = False, overtraining: Mapping[str, Any] | None = None
) -> list[Detector]:
    """The detectors of a run, overtraining last.

    Args:
        preset: when the overtraining detector stops a run: ``off`` (never), ``cautious`` or ``eager``.
        fine_tuning: whether the run continues from trained weights; changes the recommendations for α.
        overtraining: arguments of :class:`Overtraining` that replace those of the preset.

    Raises:
        ValueError: if the preset or an argument is unknown.

    >>> [d.kind for d in default_detectors("cautious")][-1]
    'overtraining'
    """
    if preset not in PRESETS:
        raise ValueError(f"Expected `early_stopping` to be one of {get_args(Preset)} but got {preset!r}.")
    try:
        watching = Overtraining(**{**PRESETS[preset], **(overtraining or {})})
    except TypeError as error:
        known = ", ".join(list(signature(Overtraining).parameters))
        raise ValueError(f"Unknown argument in `overtraining` ({error}). Expected some of: {known}.") from error
    return [
        NonFinite(),
        Explosion(),
        ScaleCollapse(),
        RankCollapse(),
        DeadLayer(),
        AlphaRange(fine_tuning=fine_tuning),
        CorrelationTrap(),
        watching,
    ]


def needed_quantities(detectors: list[Detector]) -> tuple[str, ...]:
    """Unique names of the quantities that these detectors need.

    >>> "effective_rank" in needed_quantities(default_detectors())
    True
    """
    return tuple(dict.fromkeys(name for detector in detectors for name in getattr(detector, "needs", ())))
