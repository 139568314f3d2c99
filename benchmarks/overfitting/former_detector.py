r"""The detector of version 0.1.0, kept as a baseline.

Overtraining, told from how the output layer moves and from the training error that is left.

What it looks at. Let D(t) = ‖W_t − W_0‖_F and F(t) = ‖W_t‖_F of the output layer, and t the run's clock (cumulative
learning rate). Over the last doubling of t they grow as powers, D ∝ t^{s_D} and F ∝ t^{s_F}. While a network learns
what generalises, gradients shrink and turn, and both exponents fall and stay low. When it begins to memorise single
examples, their gradients persist from epoch to epoch and the output layer must grow to fit them: the exponents turn
and rise again, the output layer's more than the hidden layers'. A rise is measured against the run's own minimum, so
neither the scale of the weights, nor the learning rate, nor the shape of the layer matters.

Three signals, of two families (distance and norm):

* ``distance``: rise of s_D above its minimum so far;
* ``norm``: rise of s_F above its minimum so far;
* ``gap``: by how much s_D of the output layer exceeds the mean of the hidden layers'.

.. math:: \text{score} = (\text{distance} + \text{norm}) \cdot \frac{u}{u + f}

u is the share of training error that was left over that doubling, the mean of its two ends (1 − training accuracy;
where that is not known, training loss over its first value), f = 0.05: a run that has fitted its data has nothing left
to memorise, and is let alone.

The alarm needs the score above ``threshold`` on ``persistence`` snapshots in a row and ``quorum`` signals above
``signal``. The quorum matters: the norm's exponent rises in any long run, from (D/F)²·s_D towards s_D, as the distance
outgrows the initial weights; the distance's own exponent does not. The snapshot to keep is the last one before the
score went above ``onset`` for good.

What it cannot see is told in the documentation of the detectors, with the runs it was measured on.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from ww_callbacks.spectral.detectors.arguments import at_least_one, number, positive
from ww_callbacks.spectral.detectors.base import Finding, Observation
from ww_callbacks.spectral.detectors.signals.log_time import Clock, LogSlopes


class FormerOvertraining:
    """Rise of the output layer's growth exponents while training error is left: see the module's text.

    Args:
        threshold: score above which the alarm counts.
        onset: score above which a snapshot is no longer the one to keep.
        persistence: snapshots in a row on which the score must be above ``threshold``.
        onset_persistence: the same for ``onset``.
        burn_in: snapshots after the first that set no minimum: early training is a transient.
        quorum: how many of the three signals must be above ``signal`` at the alarm.
        signal: see ``quorum``.
        fitted: f in the score; training error well below it silences the detector.
        plateau: until the training error has once fallen by less than this share of its whole fall over a doubling of
            time, learning still gathers speed, and so does what it does to the weights: nothing counts before that.
        output: name of the output layer; the last layer in depth order by default. Where the output layer shares its
            weights with the embedding, name the embedding: :func:`ww_callbacks.spectral.detectors.output_layer` tells.
        stops: whether a run may be stopped by it.

    Attributes:
        score: the score at the last snapshot, None while unknown; higher means more overtrained.
        best_step, best_epoch: the snapshot to keep so far, None before the first.
    """

    kind: str = "overtraining"
    needs: tuple[str, ...] = ("frobenius_norm", "distance_from_init")

    def __init__(
        self,
        threshold: float = 0.29,
        onset: float = 0.08,
        persistence: int = 4,
        onset_persistence: int = 2,
        burn_in: int = 3,
        quorum: int = 3,
        signal: float = 0.02,
        fitted: float = 0.05,
        plateau: float = 0.4,
        output: str | None = None,
        stops: bool = True,
    ):
        self.threshold = positive("threshold", threshold)
        self.onset = positive("onset", onset)
        if self.onset > self.threshold:
            raise ValueError(f"Expected `onset` to be at most `threshold`={threshold} but got {onset!r}.")
        self.persistence = at_least_one(persistence)
        self.onset_persistence = at_least_one(onset_persistence)
        self.burn_in = at_least_one(burn_in)
        if quorum not in (1, 2, 3):
            raise ValueError(f"Expected `quorum` to be 1, 2 or 3 (there are three signals) but got {quorum!r}.")
        self.quorum = quorum
        self.signal = positive("signal", signal)
        self.fitted = positive("fitted", fitted)
        self.plateau = positive("plateau", plateau)
        self.output = output
        self.stops = bool(stops)
        self.score: float | None = None
        self.best_step: int | None = None
        self.best_epoch: float | None = None
        self._clock = Clock()
        self._slopes = LogSlopes(self.burn_in)
        self._memory: dict[str, Any] = {
            "above": 0,  # snapshots in a row above the threshold, quorum met
            "past_onset": 0,  # snapshots in a row above the onset
            "onset": None,  # [step, epoch] at which that began
            "alarm": None,  # the finding's lasting parts, once raised
            "first_loss": None,
            "highest": 0.0,  # training error
            "plateau": False,  # whether learning has slowed down once
            "signals": {},
            "missing": "",
        }

    def update(self, observation: Observation) -> list[Finding]:
        """Take the next snapshot and return what holds now. Once raised, the finding stays for the run."""
        metrics = observation.metrics
        time = self._clock.advance(observation.step, number(metrics, "learning_rate"))
        if observation.step <= 0 or not observation.layers:
            return self.findings()
        loss = number(metrics, "train_loss")
        if loss is not None and self._memory["first_loss"] is None:
            self._memory["first_loss"] = loss
        values, unfitted = self._values(observation), self._unfitted(metrics)
        if unfitted is not None:
            values["unfitted"] = unfitted
        if not self._slopes.add(time, values):
            return self.findings()  # the clock stood still: nothing was learned
        if unfitted is not None:
            self._look_for_plateau(unfitted)
            unfitted = 0.5 * (unfitted + self._slopes.past.get("unfitted", unfitted))
        self._judge(observation, unfitted)
        return self.findings()

    def _output(self, observation: Observation) -> str:
        return self.output if self.output is not None else next(reversed(list(observation.layers)))

    @staticmethod
    def _values(observation: Observation) -> dict[str, float]:
        """Ln D and ln F of each layer, where they exist."""
        series = {}
        for layer, values in observation.layers.items():
            for short, name in (("D", "distance_from_init"), ("F", "frobenius_norm")):
                value = number(values, name)
                if value is not None and value > 0:
                    series[f"{short} {layer}"] = math.log(value)
        return series

    def _unfitted(self, metrics: Mapping[str, float]) -> float | None:
        """Share of training error left, 0 to 1."""
        accuracy, loss, first = (
            number(metrics, "train_accuracy"),
            number(metrics, "train_loss"),
            self._memory["first_loss"],
        )
        if accuracy is not None:
            return min(max(1.0 - accuracy, 0.0), 1.0)
        if loss is not None and first is not None and first > 0:
            return min(max(loss / first, 0.0), 1.0)
        return None

    def _look_for_plateau(self, unfitted: float) -> None:
        """See ``plateau``: learning comes first, and memorising after it has slowed down."""
        memory = self._memory
        memory["highest"] = max(unfitted, memory["highest"])
        before = self._slopes.past.get("unfitted")
        fallen = memory["highest"] - unfitted
        if before is not None and self._slopes.snapshots > self.burn_in and before - unfitted <= self.plateau * fallen:
            memory["plateau"] = True

    def _judge(self, observation: Observation, unfitted: float | None) -> None:
        memory, output = self._memory, self._output(observation)
        distance, norm = self._slopes.rise(f"D {output}"), self._slopes.rise(f"F {output}")
        if distance is None or norm is None or unfitted is None:
            memory["missing"] = (
                f"no distance from init of the output layer `{output}` is known"
                if f"D {output}" not in self._slopes.slopes and self._slopes.snapshots > 1
                else "neither training loss nor training accuracy is known"
                if unfitted is None
                else f"only {self._slopes.snapshots} epochs seen so far"
            )
            self.score = None
            self._move_best(observation)
            return
        memory["missing"] = (
            ""
            if self._slopes.snapshots >= self.burn_in + self.persistence
            else (f"only {self._slopes.snapshots} epochs seen so far")
        )
        hidden = [s for name, s in self._slopes.slopes.items() if name.startswith("D ") and name != f"D {output}"]
        own = self._slopes.slopes[f"D {output}"]
        gap = max(own - sum(hidden) / len(hidden), 0.0) if hidden else 0.0
        self.score = (distance + norm) * unfitted / (unfitted + self.fitted)
        memory["signals"] = {"distance": distance, "norm": norm, "gap": gap}
        agree = sum(value > self.signal for value in memory["signals"].values())
        memory["past_onset"] = memory["past_onset"] + 1 if memory["plateau"] and self.score > self.onset else 0
        if memory["past_onset"] == 1:
            memory["onset"] = [observation.step, observation.epoch]
        beyond = memory["plateau"] and self.score > self.threshold and agree >= self.quorum
        memory["above"] = memory["above"] + 1 if beyond else 0
        self._move_best(observation)
        if memory["alarm"] is None and memory["above"] >= self.persistence:
            layers = [output] + [
                layer
                for layer in observation.layers
                if layer != output and (self._slopes.rise(f"D {layer}") or 0.0) > self.threshold / 2
            ]
            lowest = self._slopes.lowest[f"D {output}"]
            memory["alarm"] = {
                "layers": layers,
                "since": memory["onset"],
                "evidence": {
                    "score": self.score,
                    "threshold": self.threshold,
                    "unfitted": unfitted,
                    "distance_exponent": own,
                    "distance_exponent_lowest": lowest,
                    "norm_exponent": self._slopes.slopes[f"F {output}"],
                    "norm_exponent_lowest": self._slopes.lowest[f"F {output}"],
                    **{f"signal_{name}": value for name, value in memory["signals"].items()},
                },
            }

    def _move_best(self, observation: Observation) -> None:
        """The snapshot to keep moves on until the score has been past the onset."""
        if self._memory["alarm"] is None and self._memory["past_onset"] < self.onset_persistence:
            self.best_step, self.best_epoch = observation.step, observation.epoch

    def findings(self) -> list[Finding]:
        """What holds since the alarm; empty before it."""
        alarm = self._memory["alarm"]
        if alarm is None:
            return []
        e = alarm["evidence"]
        return [
            Finding(
                kind=self.kind,
                severity="critical",
                layers=tuple(alarm["layers"]),
                evidence=dict(e),
                since_step=alarm["since"][0],
                since_epoch=alarm["since"][1],
                message=(
                    f"Since epoch {alarm['since'][1]:g} the output layer `{alarm['layers'][0]}` moves away from its "
                    f"start ever faster (distance ∝ t^{e['distance_exponent']:.2f}, at its lowest t^"
                    f"{e['distance_exponent_lowest']:.2f}; norm ∝ t^{e['norm_exponent']:.2f}, lowest t^"
                    f"{e['norm_exponent_lowest']:.2f}) while {e['unfitted']:.0%} of the training error is left: it "
                    "memorises single examples."
                ),
                recommendation=(
                    f"Stop and take the weights of epoch {self.best_epoch:g}. To train longer: more data or cleaner "
                    "labels, more weight decay or dropout, or a lower learning rate."
                ),
                may_stop=self.stops,
                confidence=confidence(e["score"]),
                best_step=self.best_step,
                best_epoch=self.best_epoch,
            )
        ]

    @property
    def insufficient(self) -> str:
        """Why overtraining cannot be judged yet, in words; empty if it can."""
        if self._slopes.snapshots == 0:
            return "no epoch has ended yet"
        return self._memory["missing"]


def confidence(score: float) -> float:
    """How often a run of the benchmark's tuning set that kept such a score was overtrained: a logistic regression."""
    return 1.0 / (1.0 + math.exp(-(score - 0.251) / 0.0224))
