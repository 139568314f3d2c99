"""What the engine knows of one layer, as it is saved with a checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class LayerMemory:
    """What the engine knows of one layer: see :class:`ww_callbacks.engine.engine.LayerState`."""

    fingerprint: str
    values: Mapping[str, float | str]
    status: str
    reference: Mapping[str, float | str] | None = None
    seconds: float | None = None
