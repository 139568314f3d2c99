r"""What a training loop can see of overfitting without validation data: one row of numbers an epoch.

**Within-epoch slope.** Let ℓ_1, …, ℓ_10 be the training losses of an epoch, each step's taken before its update and
averaged over ten equal parts. An example at position p of an epoch was last visited on average ½ + p epochs ago. So the
least-squares slope b of ℓ over the epoch is the trend of the loss on data not seen lately, plus what is forgotten.
A model that memorises single examples forgets them within an epoch: b rises. A slope significantly below zero certifies
that the model still improves on data it has not just seen. The difference of b, in units of its standard error, from
its mean over the earlier epochs tells the level of this run from what is new. With L_e the mean loss of
epoch e, the saw adds the fall between epochs, :math:`\text{saw}_e = b_e + L_{e-1} - L_e`: what one more visit to the
same examples gains.

**Epoch loss.** The exponent −d ln L/d ln t over the last doubling of time t: a loss that falls ever faster in log time
long after the start is a loss that is memorised.

**Weights.** Over the last doubling of time the distance from the start and the norm of a layer grow as powers,
‖W − W_0‖ ∝ t^{s_D} and ‖W‖ ∝ t^{s_F}. While a network learns what generalises, gradients shrink and turn, and the
exponents fall. When it memorises, gradients persist from epoch to epoch, and the output layer's exponents rise again.
The size of an epoch's update, ‖ΔW‖/‖W‖, says how much is still being changed, and ‖W − W_0‖/‖W‖ of the layer that has
moved least how far the whole network is from its start.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from ww_callbacks.spectral.detectors.arguments import number
from ww_callbacks.spectral.detectors.base import Observation
from ww_callbacks.spectral.detectors.signals.log_time import Clock, LogSlopes

LONGEST_WINDOW = 40
"""Epochs that are remembered at most."""
BURN_IN = 3
"""Epochs after the first that set no minimum of an exponent."""


def within_epoch_slope(losses: Sequence[float]) -> tuple[float, float]:
    r"""Least-squares slope of the training loss over one epoch, and its standard error.

    With n parts at x_k = (k − ½)/n, :math:`b = \sum (x_k - \bar x)(\ell_k - \bar\ell) / S_{xx}` and its standard error
    :math:`\sqrt{\mathrm{RSS}/((n - 2) S_{xx})}`.

    Args:
        losses: mean training losses of equal parts of the epoch, in order; three or more.

    Returns:
        Slope and standard error, in units of the loss an epoch; NaN with fewer than three finite losses.

    Examples:
        >>> within_epoch_slope([1.0, 2.0, 3.0, 4.0])
        (4.0, 0.0)
    """
    n = len(losses)
    if n < 3 or not all(math.isfinite(x) for x in losses):
        return math.nan, math.nan
    middle, mean = (n - 1) / 2, sum(losses) / n
    spread = sum((k - middle) ** 2 for k in range(n))
    per_part = sum((k - middle) * (x - mean) for k, x in enumerate(losses)) / spread
    rest = sum((x - mean - per_part * (k - middle)) ** 2 for k, x in enumerate(losses))
    return n * per_part, n * math.sqrt(max(rest, 0.0) / ((n - 2) * spread))


def _trained(observation: Observation) -> list[str]:
    """The layers that say how training goes: those that are trained, and of LoRA the update instead of its sum.

    The frozen weight in that sum is so large that the size of the update would not show. Where all are frozen, all.
    """
    summed = {
        name.partition("lora_update[")[0] + leaf
        for name in observation.layers
        if "lora_update[" in name
        for leaf in ("merged_weight", "merged_kernel")
    }
    moving = [name for name in observation.layers if name not in observation.frozen and name not in summed]
    return moving or list(observation.layers)


@dataclass
class _Memory:
    """What is kept between epochs.

    Attributes:
        epochs: epochs seen.
        first: loss of the first step, or of the first epoch where that is not known.
        last: mean loss of the last epoch.
        parts: mean losses of the last epoch's parts.
        recent: (slope, standard error, mean loss, fall since the epoch before, jump) of the last epochs.
        rate: highest learning rate so far.
        certainty_sum, certainty_count: sum and number of ``slope_z`` so far.
    """

    epochs: int = 0
    first: float | None = None
    last: float | None = None
    parts: list[float] = field(default_factory=list)
    recent: list[list[float]] = field(default_factory=list)
    rate: float = 0.0
    certainty_sum: float = 0.0
    certainty_count: int = 0


class TrainingSignals:
    """Turns one observation an epoch into the numbers that the judgement weighs.

    Args:
        output: name of the output layer; None for the last one in depth order.
    """

    def __init__(self, output: str | None = None) -> None:
        self.output = output
        self._clock = Clock()
        self._slopes = LogSlopes(BURN_IN)
        self._memory = _Memory()

    @property
    def epochs(self) -> int:
        """Epochs seen so far."""
        return self._memory.epochs

    def update(self, observation: Observation) -> dict[str, float] | None:
        """Take the snapshot at the end of an epoch.

        Args:
            observation: the snapshot; its ``metrics`` need ``train_loss``, its ``epoch_losses`` may be empty.

        Returns:
            The signals, NaN where one is not known; None before the first epoch, or without a training loss.
        """
        metrics, memory = observation.metrics, self._memory
        time = self._clock.advance(observation.step, number(metrics, "learning_rate"))
        loss = number(metrics, "train_loss")
        if observation.step <= 0 or loss is None:
            return None
        memory.epochs += 1
        if memory.first is None:
            memory.first = number(metrics, "first_loss") or loss
        values = {"L": math.log(loss)} if loss > 0 else {}
        for layer, row in observation.layers.items():
            for short, name in (("D", "distance_from_init"), ("F", "frobenius_norm")):
                value = number(row, name)
                if value is not None and value > 0:
                    values[f"{short} {layer}"] = math.log(value)
        accuracy = number(metrics, "train_accuracy")
        left = 1.0 - accuracy if accuracy is not None else loss / memory.first if memory.first > 0 else math.nan
        values["left"] = left = min(max(left, 0.0), 1.0)
        self._slopes.add(time, values)
        slope, error = within_epoch_slope(observation.epoch_losses)
        fall = memory.last - loss if memory.last is not None else math.nan
        jump = math.nan
        if memory.parts and observation.epoch_losses:
            jump = memory.parts[-1] - observation.epoch_losses[0]
        memory.recent.append([slope, error, loss, fall, jump])
        del memory.recent[:-LONGEST_WINDOW]
        memory.last, memory.parts = loss, list(observation.epoch_losses)
        rate = number(metrics, "learning_rate")
        if rate is not None:
            memory.rate = max(rate, memory.rate)
        return {
            **self._losses(),
            **self._weights(observation),
            "log_error": math.log(left + 0.01),
            "log_epochs": math.log(memory.epochs),
            "decay": math.log(rate / memory.rate + 1e-3) if rate is not None and memory.rate > 0 else math.nan,
        }

    def _losses(self) -> dict[str, float]:
        memory = self._memory
        window = memory.recent[-max(3, memory.epochs // 4) :]
        level = sum(row[2] for row in window) / len(window)
        slopes = [row for row in window if math.isfinite(row[0])]
        mean = _mean([row[0] for row in slopes])
        error = math.sqrt(sum(row[1] ** 2 for row in slopes)) / len(slopes) if slopes else math.nan
        saw = _mean([row[0] + row[3] for row in slopes])
        size = max(level, 1e-12)
        z, rise = max(-8.0, min(8.0, mean / error)) if error > 0 else math.nan, math.nan
        if memory.certainty_count:
            rise = z - memory.certainty_sum / memory.certainty_count
        if math.isfinite(z):
            memory.certainty_sum += z
            memory.certainty_count += 1
        return {
            "slope_z": z,
            "slope_z_rise": rise,
            "slope": mean / size,
            "saw": saw / size,
            "jump": _mean([row[4] for row in window]) / size,
            "fall": -self._slopes.slopes.get("L", math.nan),
            "log_loss": math.log(size / memory.first) if memory.first and memory.first > 0 else math.nan,
        }

    def _weights(self, observation: Observation) -> dict[str, float]:
        layers = _trained(observation)
        slopes = self._slopes.slopes
        if not layers:
            return {}
        output = layers[-1] if self.output is None or self.output not in layers else self.output
        hidden = [slopes[f"D {n}"] for n in layers if n != output and f"D {n}" in slopes]
        rise_d, rise_f = self._slopes.rise(f"D {output}"), self._slopes.rise(f"F {output}")
        return {
            "distance_rise": rise_d if rise_d is not None else math.nan,
            "norm_rise": rise_f if rise_f is not None else math.nan,
            "norm_exponent": slopes.get(f"F {output}", math.nan),
            "output_exponent": slopes.get(f"D {output}", math.nan),
            "hidden_exponent": _mean(hidden),
            "displacement": min(self._displacements(observation, layers), default=math.nan),
            "output_update": _log(number(observation.layers[output], "relative_update_norm")),
            "hidden_update": _log(_mean(self._updates(observation, [n for n in layers if n != output]))),
        }

    @staticmethod
    def _displacements(observation: Observation, layers: Sequence[str]) -> list[float]:
        """The logarithm of ‖W − W_0‖/‖W‖ of the layers that have moved."""
        out = []
        for name in layers:
            distance, norm = (number(observation.layers[name], n) for n in ("distance_from_init", "frobenius_norm"))
            if distance is not None and norm is not None and distance > 0 and norm > 0:
                out.append(math.log(distance / norm))
        return out

    @staticmethod
    def _updates(observation: Observation, layers: Sequence[str]) -> list[float]:
        found = (number(observation.layers[name], "relative_update_norm") for name in layers)
        return [value for value in found if value is not None]

    def state_dict(self) -> dict[str, Any]:
        """The state as JSON-able plain values."""
        memory = asdict(self._memory)
        memory["recent"] = [[x if math.isfinite(x) else None for x in row] for row in self._memory.recent]
        return {"clock": self._clock.state_dict(), "slopes": self._slopes.state_dict(), "memory": memory}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore a saved state."""
        self._clock.load_state_dict(state["clock"])
        self._slopes.load_state_dict(state["slopes"])
        self._memory = _Memory(**state["memory"])
        self._memory.recent = [[math.nan if x is None else x for x in row] for row in self._memory.recent]


def _log(value: float | None) -> float:
    return math.log(value) if value is not None and value > 0 else math.nan


def _mean(values: Sequence[float]) -> float:
    finite = [v for v in values if math.isfinite(v)]
    return sum(finite) / len(finite) if finite else math.nan
