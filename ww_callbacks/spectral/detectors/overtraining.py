"""Overtraining: detected from validation metrics if they are logged, otherwise from training signals.

The evidence, in order of priority:

1. **Validation.** If the loop logs a validation loss or score, it decides: an alarm is raised if it was worse than its
   best, by more than its noise, for a third of the epochs so far. If the training signals do not agree, this must hold
   for two thirds of the epochs, unless the loss rises without a break. A falling score is overfitting. A loss that
   rises while the score stays the same is overconfidence, and is reported as such.
2. **Training signals.** Without validation metrics, a calibrated logistic regression on the losses within and between
   epochs and the growth of the weights (:mod:`.judgement`). An alarm is raised if its mean score over the last third of
   the epochs so far, and its score now, are above a threshold.
3. **Not judged.** Without a training loss, without a layer whose weights are measured, or before the second epoch,
   there is no result. Nor is there one from the training signals where a few steps change everything (full-batch
   training, LBFGS): the signals are those of many small steps, and no run of the benchmark was like that.

With validation, the epoch to keep is the newest one, at most three after the best, whose value is within noise, and
within 5 %, of it: its raw weights are as good, and their average is better. Without validation it is the newest epoch
as long as there is no alarm, and afterwards the last one whose score was not above the threshold.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from ww_callbacks.spectral.detectors.arguments import at_least_one, check_state, number
from ww_callbacks.spectral.detectors.base import Finding, Observation, epoch_text, keep_text
from ww_callbacks.spectral.detectors.signals import coefficients as fitted
from ww_callbacks.spectral.detectors.signals.judgement import probability
from ww_callbacks.spectral.detectors.signals.training_signals import TrainingSignals
from ww_callbacks.spectral.detectors.signals.validation_trend import RISEN, ValidationTrend

SHORT = 8
"""Epochs of a short run at the most, as the benchmark counts them."""
ENOUGH_VALIDATION = 3
"""Validation values from which on they decide."""
CLIMBS = ((3, 0.1), (2, 0.2))
"""Epochs in a row, each worse than the one before, and by which share of the best: what is no noise."""
AGREEING = 4
"""Scores of the training signals that weigh in with validation."""
LONGEST = 200
"""Scores that are remembered at most, and so the longest stretch of epochs that an alarm needs."""
FEWEST_STEPS = 2
"""Optimiser steps of an epoch in the benchmark, at the least."""
TENTH_WITHIN = 20
"""Optimiser steps in which the loss of no run of the benchmark fell to a tenth of its first; the fastest took 21."""
NO_VALIDATION = "No validation values are logged"
"""What an alarm of the training signals says of validation."""

IN_WORDS: dict[str, tuple[str, str]] = {
    "slope_z": ("", "the loss rises within an epoch"),
    "slope": ("", "the loss rises within an epoch"),
    "saw": ("", "each visit to the same examples lowers the loss by much"),
    "jump": ("", "the loss drops from one epoch to the next"),
    "fall": ("", "the training loss falls ever faster"),
    "log_loss": ("the training loss is far below its start", ""),
    "log_error": ("little training error is left", ""),
    "distance_rise": ("", "the output layer moves away from its start ever faster"),
    "norm_rise": ("", "the output layer's norm grows ever faster"),
    "norm_exponent": ("", "the output layer's norm keeps growing"),
    "output_exponent": (
        "the output layer moves away from its start ever more slowly",
        "the output layer keeps moving away from its start",
    ),
    "hidden_exponent": (
        "the hidden layers move away from their start ever more slowly",
        "the hidden layers keep moving away from their start",
    ),
    "displacement": ("one of the layers is still close to its start", "all layers have moved far from their start"),
    "output_update": ("the output layer changes little", "the output layer still changes by much"),
    "hidden_update": ("the hidden layers change little", "the hidden layers still change by much"),
}
"""What a signal says where its low (first) or its high value (second) speaks for overtraining; empty where that
explains nothing to a reader. The sign of the signal's coefficient decides which."""


def sustained(scores: Sequence[float], epochs: int, threshold: float, share: float, least: int) -> bool:
    """Whether the mean of the last scores and the last score are above the threshold.

    Args:
        scores: score of each judged epoch, in order.
        epochs: epochs so far.
        threshold: what they are compared with.
        share: share of the epochs so far that the mean is taken over.
        least: epochs that it is taken over at the least.

    Examples:
        >>> sustained([0.0, 3.0, 1.0], epochs=6, threshold=0.5, share=1 / 3, least=2)
        True
        >>> sustained([0.0, 3.0, 0.4], epochs=6, threshold=0.5, share=1 / 3, least=2)
        False
    """
    needed = min(max(least, math.ceil(share * epochs)), LONGEST)
    if len(scores) < needed or scores[-1] <= threshold:
        return False
    return sum(scores[-needed:]) / needed > threshold


@dataclass
class _State:
    """What is kept between epochs.

    Attributes:
        judged: epochs that could be judged.
        score: the score at the last epoch.
        best: (step, epoch) of the epoch to keep so far.
        before: (step, epoch) of the last epoch whose score was not above the threshold, which an alarm would name.
        above: (step, epoch) of the first epoch after that one.
        start: (step, epoch) of the first snapshot.
        latest: (step, epoch) of the last epoch.
        alarm: the finding's lasting parts, once raised.
        reported: whether a training loss was ever reported.
        scores: the last scores.
        unusable: validation metric → epochs in which it was NaN or infinite.
        unweighed: why the last epoch has no signal of the weights; empty if it has one.
        unlike: why the run is unlike all those on which the training signals were fitted; empty if it is not.
        fast: the same, where the loss fell in too few steps.
    """

    judged: int = 0
    score: float | None = None
    best: list[float] = field(default_factory=list)
    before: list[float] = field(default_factory=list)
    above: list[float] = field(default_factory=list)
    start: list[float] = field(default_factory=list)
    latest: list[float] = field(default_factory=list)
    alarm: dict[str, Any] | None = None
    reported: bool = False
    scores: list[float] = field(default_factory=list)
    unusable: dict[str, int] = field(default_factory=dict)
    unweighed: str = ""
    unlike: str = ""
    fast: str = ""


class Overtraining:
    """See the module's text.

    Args:
        threshold: score of the training signals above which an epoch counts towards an alarm.
        streak: share of the epochs so far over which the mean score must be above the threshold, and for which a
            validation value must be worse.
        least: epochs over which the mean is taken, at the least.
        margin: multiples of its noise by which a validation value must be worse than its best.
        output: name of the output layer; None for the last one in depth order. Where the output layer shares its
            weights with the embedding, name the embedding.
        stops: whether it may stop a run.
        stops_overconfident: whether a rising validation loss may stop a run whose validation score holds.

    Attributes:
        probability: probability that training on makes the weights worse, None while unknown.
        best_step, best_epoch: the epoch to keep so far, None before the first.
        judged_by: ``validation``, ``training signals``, or empty where nothing can be judged.
    """

    kind: str = "overtraining"
    can_stop: bool = True
    spoils_weights: bool = False
    state: str = "overtraining"
    needs: tuple[str, ...] = ("frobenius_norm", "distance_from_init", "relative_update_norm")

    def __init__(
        self,
        threshold: float = fitted.CAUTIOUS,
        streak: float = 1 / 3,
        least: int = 2,
        margin: float = 2.0,
        output: str | None = None,
        stops: bool = True,
        stops_overconfident: bool = False,
    ) -> None:
        if not isinstance(threshold, int | float) or not math.isfinite(threshold):
            raise ValueError(f"Expected `threshold` to be a number but got {threshold!r}.")
        if not isinstance(streak, int | float) or not 0 < streak < 1:
            raise ValueError(f"Expected `streak` to be a share of the epochs between 0 and 1 but got {streak!r}.")
        if not isinstance(margin, int | float) or not margin >= 0:
            raise ValueError(f"Expected `margin` to be at least 0 but got {margin!r}.")
        self.threshold, self.streak, self.margin = float(threshold), float(streak), float(margin)
        self.least = at_least_one(least)
        self.output = output
        self.stops, self.stops_overconfident = bool(stops), bool(stops_overconfident)
        self._signals = TrainingSignals(output)
        self._loss = ValidationTrend(margin)
        self._accuracy = ValidationTrend(margin, higher_is_better=True)
        self._state = _State()

    def name_output(self, name: str) -> None:
        """Take the layer ``name`` for the output layer from now on."""
        self.output = self._signals.output = name

    @property
    def probability(self) -> float | None:
        """Probability that training on makes the weights worse, by the training signals; None while unknown."""
        score = self._state.score
        return None if score is None else probability(score, fitted.CALIBRATION)

    @property
    def best_step(self) -> int | None:
        """Step of the epoch to keep so far; None before the first."""
        return int(self._state.best[0]) if self._state.best else None

    @property
    def best_epoch(self) -> float | None:
        """The epoch to keep so far; None before the first."""
        return self._state.best[1] if self._state.best else None

    @property
    def keeps_an_earlier_epoch(self) -> bool:
        """Whether validation values decided that the epoch to keep is before the last one."""
        state = self._state
        return self.judged_by == "validation" and bool(state.latest) and state.best != state.latest

    @property
    def steps_to_keep(self) -> frozenset[int]:
        """Steps of the epochs whose weights may come to be the ones to keep: the best so far, and an alarm's."""
        return frozenset(int(moment[0]) for moment in (self._state.best, self._state.before) if moment)

    @property
    def judged_by(self) -> str:
        """``validation``, ``training signals``, or empty where nothing can be judged."""
        if max(self._loss.epochs, self._accuracy.epochs) >= ENOUGH_VALIDATION:
            return "validation"
        return "training signals" if self._state.judged >= 1 and not self._state.unlike else ""

    @property
    def insufficient(self) -> str:
        """What is missing for a judgement; empty if nothing is."""
        if self.judged_by:
            return ""
        if not self._state.latest:
            return "no snapshot at the end of an epoch has been measured yet"
        if not self._state.reported:
            return "no training loss is reported, and no validation values"
        if self._state.unweighed:
            return (
                f"{self._state.unweighed}, and the training losses alone do not show it. Log a validation loss at "
                f"{ENOUGH_VALIDATION} epochs or more"
            )
        if self._state.unlike:
            return (
                f"{self._state.unlike}, and the training signals are known only for runs of smaller steps. Log a "
                f"validation loss at {ENOUGH_VALIDATION} epochs or more"
            )
        return "the first epoch that can be judged is the second"

    def update(self, observation: Observation) -> list[Finding]:
        """Take the snapshot at the end of an epoch and return what holds now.

        Once raised, an alarm stays, unless the validation value that decides reaches a new best: then training on has
        made the weights better after all, and the alarm is withdrawn.
        """
        state = self._state
        moment = [observation.step, observation.epoch]
        state.start = state.start or moment
        state.reported |= number(observation.metrics, "train_loss") is not None
        signals = self._signals.update(observation)
        if observation.step <= 0:
            state.best = state.before = moment
            return self.findings()
        state.unlike = self._unlike(observation)
        if state.unlike:
            state.scores, state.score = [], None
            if state.alarm is not None and state.alarm["why"] == "training":
                state.alarm = None
        state.latest = moment
        self._follow_validation(observation)
        if state.alarm is not None and any(trend.best_at == moment for trend in self._followed()[:1]):
            state.alarm, state.scores = None, []
        state.unweighed = self._unweighed(observation)
        if signals is not None and self._signals.epochs >= 2 and not state.unlike:
            score = fitted.COEFFICIENTS.score(signals)
            state.scores = [*state.scores, score][-LONGEST:]
            if not state.unweighed:
                state.judged += 1
                state.score = score
        if state.alarm is None:
            self._move_best(moment)
        if state.alarm is None or state.alarm["why"] == "overconfident":
            self._raise(observation, signals or {})
        if (
            state.alarm is not None and state.alarm["why"] != "training"
        ):  # an alert that is repeated shows today's values
            state.alarm["evidence"] |= self._validation_evidence()
            state.alarm["validation"] = self.validation or state.alarm["validation"]
        return self.findings()

    def _unlike(self, observation: Observation) -> str:
        """Why the steps of this run are fewer and larger than those of any run of the benchmark; empty if not."""
        steps, epochs = observation.step - self._state.start[0], observation.epoch - self._state.start[1]
        if steps < FEWEST_STEPS * epochs:
            return "an epoch has one optimiser step"
        if self._state.fast:
            return self._state.fast
        loss, first = number(observation.metrics, "train_loss"), number(observation.metrics, "first_loss")
        if 0 < steps <= TENTH_WITHIN and loss is not None and first is not None and loss < 0.1 * first:
            self._state.fast = f"the loss fell to a tenth within {steps:.0f} optimiser steps"
        return self._state.fast

    def _unweighed(self, observation: Observation) -> str:
        """Why no layer gives a signal; empty if one does."""
        if not observation.layers:
            return "no layer of the model has a matrix that is measured"
        if observation.frozen.issuperset(observation.layers):
            return "all layers with a matrix are frozen"
        if any(number(row, name) is not None for row in observation.layers.values() for name in self.needs):
            return ""
        return f"none of {', '.join(self.needs)} is measured"

    def _follow_validation(self, observation: Observation) -> None:
        for trend, name in ((self._loss, "val_loss"), (self._accuracy, "val_accuracy")):
            value = number(observation.metrics, name)
            if value is not None:
                trend.update(value, observation.step, observation.epoch)
            elif name in observation.metrics:
                self._state.unusable[name] = self._state.unusable.get(name, 0) + 1

    def _followed(self) -> list[ValidationTrend]:
        """The validation values that are logged; the first decides which epoch is kept."""
        return [trend for trend in (self._loss, self._accuracy) if trend.epochs]

    def _move_best(self, moment: list[float]) -> None:
        """Move on the epoch to keep; see the module's text."""
        state = self._state
        followed = self._followed()
        if followed:
            state.best = state.before = list(followed[0].good_at)
            return
        state.best = moment
        if state.score is None or state.score <= self.threshold:
            state.before, state.above = moment, []
        else:
            state.above = state.above or moment

    def _raise(self, observation: Observation, signals: Mapping[str, float]) -> None:
        """Raise the alarm if its time has come."""
        state = self._state
        if self.judged_by == "validation":
            # The loss decides where it is logged: the score of a small validation set jumps.
            trend = self._loss if self._loss.epochs >= ENOUGH_VALIDATION else self._accuracy
            if self._turned(trend):
                scored = trend is self._loss and self._accuracy.epochs >= ENOUGH_VALIDATION
                why = "overconfident" if scored and not self._accuracy.falls else "validation"
                if state.alarm is None or why == "validation":
                    self._alarm(observation, why, trend.declines_since, signals)
        elif not (state.alarm or state.unweighed) and sustained(
            state.scores, self._signals.epochs, self.threshold, self.streak, self.least
        ):
            state.best = list(state.before or state.best)  # a state saved by an older version has no `before`
            self._alarm(observation, "training", state.above or state.best, signals)

    def _turned(self, trend: ValidationTrend) -> bool:
        """Whether a validation value has turned for the worse; see the module's text."""
        recent = self._state.scores[-AGREEING:]
        expected = bool(recent) and sum(recent) / len(recent) > fitted.EAGER
        return (
            (expected and trend.turned(self.streak, 3))
            or any(
                trend.climb >= max(epochs, math.ceil(self.streak * trend.epochs)) and trend.setback > share
                for epochs, share in CLIMBS
            )
            or trend.turned(min(2 * self.streak, 1.0), 5)
            or (trend is self._loss and trend.turned(0.75 * self.streak, 3) and trend.setback > RISEN)
        )

    def _alarm(self, observation: Observation, why: str, since: list[float], signals: Mapping[str, float]) -> None:
        layers = list(observation.layers)
        output = self.output if self.output in observation.layers else layers[-1] if layers else None
        spoken = fitted.COEFFICIENTS.contributions(signals)
        usual = fitted.COEFFICIENTS.contributions({})
        leading = sorted(spoken, key=lambda n: usual[n] - spoken[n])[:5]
        told = [name for name in leading if _words(name) and spoken[name] > usual[name] + 0.1]
        judged: dict[str, float] = {}
        # Beside validation values that decide, those of the training signals would seem to contradict the alarm.
        if why == "training" and self._state.score is not None and self.probability is not None:
            judged = {"score": self._state.score, "threshold": self.threshold, "probability": self.probability}
        evidence = {
            **judged,
            **{name: float(signals[name]) for name in told if math.isfinite(signals.get(name, math.nan))},
        }
        self._state.alarm = {
            "why": why,
            "layers": [output] if output is not None else [],
            "since": list(since) or list(self._state.latest),
            "validation": self.validation or self._missing,
            "evidence": evidence | self._validation_evidence(),
            "words": list(dict.fromkeys(_words(name) for name in told))[:3],
        }

    def _validation_evidence(self) -> dict[str, float]:
        evidence: dict[str, float] = {}
        for name, trend in (("val_loss", self._loss), ("val_accuracy", self._accuracy)):
            if trend.last is not None and trend.best is not None:
                evidence |= {name: trend.last, f"{name}_best": trend.best}
        return evidence

    def findings(self) -> list[Finding]:
        """What holds since the alarm; empty before it."""
        alarm = self._state.alarm
        if alarm is None:
            return []
        overconfident = alarm["why"] == "overconfident"
        return [
            Finding(
                kind=self.kind,
                severity="warning" if overconfident else "critical",
                layers=tuple(alarm["layers"]),
                evidence=dict(alarm["evidence"]),
                since_step=int(alarm["since"][0]),
                since_epoch=alarm["since"][1],
                message=self._message(alarm),
                recommendation=(
                    f"{keep_text(self.best_step or 0, self.best_epoch or 0.0)} To train longer, add data, clean the "
                    "labels, regularise more (weight decay, dropout, augmentation), or lower the learning rate."
                ),
                may_stop=self.stops and (self.stops_overconfident or not overconfident),
                confidence=alarm["evidence"].get("probability") if alarm["why"] == "training" else None,
                best_step=self.best_step,
                best_epoch=self.best_epoch,
            )
        ]

    def _message(self, alarm: Mapping[str, Any]) -> str:
        e, since = alarm["evidence"], epoch_text(alarm["since"][1])
        validation = alarm.get("validation")  # a state saved by an older version has none
        rests = f" This rests on {validation}." if validation else ""
        told = f" In the training itself, {_joined(alarm['words'])}." if alarm["words"] else ""
        if alarm["why"] == "overconfident":
            return (
                f"The model becomes overconfident: since epoch {since} the validation loss has been above its lowest "
                f"({e['val_loss']:.4g}, lowest {e['val_loss_best']:.4g}), while the validation score holds."
                f"{rests}{told}"
            )
        if alarm["why"] == "validation":
            parts = []
            if "val_accuracy" in e and e["val_accuracy"] < e["val_accuracy_best"]:
                parts.append(f"score {e['val_accuracy']:.4g}, best {e['val_accuracy_best']:.4g}")
            if "val_loss" in e and e["val_loss"] > e["val_loss_best"]:
                parts.append(f"loss {e['val_loss']:.4g}, lowest {e['val_loss_best']:.4g}")
            return f"Validation has been getting worse since epoch {since} ({'; '.join(parts)}).{rests}{told}"
        words = _joined(alarm["words"]) or "several weak signs agree"
        return (
            f"Since epoch {since} training looks as in runs that overtrain: {words}. Training on makes the weights "
            f"worse with probability {e['probability']:.0%}. {validation or NO_VALIDATION}."
        )

    @property
    def validation(self) -> str:
        """The validation values that decide: how many, and of what; empty where they do not decide."""
        if self.judged_by != "validation":
            return ""
        named = [
            f"{trend.epochs} values of the validation {what}"
            for trend, what in ((self._loss, "loss"), (self._accuracy, "score"))
            if trend.epochs >= ENOUGH_VALIDATION
        ]
        return " and ".join(named) + (f" ({self._left_out})" if self._left_out else "")

    @property
    def decline(self) -> str:
        """Which validation values are worse than their best without an alarm; empty if none is, or after an alarm."""
        if self._state.alarm is not None or self.judged_by != "validation":
            return ""
        parts = [
            f"the validation {what} is worse than its best since epoch {epoch_text(trend.declines_since[1])} "
            f"({trend.last:.4g}, best {trend.best:.4g} at epoch {epoch_text(trend.best_at[1])})"
            for trend, what in ((self._loss, "loss"), (self._accuracy, "score"))
            if trend.epochs >= ENOUGH_VALIDATION and trend.declines and trend.declines_since
        ]
        if not parts:
            return ""
        said = " and ".join(parts)
        return f"{said[0].upper()}{said[1:]}, but this is too short or too small for an alarm."

    @property
    def _left_out(self) -> str:
        """Which validation values were no finite numbers; empty if all were."""
        followed = {"val_loss": self._loss, "val_accuracy": self._accuracy}
        parts = []
        for name, count in self._state.unusable.items():
            total = count + followed[name].epochs
            share = f"{count} of {total}" if count < total else f"all {total}"
            parts.append(f"`{name}` was NaN or infinite in {share} epochs")
        return ", ".join(parts)

    @property
    def _missing(self) -> str:
        """Why validation does not decide."""
        if validated := max(self._loss.epochs, self._accuracy.epochs):
            few = f"Validation values at {validated} snapshot{'s'[: validated > 1]} are too few to judge by"
            return f"{few} ({self._left_out})" if self._left_out else few
        return f"Validation values cannot be used: {self._left_out}" if self._left_out else NO_VALIDATION

    @property
    def doubt(self) -> str:
        """How far "no sign of overtraining" can be trusted; empty where validation values are logged."""
        if self.judged_by != "training signals":
            return ""
        length = "short" if self._signals.epochs <= SHORT else "long"
        runs = f"of 3 to {SHORT} epochs" if length == "short" else f"of more than {SHORT} epochs"
        remedy = "" if self._followed() else " Log a validation loss for a firm answer."
        return (
            f"{self._missing}. In tests on other kinds of training, in runs {runs}, the training signals found "
            f"{fitted.FOUND[length]:.0%} of those that overtrained, and {fitted.HIDDEN[length]:.0%} of the runs "
            f"without a sign were overtrained.{remedy}"
        )

    def published(self) -> dict[str, float]:
        """What a logger or a checkpoint callback may monitor.

        ``overtraining/score``: probability that training on makes the weights worse. ``overtraining/keep``: falls with
        every epoch until an alarm, and is 0 where a validation value is clearly worse than its best, and from the alarm
        on. So a checkpoint callback with mode ``min`` keeps the newest weights of a run without an alarm, and otherwise
        those of the epoch before the alarm; it cannot go back further, as ``best_checkpoint`` does.
        """
        state = self._state
        moves = state.alarm is None and bool(state.latest) and state.best == state.latest
        keep = -state.latest[1] if moves else 0.0
        return {"overtraining/score": self.probability or 0.0, "overtraining/keep": keep}

    def state_dict(self) -> dict[str, Any]:
        """The state as JSON-able plain values."""
        return copy.deepcopy(
            {
                "detector": self.kind,
                "state": asdict(self._state),
                "signals": self._signals.state_dict(),
                "loss": self._loss.state_dict(),
                "accuracy": self._accuracy.state_dict(),
            }
        )

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore a saved state.

        Raises:
            ValueError: if it is not one of this detector's.
        """
        kept = check_state(state, self.kind)
        try:
            known = {f.name for f in fields(_State)}  # an older version saved others too
            self._state = _State(**{name: value for name, value in kept["state"].items() if name in known})
            self._signals.load_state_dict(kept["signals"])
            self._loss = ValidationTrend.of(kept["loss"])
            self._accuracy = ValidationTrend.of(kept["accuracy"])
        except (KeyError, TypeError) as error:
            raise ValueError(f"The saved state of the detector `{self.kind}` is of another version.") from error


def _joined(parts: list[str]) -> str:
    return ", ".join(parts[:-1]) + (" and " if len(parts) > 1 else "") + parts[-1] if parts else ""


def _words(signal: str) -> str:
    """What a signal says where it speaks for overtraining; empty if nothing."""
    return IN_WORDS.get(signal, ("", ""))[fitted.COEFFICIENTS.weights.get(signal, 0.0) > 0]
