"""Detectors: time series of a run → findings. Online, with constant memory and time per snapshot, and a state that can
be saved.
"""

from ww_callbacks.spectral.detectors.base import Detector, Finding, Observation
from ww_callbacks.spectral.detectors.layerwise.alpha_range import AlphaRange
from ww_callbacks.spectral.detectors.layerwise.correlation_trap import CorrelationTrap
from ww_callbacks.spectral.detectors.layerwise.dead_layer import DeadLayer
from ww_callbacks.spectral.detectors.layerwise.explosion import Explosion
from ww_callbacks.spectral.detectors.layerwise.rank_collapse import RankCollapse
from ww_callbacks.spectral.detectors.layerwise.scale_collapse import ScaleCollapse
from ww_callbacks.spectral.detectors.non_finite import NonFinite
from ww_callbacks.spectral.detectors.output_layer import output_layer
from ww_callbacks.spectral.detectors.overtraining import Overtraining
from ww_callbacks.spectral.detectors.presets import PRESETS, default_detectors, needed_quantities
from ww_callbacks.spectral.detectors.verdict import Verdict, verdict

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
    "Verdict",
    "default_detectors",
    "needed_quantities",
    "output_layer",
    "verdict",
]
