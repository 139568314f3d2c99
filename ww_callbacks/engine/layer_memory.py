"""The engine's state of one layer, as saved with a checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from ww_callbacks.spectral.measuring.reuse import KnownSpectrum


@dataclass(frozen=True)
class LayerMemory:
    """The engine's state of one layer: see :class:`ww_callbacks.engine.engine.LayerState`."""

    fingerprint: str
    values: Mapping[str, float | str]
    status: str
    reference: Mapping[str, float | str] | None = None
    seconds: float | None = None
    errors: Mapping[str, float] = field(default_factory=dict)
    reference_errors: Mapping[str, float] = field(default_factory=dict)
    known: KnownSpectrum | None = None
