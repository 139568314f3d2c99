"""Representation collapse: features lose the dimension that the untrained network had."""

from __future__ import annotations

from dataclasses import dataclass

from ww_callbacks.spectral.detectors.arguments import Values, number
from ww_callbacks.spectral.detectors.base import Finding, Observation, epoch_text
from ww_callbacks.spectral.detectors.layerwise.layerwise_detector import (
    LayerMemory,
    LayerwiseDetector,
    Shown,
    name_layers,
    since,
)
from ww_callbacks.spectral.detectors.layerwise.loss_memory import LossMemory

QUANTITY = "feature_effective_rank"


@dataclass
class HighestRank(LayerMemory):
    """The highest effective rank of the layer's features so far."""

    highest: float = 0.0


@dataclass
class BaselineAndLoss(LossMemory):
    """The smallest effective rank over layers at the first probe (or None), and the training loss."""

    baseline: float | None = None


class RepresentationCollapse(LayerwiseDetector[HighestRank, BaselineAndLoss]):
    """A layer's features have fewer dimensions than those of any layer of the untrained network.

    A healthy classifier's features fall from the network's width towards the dimension of its output, K − 1 for K
    classes, so a fall alone is not a collapse: to 18 % of the first value in deep networks on ten classes, to 3 % on
    two. But no layer should lose the dimension that even the untrained network passed on. The baseline is therefore the
    smallest effective rank over layers at the first probe (of a classifier mostly its output's), and a layer below
    ``share`` of it has collapsed. If the training loss has not improved, or has lost half of its improvement, a layer
    below ``fall`` of its highest rank is reported too.

    Only snapshots with ``feature_effective_rank`` are checked, those at which a representation probe ran.

    Args:
        share: share of the baseline below which a layer has collapsed.
        fall: share of the layer's highest rank, used if the training loss does not improve.
        persistence: number of consecutive probes for which it must hold.
    """

    kind: str = "representation collapse"
    can_stop: bool = True
    spoils_weights: bool = True
    state: str = "collapsing"
    layer_memory = HighestRank
    run_memory = BaselineAndLoss
    needs: tuple[str, ...] = ()  # the probe is requested by its own argument

    def __init__(self, share: float = 0.3, fall: float = 0.1, persistence: int = 2):
        super().__init__(persistence)
        for name, value in (("share", share), ("fall", fall)):
            if not 0 < value < 1:
                raise ValueError(f"Expected `{name}` to be between 0 and 1 but got {value!r}.")
        self.share = float(share)
        self.fall = float(fall)

    def before(self, observation: Observation) -> None:
        """Set the baseline at the first probe, and track the training loss."""
        self._run.take(observation.metrics)
        if self._run.baseline is None:
            ranks = [number(values, QUANTITY) for values in observation.layers.values()]
            # A layer that starts at zero (a residual branch, an adapter) has no rank to keep.
            positive = [rank for rank in ranks if rank]
            if positive:
                self._run.baseline = min(positive)

    def judge(
        self, layer: str, values: Values, memory: HighestRank, observation: Observation
    ) -> dict[str, float] | bool:
        """See the class."""
        rank = number(values, QUANTITY)
        if rank is None:
            return True
        highest = memory.highest = max(memory.highest, rank)
        baseline = self._run.baseline
        if baseline is None or highest == 0:
            return False
        lost = rank < self.share * baseline
        stuck = bool(self._run.loss_stuck) and rank < self.fall * highest
        return {QUANTITY: rank, "highest": highest, "baseline": baseline} if lost or stuck else False

    def finding(self, shown: list[Shown], observation: Observation) -> Finding:
        """See the class."""
        step, epoch = since(shown)
        worst = min(shown, key=lambda s: s.evidence[QUANTITY])
        stuck = self._run.loss_stuck
        rank = worst.evidence[QUANTITY]
        seen = f"the effective rank of the features of `{worst.layer}` is {rank:.1f}" + (
            " (its output is the same for every input of the probe)" if rank == 0 else ""
        )
        return Finding(
            kind=self.kind,
            severity="critical" if stuck or rank == 0 else "warning",
            layers=tuple(s.layer for s in shown),
            evidence={**worst.evidence, "layers": float(len(shown))},
            since_step=step,
            since_epoch=epoch,
            message=(
                f"Since epoch {epoch_text(epoch)} the representation collapses in {name_layers(shown)}: {seen}, where "
                f"it was {worst.evidence['highest']:.1f} and the narrowest layer of the untrained network had "
                f"{worst.evidence['baseline']:.1f}."
            ),
            recommendation=(
                "Lower the learning rate or the weight decay, check for dead units, or add normalisation before the "
                "layer. Restart from the weights of an epoch before the fall."
            ),
            may_stop=bool(stuck),
        )
