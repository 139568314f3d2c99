"""Base class of the detectors of single layers: persistence, hysteresis and a JSON-serialisable state."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Generic, NamedTuple, TypeVar

from ww_callbacks.spectral.detectors.arguments import Values, at_least_one, check_state
from ww_callbacks.spectral.detectors.base import Finding, Observation
from ww_callbacks.spectral.detectors.layerwise.loss_memory import LossMemory

Layer = TypeVar("Layer", bound="LayerMemory")
Run = TypeVar("Run", bound="RunMemory | LossMemory")


class Shown(NamedTuple):
    """A layer for which the condition has held long enough."""

    layer: str
    evidence: dict[str, float]
    since_step: int
    since_epoch: float


@dataclass
class LayerMemory:
    """A detector's state of one layer, as plain values; subclasses add fields.

    Attributes:
        holds, fails: number of consecutive snapshots for which the condition held, or failed.
        active: whether the layer is reported.
        since: step and epoch since which the condition has held.
        evidence: the latest numbers that show it.
    """

    holds: int = 0
    fails: int = 0
    active: bool = False
    since: tuple[int, float] = (0, 0.0)
    evidence: dict[str, float] = field(default_factory=dict)


@dataclass
class RunMemory:
    """A detector's state of the whole run, as plain values; empty here."""


class LayerwiseDetector(ABC, Generic[Layer, Run]):
    """A condition checked layer by layer, reported if it held for ``persistence`` consecutive snapshots.

    A reported layer remains reported until the condition has failed as many times in a row (hysteresis), so that one
    noisy snapshot neither raises nor clears a finding.

    Args:
        persistence: number of consecutive snapshots for which the condition must hold.

    Attributes:
        layer_memory, run_memory: the dataclasses of the state of each layer and of the run.
    """

    kind: str
    needs: tuple[str, ...]
    layer_memory: type[Layer]
    run_memory: type[Run]

    def __init__(self, persistence: int = 3):
        self.persistence = at_least_one(persistence)
        self._layers: dict[str, Layer] = {}
        self._run = self.run_memory()

    @abstractmethod
    def judge(self, layer: str, values: Values, memory: Layer, observation: Observation) -> dict[str, float] | bool:
        """Whether the condition holds now: the evidence, False, or True if unknown at this snapshot.

        ``memory`` is the state of the layer, and is updated.
        """

    @abstractmethod
    def finding(self, shown: list[Shown], observation: Observation) -> Finding:
        """Create the findings for the affected layers."""

    def before(self, observation: Observation) -> None:
        """Process the whole snapshot before its layers are checked; ``self._run`` is kept between snapshots."""

    def update(self, observation: Observation) -> list[Finding]:
        """Process the next snapshot and return the current findings."""
        self.before(observation)
        shown: list[Shown] = []
        memories, judge = self._layers, self.judge
        for layer, values in observation.layers.items():
            memory = memories.get(layer) or memories.setdefault(layer, self.layer_memory())
            verdict = judge(layer, values, memory, observation)
            if verdict is False:
                memory.holds = 0
                memory.fails += 1
                memory.active = memory.active and memory.fails < self.persistence
            elif verdict is not True:
                if memory.holds == 0 and not memory.active:
                    memory.since = (observation.step, observation.epoch)
                memory.holds += 1
                memory.fails = 0
                memory.evidence = verdict
                memory.active = memory.active or memory.holds >= self.persistence
            if memory.active:
                shown.append(Shown(layer, memory.evidence, *memory.since))
        return [self.finding(shown, observation)] if shown else []

    def state_dict(self) -> dict[str, Any]:
        """The state as JSON-serialisable values."""
        layers = {name: asdict(memory) for name, memory in self._layers.items()}
        return {"detector": self.kind, "layers": layers, "run": asdict(self._run)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore a saved state.

        Raises:
            ValueError: if it is not a state of this detector.
        """
        kept = check_state(state, self.kind)
        try:
            layers = {name: self.layer_memory(**memory) for name, memory in kept["layers"].items()}
            self._layers, self._run = layers, self.run_memory(**kept["run"])
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"The saved state of the detector `{self.kind}` has another version.") from error


def since(shown: list[Shown]) -> tuple[int, float]:
    """The earliest start among the layers."""
    first = min(shown, key=lambda s: s.since_step)
    return first.since_step, first.since_epoch


def name_layers(shown: list[Shown], most: int = 3) -> str:
    """The names of the layers in a sentence: all of a few, the first of many.

    >>> name_layers([Shown(n, {}, 0, 0.0) for n in ("a", "b", "c", "d", "e")])
    '`a`, `b`, `c` and 2 more layers'
    """
    named = ", ".join(f"`{s.layer}`" for s in shown[:most])
    return named if len(shown) <= most else f"{named} and {len(shown) - most} more layers"
