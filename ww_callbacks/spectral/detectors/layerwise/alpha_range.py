"""α out of range: layers with α outside WeightWatcher's range. Informs, never stops a run."""

from __future__ import annotations

from dataclasses import dataclass

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


@dataclass
class FirstAlpha(LayerMemory):
    """The first α with sufficient evidence, or None."""

    first: float | None = None


class AlphaRange(LayerwiseDetector[FirstAlpha, RunMemory]):
    """α below ``low`` or above ``high`` by more than ``errors`` standard errors, with sufficient evidence.

    WeightWatcher interprets α < 2 as over-trained and α > 6 as under-trained. In real runs α < 2 also occurs in healthy
    ones (34 of 50 in one search), so this detector only informs. Layers without sufficient evidence are ignored. In
    fine-tuning, α should fall; a layer above ``high`` whose α has not fallen by more than its errors since the first
    snapshot gets another recommendation: more data, or another protocol.

    Args:
        low, high: the range.
        errors: number of standard errors (α−1)/√n by which α must be outside.
        persistence: number of consecutive snapshots for which it must hold.
        fine_tuning: whether the run continues from trained weights.

    Examples:
        >>> from ww_callbacks.spectral.detectors.base import Observation
        >>> detector = AlphaRange(persistence=1)
        >>> row = {"alpha": 1.5, "sigma": 0.1, "alpha_evidence": "sufficient"}
        >>> [finding.kind for finding in detector.update(Observation(step=10, epoch=1.0, layers={"fc": row}))]
        ['alpha out of range']

    """

    kind: str = "alpha out of range"
    can_stop: bool = False
    spoils_weights: bool = False
    state: str = "watch"
    layer_memory = FirstAlpha
    run_memory = RunMemory
    needs: tuple[str, ...] = ("alpha", "sigma", "alpha_evidence")

    def __init__(
        self, low: float = 2.0, high: float = 6.0, errors: float = 2.0, persistence: int = 3, fine_tuning: bool = False
    ):
        super().__init__(persistence)
        if not 1 <= low < high:
            raise ValueError(f"Expected 1 ≤ `low` < `high` but got low={low!r}, high={high!r}.")
        self.low, self.high, self.errors, self.fine_tuning = float(low), float(high), float(errors), bool(fine_tuning)

    def judge(
        self, layer: str, values: Values, memory: FirstAlpha, observation: Observation
    ) -> dict[str, float] | bool:
        """See the class."""
        alpha = number(values, "alpha")
        if alpha is None:
            # With `accuracy=`, α is not measured again while the layer hardly changes: what was found still holds.
            return not observation.full or "alpha" not in values
        if values.get("alpha_evidence", "sufficient") != "sufficient":
            return False
        first = memory.first = alpha if memory.first is None else memory.first
        error = number(values, "sigma") or 0.0
        if self.low - self.errors * error <= alpha <= self.high + self.errors * error:
            return False
        return {"alpha": alpha, "sigma": error, "first_alpha": first}

    def finding(self, shown: list[Shown], observation: Observation) -> Finding:
        """See the class."""
        step, epoch = since(shown)
        low = [s for s in shown if s.evidence["alpha"] < self.low]
        high = [s for s in shown if s.evidence["alpha"] > self.high]
        still = [s for s in high if s.evidence["alpha"] > s.evidence["first_alpha"] - self.errors * s.evidence["sigma"]]
        words, advice = [], []
        if low:
            worst = min(low, key=lambda s: s.evidence["alpha"])
            words.append(f"α < {self.low:g} in {name_layers(low)} (lowest {_with_error(worst)})")
            advice.append(
                f"Layers with α < {self.low:g} can be overtrained, but healthy runs have them too: a validation "
                "loss would tell."
            )
        if high:
            worst = max(high, key=lambda s: s.evidence["alpha"])
            words.append(f"α > {self.high:g} in {name_layers(high)} (highest {_with_error(worst)})")
            if self.fine_tuning and still:
                words.append(f"α did not fall during fine-tuning in {name_layers(still)}")
                advice.append("Fine-tune with more data or another protocol (rate, unfrozen layers, adapter rank).")
            else:
                advice.append(
                    f"Layers with α > {self.high:g} have learned little; a higher learning rate on them can help."
                )
        worst = min(low, key=lambda s: s.evidence["alpha"]) if low else max(high, key=lambda s: s.evidence["alpha"])
        return Finding(
            kind=self.kind,
            severity="info",
            layers=tuple(s.layer for s in shown),
            evidence={
                **worst.evidence,
                "layers_below": float(len(low)),
                "layers_above": float(len(high)),
                "layers_unfallen": float(len(still)),
            },
            since_step=step,
            since_epoch=epoch,
            message=f"Since epoch {epoch_text(epoch)}: {'; '.join(words)}.",
            recommendation=" ".join(advice),
        )


def _with_error(shown: Shown) -> str:
    return f"{shown.evidence['alpha']:.2f} ± {shown.evidence['sigma']:.2f}"
