"""Time series of a run → findings; online, constant in memory and time, with a state that can be saved."""

from spectral.detectors.alpha_range import AlphaRange
from spectral.detectors.base import Detector, Finding, Observation
from spectral.detectors.correlation_trap import CorrelationTrap
from spectral.detectors.dead_layer import DeadLayer
from spectral.detectors.explosion import Explosion
from spectral.detectors.non_finite import NonFinite
from spectral.detectors.output_layer import output_layer
from spectral.detectors.overtraining import Overtraining
from spectral.detectors.presets import PRESETS, default_detectors, needed_quantities
from spectral.detectors.rank_collapse import RankCollapse
from spectral.detectors.scale_collapse import ScaleCollapse
from spectral.detectors.verdict import VerdictFields, verdict

__all__ = [
    "PRESETS",
    "AlphaRange",
    "CorrelationTrap",
    "DeadLayer",
    "Detector",
    "Explosion",
    "Finding",
    "NonFinite",
    "Observation",
    "Overtraining",
    "RankCollapse",
    "ScaleCollapse",
    "VerdictFields",
    "default_detectors",
    "needed_quantities",
    "output_layer",
    "verdict",
]
