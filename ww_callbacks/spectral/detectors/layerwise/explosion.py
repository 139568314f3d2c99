"""Explosions: weights that grow or jump without an improvement of the training loss."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ww_callbacks.spectral.detectors.arguments import Values, number, positive
from ww_callbacks.spectral.detectors.base import Finding, Observation, epoch_text
from ww_callbacks.spectral.detectors.layerwise.layerwise_detector import (
    LayerMemory,
    LayerwiseDetector,
    Shown,
    name_layers,
    since,
)
from ww_callbacks.spectral.detectors.layerwise.loss_memory import LossMemory


@dataclass
class Norms(LayerMemory):
    """‖W‖_F at the first and at the last snapshot, or None."""

    first: float | None = None
    last: float = 0.0


@dataclass
class SnapshotsAndLoss(LossMemory):
    """Number of snapshots after the first, and the training loss."""

    snapshots: int = 0


class Explosion(LayerwiseDetector[Norms, SnapshotsAndLoss]):
    """A layer changes by more than ``update`` of its norm between snapshots, or has grown ``growth``-fold.

    In formulas ‖W_t − W_{t−1}‖_F / ‖W_{t−1}‖_F > ``update`` (not for a layer that shrinks), or
    ‖W_t‖_F / ‖W_0‖_F > ``growth`` (not for a layer that started at zero). Neither is an explosion while the training
    loss keeps its improvement, unless that is less than a fifth of it, or the layer has grown more than ``growth``
    squared: if the first loss was already exploded, any later one looks like an improvement. Without a training loss,
    the finding is a warning that never stops a run.

    Args:
        update: relative size of the change between two snapshots, 0.5 by default (healthy runs stay below 0.25 after
            their second epoch).
        growth: ratio of the norm to that of the first snapshot.
        burn_in: number of snapshots after the first without the ``update`` criterion, because weights change much in
            early training.
        persistence: number of consecutive snapshots for which it must hold.

    Examples:
        >>> from ww_callbacks.spectral.detectors.base import Observation
        >>> detector = Explosion(burn_in=0, persistence=1)
        >>> for step, norm in enumerate([1.0, 900.0]):
        ...     row = {"frobenius_norm": norm, "relative_update_norm": norm}
        ...     findings = detector.update(Observation(step=step, epoch=float(step), layers={"fc": row}))
        >>> [finding.kind for finding in findings]
        ['explosion']

    """

    kind: str = "explosion"
    can_stop: bool = True
    spoils_weights: bool = True
    state: str = "diverging"
    layer_memory = Norms
    run_memory = SnapshotsAndLoss
    needs: tuple[str, ...] = ("frobenius_norm", "relative_update_norm")

    def __init__(self, update: float = 0.5, growth: float = 20.0, burn_in: int = 2, persistence: int = 3):
        super().__init__(persistence)
        self.update_limit = positive("update", update)
        self.growth = positive("growth", growth)
        self.burn_in = burn_in

    def before(self, observation: Observation) -> None:
        """Track the training loss."""
        self._run.take(observation.metrics)
        if observation.step > 0:
            self._run.snapshots += 1

    def judge(self, layer: str, values: Values, memory: Norms, observation: Observation) -> dict[str, float] | bool:
        """See the class."""
        norm, change = number(values, "frobenius_norm"), number(values, "relative_update_norm")
        if norm is None and change is None:
            return True
        if memory.first is None:
            memory.first = norm
        first = memory.first or 0.0
        ratio = norm / first if norm is not None and first > 0 else math.nan
        moved = change is not None and change > self.update_limit and self._run.snapshots > self.burn_in
        if norm is not None:
            # A layer that loses half of its norm changes as much, but that is reported by the collapse detectors.
            moved = moved and norm > (1.0 - self.update_limit / 2.0) * memory.last
            memory.last = norm
        useful = self._run.loss_stuck is False and not self._run.gained_little()
        if not (moved or ratio > self.growth) or (useful and not ratio > self.growth**2):
            return False
        evidence = {"relative_update_norm": change, "norm_ratio_to_first": ratio}
        return {name: float(v) for name, v in evidence.items() if v is not None and math.isfinite(v)}

    def finding(self, shown: list[Shown], observation: Observation) -> Finding:
        """See the class."""
        step, epoch = since(shown)
        worst = max(shown, key=lambda s: max(s.evidence.values(), default=0.0))
        known = self._run.loss_stuck is not None
        words = []
        if worst.evidence.get("relative_update_norm", 0) > self.update_limit / 10:
            words.append(f"moves by {worst.evidence['relative_update_norm']:.2g} of its norm between snapshots")
        if worst.evidence.get("norm_ratio_to_first", 0) > 2:
            words.append(f"has {worst.evidence['norm_ratio_to_first']:.3g} times its first norm")
        seen = "the training loss does not improve" if known else "no training loss is known"
        return Finding(
            kind=self.kind,
            severity="critical" if known else "warning",
            layers=tuple(s.layer for s in shown),
            evidence={**worst.evidence, "layers": float(len(shown))},
            since_step=step,
            since_epoch=epoch,
            message=(
                f"Since epoch {epoch_text(epoch)} {name_layers(shown)}: `{worst.layer}` {' and '.join(words)}, "
                f"and {seen}."
            ),
            recommendation="Lower the learning rate or lengthen its warm-up, and clip gradients.",
            may_stop=known,
        )
