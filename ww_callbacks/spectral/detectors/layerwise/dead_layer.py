"""Dead layers: layers that no longer change while the others still learn."""

from __future__ import annotations

from dataclasses import dataclass, field
from statistics import median

from ww_callbacks.spectral.detectors.arguments import Values, number
from ww_callbacks.spectral.detectors.base import Finding, Observation, epoch_text
from ww_callbacks.spectral.detectors.layerwise.layerwise_detector import (
    LayerMemory,
    LayerwiseDetector,
    RunMemory,
    Shown,
    name_layers,
    since,
)
from ww_callbacks.spectral.measuring.values import is_measured


@dataclass
class UsualChange(LayerMemory):
    """The relative changes in the first snapshots in which the layer changed."""

    usual: list[float] = field(default_factory=list)


@dataclass
class Movement(RunMemory):
    """The changes of the whole model.

    Attributes:
        median_ratio: change of the median layer relative to its usual change; None if unknown.
        moving: whether any layer changed since the last snapshot.
        ever: whether any layer has changed since the start.
        highest_rate: the highest learning rate so far.
        rate_known_positive: whether the current learning rate is known and not the negligible end of a schedule.
        rate_is_zero: whether it is known to be 0.
    """

    median_ratio: float | None = None
    moving: bool = False
    ever: bool = False
    highest_rate: float = 0.0
    rate_known_positive: bool = False
    rate_is_zero: bool = False


class DeadLayer(LayerwiseDetector[UsualChange, Movement]):
    """The layer's relative change fell below ``share`` of its usual one, while that of the median layer did not.

    The usual change is the median of ‖W_t − W_{t−1}‖_F / ‖W_{t−1}‖_F over the first five snapshots in which the layer
    changed. It is divided by the same ratio of the median layer, so that a falling learning rate has no effect. A
    trainable layer that never changed (no gradient from the start, or not in the optimiser) is reported separately, as
    information. If no layer at all has changed, the detector warns, with the reason if known; after a whole epoch
    already if the learning rate is above zero. Layers that the framework reports as frozen are ignored, unless the
    whole model is frozen and nothing is trained.

    Args:
        share: the ratio below which a layer is considered unchanged.
        persistence: number of consecutive snapshots for which it must hold.

    Examples:
        >>> from ww_callbacks.spectral.detectors.base import Observation
        >>> detector = DeadLayer(persistence=1)
        >>> for step in range(8):
        ...     changes = {"a": 0.1, "b": 0.1, "fc": 0.1 if step < 6 else 1e-6}
        ...     layers = {name: {"relative_update_norm": change} for name, change in changes.items()}
        ...     findings = detector.update(Observation(step, float(step), layers))
        >>> [finding.layers for finding in findings]
        [('fc',)]

    """

    kind: str = "dead layer"
    can_stop: bool = True
    spoils_weights: bool = False
    state: str = "watch"
    layer_memory = UsualChange
    run_memory = Movement
    needs: tuple[str, ...] = ("relative_update_norm",)

    def __init__(self, share: float = 0.01, persistence: int = 3):
        super().__init__(persistence)
        if not 0 < share < 1:
            raise ValueError(f"Expected `share` to be between 0 and 1 but got {share!r}.")
        self.share = float(share)
        self.reason = ""
        """Why nothing can change, if the training loop shows it; reported only if nothing changes."""
        self._now: dict[str, tuple[float | None, float | None]] = {}
        """For each layer of this snapshot its change, and that relative to its usual one."""

    @staticmethod
    def _change(layer: str, values: Values, observation: Observation) -> float | None:
        if not observation.changed.get(layer, True):
            return 0.0
        return number(values, "relative_update_norm")

    def _ratio(self, memory: UsualChange | None, change: float) -> float | None:
        """The change relative to the layer's usual one; None if unknown."""
        usual = memory.usual if memory else []
        return change / median(usual) if len(usual) >= 2 else None

    def before(self, observation: Observation) -> None:
        """The change of the median layer relative to its usual change."""
        self._now = {}
        for layer, values in observation.layers.items():
            change = self._change(layer, values, observation)
            ratio = None if change is None else self._ratio(self._layers.get(layer), change)
            self._now[layer] = change, ratio
        ratios = [ratio for _, ratio in self._now.values() if ratio is not None]
        self._run.median_ratio = median(ratios) if ratios else None
        self._run.moving = any(change is not None and change > 0 for change, _ in self._now.values())
        moved = any(observation.changed.get(name, True) for name in observation.layers)
        self._run.ever = (moved and observation.step > 0) or self._run.ever
        rate = observation.metrics.get("learning_rate")
        self._run.rate_known_positive = rate is not None and rate > 0.01 * self._run.highest_rate
        self._run.highest_rate = max(self._run.highest_rate, rate or 0.0)

    def judge(
        self, layer: str, values: Values, memory: UsualChange, observation: Observation
    ) -> dict[str, float] | bool:
        """See the class."""
        change, ratio = self._now[layer]
        untrainable = bool(self.reason) and observation.frozen.issuperset(observation.layers) and not self._run.ever
        if layer in observation.frozen and not untrainable:
            return False
        if change is None or observation.step == 0 or not is_measured(observation.status.get(layer, "ok")):
            return True
        usual = memory.usual
        if change > 0 and len(usual) < 5 and (ratio is None or ratio > self.share):
            usual.append(change)
        if not self._run.ever:
            if observation.epoch >= 1 and self._run.highest_rate > 0:
                memory.holds = max(memory.holds, self.persistence - 1)
            self._run.rate_is_zero = observation.metrics.get("learning_rate") == 0
            return {"relative_update_norm": 0.0, "layers_that_moved": 0.0}
        if ratio is None:  # never changed so far, or too rarely to know
            return {"relative_update_norm": change} if change == 0 and not usual and self._run.moving else False
        peers = self._run.median_ratio or 0.0
        # if most layers do not change, the schedule has ended, unless the learning rate shows otherwise
        halted = change == 0 and self._run.rate_known_positive
        dead = ratio < self.share * peers if peers > 0.1 else halted
        return {"relative_update_norm": change, "share_of_usual": ratio, "median_layer": peers} if dead else False

    def finding(self, shown: list[Shown], observation: Observation) -> Finding:
        """See the class."""
        step, epoch = since(shown)
        died = [s for s in shown if "share_of_usual" in s.evidence]
        affected = died or shown
        still = all("layers_that_moved" in s.evidence for s in shown)
        if still:
            step, epoch = 0, 0.0
            why = self.reason or ("the learning rate is 0" if self._run.rate_is_zero else "")
            message = (
                f"No layer has changed since the start: {why}." if why else "No layer has changed since the start."
            )
            advice = (
                "Check that the loss depends on the model, that the optimiser has its parameters and a learning rate "
                "above 0, and that no step is skipped (a scaled loss that overflows)."
            )
        elif died:
            message = (
                f"{name_layers(died)}: no longer changes since epoch {epoch_text(since(died)[1])} "
                f"({died[0].evidence['share_of_usual']:.1%} of its usual change; the median layer "
                f"{died[0].evidence['median_layer']:.0%})."
            )
            advice = (
                "Check for dead units (learning rate too high, large negative biases) and for a detached gradient."
                if died[0].evidence["median_layer"] > 0
                else "Most layers have stopped: either training has converged, as LBFGS does, and can be ended, or the "
                "steps are skipped (a scaled loss that overflows) or the gradient is zero."
            )
        else:
            message = f"{name_layers(shown)}: has not changed since the first snapshot, while other layers do."
            advice = (
                "Ignore this if it is frozen on purpose; otherwise unfreeze it and check that the optimiser has it."
            )
        return Finding(
            kind=self.kind,
            severity="warning" if died or still else "info",
            layers=tuple(s.layer for s in affected),
            evidence={**affected[0].evidence, "layers": float(len(affected))},
            since_step=step,
            since_epoch=epoch,
            message=message,
            recommendation=advice,
        )
