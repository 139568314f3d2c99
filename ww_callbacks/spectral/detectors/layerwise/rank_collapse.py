"""Rank collapse: a layer's effective rank falls to a fraction of its former value."""

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
from ww_callbacks.spectral.number_text import with_error


@dataclass
class HighestRank(LayerMemory):
    """The highest effective rank so far."""

    highest: float = 0.0


class RankCollapse(LayerwiseDetector[HighestRank, LossMemory]):
    """The effective rank is below ``share`` of the layer's highest so far.

    Weight decay lowers the rank of a healthy layer too (to 0.28 of its first value in the strong-decay runs of the
    benchmark), so the default is below that, and the finding may stop a run only if the training loss has also lost
    half of its improvement.

    Args:
        share: fraction of the layer's highest effective rank.
        persistence: number of consecutive snapshots for which it must hold.
        smallest: layers that never had this effective rank are ignored.

    Examples:
        >>> from ww_callbacks.spectral.detectors.base import Observation
        >>> detector = RankCollapse(persistence=1)
        >>> for step, rank in enumerate([50.0, 5.0]):
        ...     findings = detector.update(Observation(step, float(step), {"fc": {"effective_rank": rank}}))
        >>> [finding.kind for finding in findings]
        ['rank collapse']

    """

    kind: str = "rank collapse"
    can_stop: bool = True
    spoils_weights: bool = True
    state: str = "collapsing"
    layer_memory = HighestRank
    run_memory = LossMemory
    needs: tuple[str, ...] = ("effective_rank",)

    def __init__(self, share: float = 0.2, persistence: int = 3, smallest: float = 8.0):
        super().__init__(persistence)
        if not 0 < share < 1:
            raise ValueError(f"Expected `share` to be between 0 and 1 but got {share!r}.")
        self.share = float(share)
        self.smallest = float(smallest)

    def before(self, observation: Observation) -> None:
        """Track the training loss."""
        self._run.take(observation.metrics)

    def judge(
        self, layer: str, values: Values, memory: HighestRank, observation: Observation
    ) -> dict[str, float] | bool:
        """See the class."""
        rank = number(values, "effective_rank")
        if rank is None:
            return True
        highest = memory.highest = max(memory.highest, rank)
        least = self.share * highest
        if highest < self.smallest or rank >= least:
            return False
        # If the rank is an estimate, it must be below with its whole error.
        error = observation.error(layer, "effective_rank")
        if rank + error >= least:
            return False
        estimated = {"effective_rank_error": error} if error else {}
        return {"effective_rank": rank, **estimated, "highest": highest, "share": rank / highest}

    def finding(self, shown: list[Shown], observation: Observation) -> Finding:
        """See the class."""
        step, epoch = since(shown)
        worst = min(shown, key=lambda s: s.evidence["share"])
        rank, error = worst.evidence["effective_rank"], worst.evidence.get("effective_rank_error", 0.0)
        now = with_error(rank, error) if error else f"{rank:.1f}"
        stuck = self._run.loss_stuck
        return Finding(
            kind=self.kind,
            severity="critical" if stuck else "warning",
            layers=tuple(s.layer for s in shown),
            evidence={**worst.evidence, "layers": float(len(shown))},
            since_step=step,
            since_epoch=epoch,
            message=(
                f"Since epoch {epoch_text(epoch)} the rank collapses in {name_layers(shown)}: the effective rank of "
                f"`{worst.layer}` fell from {worst.evidence['highest']:.0f} to {now}."
            ),
            recommendation=(
                "Lower the weight decay or other penalties on this layer, or the learning rate; if the loss is good, "
                "you can factorise the layer at this rank instead."
            ),
            may_stop=bool(stuck),
        )
