"""Scale collapse: a layer's norm falls far below its former value, while the other layers keep theirs."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import median

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
class HighestNorm(LayerMemory):
    """The highest ‖W‖_F so far, or None."""

    highest: float | None = None


@dataclass
class PeersAndLoss(LossMemory):
    """How far ln ‖W‖_F of the median layer has fallen, and the training loss."""

    median_fall: float = 0.0


class ScaleCollapse(LayerwiseDetector[HighestNorm, PeersAndLoss]):
    """ln ‖W‖_F is ``drop`` below its highest value so far, or `scale_collapse` is below ``ratio``.

    The first compares the layer with its past; if it has not fallen by at least ``apart`` more than the median layer,
    the whole model shrinks (for example by weight decay) and nothing is reported. The second is a fixed threshold on
    log10 min(‖W‖_F/‖W_0‖_F, σ_1/σ_1(W_0)); it informs. There is no published threshold. The finding may stop a run only
    if the training loss has also lost half of its improvement.

    Args:
        drop: fall of ln ‖W‖_F below its maximum; 0.5 means ×0.61.
        apart: how much more than the median layer it must have fallen.
        ratio: fixed ratio to W_0 below which the layer is always reported.
        persistence: number of consecutive snapshots for which it must hold.

    Examples:
        >>> from ww_callbacks.spectral.detectors.base import Observation
        >>> detector = ScaleCollapse(persistence=1)
        >>> for step, norm in enumerate([8.0, 1.0]):
        ...     layers = {name: {"frobenius_norm": norm if name == "fc" else 8.0} for name in ("a", "b", "fc")}
        ...     findings = detector.update(Observation(step, float(step), layers))
        >>> [finding.layers for finding in findings]
        [('fc',)]

    """

    kind: str = "scale collapse"
    can_stop: bool = True
    spoils_weights: bool = True
    state: str = "collapsing"
    layer_memory = HighestNorm
    run_memory = PeersAndLoss
    needs: tuple[str, ...] = ("frobenius_norm", "scale_collapse")

    def __init__(self, drop: float = 0.5, apart: float = 0.25, ratio: float = 0.1, persistence: int = 3):
        super().__init__(persistence)
        self.drop = positive("drop", drop)
        self.apart = positive("apart", apart)
        self.ratio = positive("ratio", ratio)
        self._least = math.log10(self.ratio)
        self._falls: dict[str, float] = {}
        """For each layer of this snapshot with a norm above 0, ln of its highest norm over this one."""

    def before(self, observation: Observation) -> None:
        """Track the training loss and the fall of the median layer."""
        self._run.take(observation.metrics)
        self._falls = {}
        for layer, values in observation.layers.items():
            norm = number(values, "frobenius_norm")
            if norm is None or norm <= 0:
                continue
            memory = self._layers.get(layer)
            highest = norm if memory is None or memory.highest is None else memory.highest
            self._falls[layer] = math.log(highest / norm) if highest > norm else 0.0
        self._run.median_fall = median(self._falls.values()) if len(self._falls) > 1 else 0.0

    def judge(
        self, layer: str, values: Values, memory: HighestNorm, observation: Observation
    ) -> dict[str, float] | bool:
        """See the class."""
        norm = number(values, "frobenius_norm")
        if norm is None:
            return True
        highest = memory.highest = norm if memory.highest is None else max(memory.highest, norm)
        if highest <= 0:
            return False  # it started at zero and has not changed
        fall = self._falls.get(layer, math.inf)
        own, least = number(values, "scale_collapse"), self._least
        fixed = own is not None and own < least and own + observation.error(layer, "scale_collapse") < least
        if not fixed and (fall < self.drop or fall - self._run.median_fall < self.apart):
            return False
        evidence = {"fraction_of_own_maximum": math.exp(-fall), "median_layer": math.exp(-self._run.median_fall)}
        error = observation.error(layer, "scale_collapse")
        estimated = {"scale_collapse_error": error} if error else {}
        return evidence if own is None else {**evidence, "scale_collapse": own, **estimated}

    def finding(self, shown: list[Shown], observation: Observation) -> Finding:
        """See the class."""
        step, epoch = since(shown)
        worst = min(shown, key=lambda s: s.evidence["fraction_of_own_maximum"])
        share, peers = worst.evidence["fraction_of_own_maximum"], worst.evidence["median_layer"]
        stuck = self._run.loss_stuck
        return Finding(
            kind=self.kind,
            severity="critical" if stuck else "warning",
            layers=tuple(s.layer for s in shown),
            evidence={**worst.evidence, "layers": float(len(shown))},
            since_step=step,
            since_epoch=epoch,
            message=(
                f"Since epoch {epoch_text(epoch)} the norm collapses in {name_layers(shown)}: `{worst.layer}` is at "
                f"{share:.0%} of its own maximum (the median layer at {peers:.0%})."
            ),
            recommendation=(
                "Lower the weight decay or the learning rate of this layer; if it was frozen or distilled, check "
                "that it gets a gradient."
            ),
            may_stop=bool(stuck),
        )
