"""Correlation traps: layers whose shuffled weights have eigenvalues beyond the random edge. Informs, never stops a
run.
"""

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
class HighestZ(LayerMemory):
    """The highest z so far, or None."""

    highest: float | None = None


class CorrelationTrap(LayerwiseDetector[HighestZ, RunMemory]):
    """The Tracy–Widom z of the largest eigenvalue of the shuffled, centred W is above ``z``.

    A trap is caused by a few very large elements. WeightWatcher considers it a sign of overfitting or of a bad
    optimiser; in small real runs healthy layers show it as well, so this detector only informs. Its quantity is
    measured on request only; without it there are no findings.

    Args:
        z: threshold in Tracy–Widom units; 2.0234 is the 99 % point (β = 1).
        quantity: name of the quantity with the z.
        persistence: number of consecutive snapshots for which it must hold.

    Examples:
        >>> from ww_callbacks.spectral.detectors.base import Observation
        >>> detector = CorrelationTrap(persistence=1)
        >>> row = {"trap_z_centred": 5.0}
        >>> [finding.severity for finding in detector.update(Observation(step=10, epoch=1.0, layers={"fc": row}))]
        ['info']

    """

    kind: str = "correlation trap"
    can_stop: bool = False
    spoils_weights: bool = False
    state: str = "watch"
    layer_memory = HighestZ
    run_memory = RunMemory
    needs: tuple[str, ...] = ()

    def __init__(self, z: float = 2.0234, quantity: str = "trap_z_centred", persistence: int = 3):
        super().__init__(persistence)
        self.z, self.quantity = float(z), quantity

    def judge(self, layer: str, values: Values, memory: HighestZ, observation: Observation) -> dict[str, float] | bool:
        """See the class."""
        z = number(values, self.quantity)
        if z is None:
            return True
        memory.highest = z if memory.highest is None else max(memory.highest, z)
        return {"z": z, "highest_z": memory.highest, "threshold": self.z} if z > self.z else False

    def finding(self, shown: list[Shown], observation: Observation) -> Finding:
        """See the class."""
        step, epoch = since(shown)
        worst = max(shown, key=lambda s: s.evidence["z"])
        return Finding(
            kind=self.kind,
            severity="info",
            layers=tuple(s.layer for s in shown),
            evidence={**worst.evidence, "layers": float(len(shown))},
            since_step=step,
            since_epoch=epoch,
            message=(
                f"Since epoch {epoch_text(epoch)} {name_layers(shown)}: the shuffled weights reach beyond the random "
                f"edge (z = {worst.evidence['z']:.1f} in `{worst.layer}`): a few elements are very large."
            ),
            recommendation="Look at the largest elements of these layers; a lower rate or clipping avoids them.",
        )
