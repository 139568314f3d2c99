"""The built-in detectors, and the properties of their kinds."""

from __future__ import annotations

from ww_callbacks.spectral.detectors.base import Detector
from ww_callbacks.spectral.detectors.layerwise.alpha_range import AlphaRange
from ww_callbacks.spectral.detectors.layerwise.correlation_trap import CorrelationTrap
from ww_callbacks.spectral.detectors.layerwise.dead_layer import DeadLayer
from ww_callbacks.spectral.detectors.layerwise.explosion import Explosion
from ww_callbacks.spectral.detectors.layerwise.rank_collapse import RankCollapse
from ww_callbacks.spectral.detectors.layerwise.representation_collapse import RepresentationCollapse
from ww_callbacks.spectral.detectors.layerwise.scale_collapse import ScaleCollapse
from ww_callbacks.spectral.detectors.non_finite import NonFinite
from ww_callbacks.spectral.detectors.overtraining import Overtraining

DETECTORS: tuple[type[Detector], ...] = (
    NonFinite,
    ScaleCollapse,
    Explosion,
    RankCollapse,
    DeadLayer,
    AlphaRange,
    CorrelationTrap,
    Overtraining,
    RepresentationCollapse,
)
KINDS = tuple(detector.kind for detector in DETECTORS)
STATES = {detector.kind: detector.state for detector in DETECTORS}
SPOILING = frozenset(detector.kind for detector in DETECTORS if detector.spoils_weights)
CANNOT_STOP = frozenset(detector.kind for detector in DETECTORS if not detector.can_stop)
