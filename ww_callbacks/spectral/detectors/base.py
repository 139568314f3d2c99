"""The interface of a detector: observations in, findings out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol


@dataclass(frozen=True)
class Observation:
    """One snapshot of a run: the input of the detectors.

    Attributes:
        step: optimiser steps done so far.
        epoch: epochs completed so far, fractional inside an epoch.
        layers: layer name → quantity name → value (numbers and texts; NaN where missing), in depth order.
        metrics: what the loop reported, as far as known: ``train_loss`` and ``train_accuracy`` (means over the epoch),
            ``first_loss`` (of the first step), ``learning_rate``, ``val_loss``, ``val_accuracy`` (higher is better).
        epoch_losses: the per-step training losses of the epoch that just ended, each of a batch before its update, as
            means over ten equal parts in order; empty if unknown, or if the epoch had fewer than ten steps.
        full: whether it has the quantities that need a spectrum.
        status: layer name → status of its row (``ok``, ``non-finite``, …), if known.
        changed: layer name → whether its weights differ from the last snapshot's, if known.
        frozen: the layers that are currently not trained, as far as the framework reports.
        errors: layer name → quantity name → error, for values that are estimates (``accuracy=``); others are exact.
    """

    step: int
    epoch: float
    layers: Mapping[str, Mapping[str, float | str]]
    metrics: Mapping[str, float] = field(default_factory=dict)
    epoch_losses: tuple[float, ...] = ()
    full: bool = True
    status: Mapping[str, str] = field(default_factory=dict)
    changed: Mapping[str, bool] = field(default_factory=dict)
    frozen: frozenset[str] = frozenset()
    errors: Mapping[str, Mapping[str, float]] = field(default_factory=dict)

    def error(self, layer: str, quantity: str) -> float:
        """The error of a value; 0 if it is exact."""
        return self.errors.get(layer, {}).get(quantity, 0.0)


@dataclass(frozen=True)
class Finding:
    """A problem that a detector reports at a snapshot. The callbacks turn it into an alert, with policy and cooldown.

    Attributes:
        kind: the kind of alert (see ``ww_callbacks.integrations.schema.Alert``).
        severity: ``info``, ``warning`` or ``critical``.
        layers: the layers that show it; empty for the whole model.
        evidence: numbers that show it.
        since_step, since_epoch: when it started.
        message: the observation, in one sentence with numbers.
        recommendation: what to do.
        may_stop: whether the evidence is strong enough to stop a run.
        confidence: 0 to 1, or None if none is justified.
        best_step, best_epoch: the snapshot whose weights to keep, or None.
    """

    kind: str
    severity: Literal["info", "warning", "critical"]
    layers: tuple[str, ...]
    evidence: Mapping[str, float]
    since_step: int
    since_epoch: float
    message: str
    recommendation: str
    may_stop: bool = False
    confidence: float | None = None
    best_step: int | None = None
    best_epoch: float | None = None


class Detector(Protocol):
    """A function of the time series so far, computed online with constant memory and time per snapshot."""

    kind: str
    """The kind of its alerts."""
    can_stop: bool
    """Whether its findings may ever stop a run. Thresholds that fire in healthy runs may not."""
    spoils_weights: bool
    """Whether the weights are unusable while it has a critical finding."""
    state: str
    """The verdict's state during a critical finding: ``watch``, or the name of the problem."""
    needs: tuple[str, ...]
    """Names of the quantities that must be measured for it (see ``ww_callbacks.spectral.measuring.registry``)."""

    def update(self, observation: Observation) -> list[Finding]:
        """Process the next snapshot and return the current findings (may be empty)."""

    def state_dict(self) -> dict[str, Any]:
        """The state as JSON-serialisable values."""

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore a saved state.

        Raises:
            ValueError: if it is not a state of this detector.
        """


def epoch_text(epoch: float) -> str:
    """An epoch with two decimals; more only in the first hundredth of an epoch.

    Examples:
        >>> epoch_text(3.0), epoch_text(1 / 7), epoch_text(0.00123)
        ('3', '0.14', '0.0012')
    """
    return f"{epoch:.2g}" if 0 < abs(epoch) < 0.01 else f"{epoch:.2f}".rstrip("0").rstrip(".")


def keep_text(step: int, epoch: float) -> str:
    """The advice to keep the weights of a snapshot; without its epoch in a loop that has none.

    Examples:
        >>> keep_text(40, 4.0), keep_text(40, 0.0)
        ('Keep the weights of epoch 4 (step 40).', 'Keep the weights of step 40.')
    """
    when = f"epoch {epoch_text(epoch)} (step {step})" if epoch > 0 or step == 0 else f"step {step}"
    return f"Keep the weights of {when}."
