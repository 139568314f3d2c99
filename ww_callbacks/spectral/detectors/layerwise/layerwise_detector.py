"""What the detectors of single layers share: persistence, hysteresis and a state that is plain JSON."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, NamedTuple

from ww_callbacks.spectral.detectors.arguments import Memory, Values, at_least_one, check_state
from ww_callbacks.spectral.detectors.base import Finding, Observation


class Shown(NamedTuple):
    """One layer for which the condition has held long enough."""

    layer: str
    evidence: dict[str, float]
    since_step: int
    since_epoch: float


class LayerwiseDetector(ABC):
    """A condition judged layer by layer, reported where it has held on ``persistence`` snapshots in a row.

    A layer that is reported stays so until the condition has failed as many times in a row (hysteresis), so that one
    noisy snapshot neither raises nor clears a finding.

    Args:
        persistence: snapshots in a row on which the condition must hold.
    """

    kind: str
    needs: tuple[str, ...]

    def __init__(self, persistence: int = 3):
        self.persistence = at_least_one(persistence)
        self._layers: dict[str, Memory] = {}
        self._run: Memory = {}

    @abstractmethod
    def judge(self, layer: str, values: Values, memory: Memory, observation: Observation) -> dict[str, float] | bool:
        """Whether the condition holds now: the evidence, False, or True where it cannot be told at this snapshot.

        ``memory`` is the layer's own dict of plain values, kept between snapshots.
        """

    @abstractmethod
    def finding(self, shown: list[Shown], observation: Observation) -> Finding:
        """Put the layers that show it into words."""

    def before(self, observation: Observation) -> None:  # noqa: B027  (most detectors need nothing here)
        """Look at the whole snapshot before its layers are judged; ``self._run`` is kept between snapshots."""

    def update(self, observation: Observation) -> list[Finding]:
        """Take the next snapshot and return what holds now."""
        self.before(observation)
        shown: list[Shown] = []
        for layer, values in observation.layers.items():
            memory = self._layers.setdefault(layer, {"holds": 0, "fails": 0, "active": False})
            verdict = self.judge(layer, values, memory, observation)
            if isinstance(verdict, dict):
                if memory["holds"] == 0 and not memory["active"]:
                    memory["since"] = [observation.step, observation.epoch]
                memory["holds"] += 1
                memory["fails"] = 0
                memory["evidence"] = verdict
                memory["active"] = memory["active"] or memory["holds"] >= self.persistence
            elif not verdict:
                memory["holds"] = 0
                memory["fails"] += 1
                memory["active"] = memory["active"] and memory["fails"] < self.persistence
            if memory["active"]:
                shown.append(Shown(layer, memory["evidence"], *memory["since"]))
        return [self.finding(shown, observation)] if shown else []

    def state_dict(self) -> dict[str, Any]:
        """The state as JSON-able plain values."""
        return copy.deepcopy({"detector": self.kind, "layers": self._layers, "run": self._run})

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore a saved state.

        Raises:
            ValueError: if it is not one of this detector's.
        """
        kept = check_state(state, self.kind)
        self._layers, self._run = kept["layers"], kept["run"]


def since(shown: list[Shown]) -> tuple[int, float]:
    """The earliest beginning among the layers."""
    first = min(shown, key=lambda s: s.since_step)
    return first.since_step, first.since_epoch


def name_layers(shown: list[Shown], most: int = 3) -> str:
    """The layers in words: all of a few, the first of many.

    >>> name_layers([Shown(n, {}, 0, 0.0) for n in ("a", "b", "c", "d", "e")])
    '`a`, `b`, `c` and 2 more layers'
    """
    named = ", ".join(f"`{s.layer}`" for s in shown[:most])
    return named if len(shown) <= most else f"{named} and {len(shown) - most} more layers"
