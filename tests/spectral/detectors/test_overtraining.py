"""The judgement of overtraining on real small trainings, with validation values and without."""

import json
import math
from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest

from ww_callbacks.spectral.detectors import PRESETS, Observation, Overtraining, verdict
from ww_callbacks.spectral.detectors.overtraining import IN_WORDS
from ww_callbacks.spectral.detectors.signals import coefficients as fitted
from ww_callbacks.spectral.detectors.signals.training_signals import TrainingSignals, within_epoch_slope
from ww_callbacks.spectral.detectors.signals.validation_trend import ValidationTrend, noise_of

HEALTHY = ("digits/clean/0", "cnn/sgd/0", "language/clean/1", "lstm/short clean/0")
OVERTRAINED = ("cnn batchnorm/hard noise40/0", "signals/hard noise40/0")


@lru_cache
def runs():
    return json.loads((Path(__file__).parents[2] / "data" / "overtraining.json").read_text())


def series(name, without=()):
    for s in runs()[name]["snapshots"]:
        layers = {n: {k: math.nan if v is None else v for k, v in row.items()} for n, row in s["layers"].items()}
        metrics = {k: v for k, v in s["metrics"].items() if v is not None and k not in without}
        losses = () if "epoch_losses" in without else tuple(s["epoch_losses"])
        yield Observation(s["step"], s["epoch"], {} if "layers" in without else layers, metrics, epoch_losses=losses)


def replay(name, without=(), **settings):
    """The detector after the run, and the epoch of its alarm."""
    detector, alarm = Overtraining(**settings), None
    for observation in series(name, without):
        if detector.update(observation) and alarm is None:
            alarm = observation.epoch
    return detector, alarm


@pytest.mark.parametrize("preset", ["cautious", "eager"])
@pytest.mark.parametrize("name", HEALTHY)
def test_a_healthy_run_is_left_alone(name, preset):
    detector, alarm = replay(name, **PRESETS[preset])
    assert alarm is None
    last = list(series(name))[-1].epoch
    assert verdict([], insufficient=detector.insufficient, doubt=detector.doubt).state == "no sign of overtraining"
    assert detector.best_epoch > 0.6 * last  # a streak that was too short for an alarm may be continuing


@pytest.mark.parametrize("preset", ["cautious", "eager"])
@pytest.mark.parametrize("name", OVERTRAINED)
def test_an_overtrained_run_is_found_and_a_better_epoch_kept(name, preset):
    detector, alarm = replay(name, **PRESETS[preset])
    accuracy = runs()[name]["test_accuracy"]
    assert alarm is not None and alarm < len(accuracy) / 2
    kept = accuracy[int(detector.best_epoch)]
    assert kept > accuracy[-1] + 0.03 and kept > max(accuracy) - 0.12
    (finding,) = detector.findings()
    assert finding.may_stop and finding.severity == "critical" and finding.best_epoch == detector.best_epoch < alarm
    assert 0.3 < finding.confidence < 1 and finding.since_epoch == detector.best_epoch + 1
    assert f"Since epoch {finding.since_epoch:g} training looks" in finding.message
    assert detector.published()["overtraining/keep"] == 0.0


def test_the_reason_names_what_speaks_for_overtraining():
    weights = fitted.COEFFICIENTS.weights
    assert weights["log_error"] < 0 < weights["slope"]  # little error left and a rising loss speak for it
    assert set(IN_WORDS) <= set(weights)
    for name in OVERTRAINED:
        (finding,) = replay(name)[0].findings()
        said = [n for n in finding.evidence if n in IN_WORDS]
        for signal in said:
            words, high = IN_WORDS[signal][weights[signal] > 0], finding.evidence[signal]
            typical = fitted.COEFFICIENTS.typical[signal]
            assert words and (high > typical) == (weights[signal] > 0)
        assert any(IN_WORDS[n][weights[n] > 0] in finding.message for n in said)


def test_batch_norm_does_not_hide_label_noise():
    _, alarm = replay("cnn batchnorm/hard noise40/0")
    assert alarm is not None and alarm <= 15


@pytest.mark.parametrize("missing", ["train_accuracy", "learning_rate", "first_loss", "epoch_losses", "layers"])
@pytest.mark.parametrize("name", HEALTHY)
def test_what_is_not_known_raises_no_alarm(name, missing):
    assert replay(name, (missing,))[1] is None


def test_validation_values_decide_where_they_are_logged():
    detector, alarm = replay("cnn batchnorm/hard noise40/0/validation")
    assert detector.judged_by == "validation" and alarm is not None
    (finding,) = detector.findings()
    assert "Validation has been getting worse" in finding.message and finding.confidence is None
    snapshots = runs()["cnn batchnorm/hard noise40/0/validation"]["snapshots"]
    losses = [s["metrics"].get("val_loss", math.inf) for s in snapshots]
    lowest = int(np.argmin(losses[: int(alarm) + 1]))
    assert lowest <= detector.best_epoch < alarm and losses[int(detector.best_epoch)] <= 1.05 * losses[lowest]
    healthy, alarm = replay("digits/clean/0/validation")
    assert alarm is None and healthy.doubt == "" and verdict([], doubt=healthy.doubt).state == "healthy"


def _validated(losses, scores=None, **settings):
    detector = Overtraining(**settings)
    for e, loss in enumerate(losses, start=1):
        metrics = {"train_loss": 1 / e, "val_loss": loss}
        if scores is not None:
            metrics["val_accuracy"] = scores[e - 1]
        found = detector.update(Observation(10 * e, float(e), {}, metrics))
    return detector, found


FALLING = [1.0, 0.8, 0.7, 0.65]
RISING = [*FALLING, 0.75, 0.85, 0.95, 1.1]


def test_a_fine_tuning_whose_validation_loss_rises_is_found_within_eight_epochs():
    detector, (finding,) = _validated(RISING)
    assert finding.severity == "critical" and detector.best_epoch == 4.0 and finding.since_epoch in (5.0, 6.0)


def test_the_epoch_to_keep_is_the_newest_as_good_as_the_best():
    flat = [1.0, 0.9, 0.8, 0.8004, 0.8001, 0.8003]
    assert _validated(flat)[0].best_epoch == 6.0
    assert _validated([*flat, 0.86, 0.93])[0].best_epoch == 6.0  # clearly worse: not kept
    assert _validated([*flat, 0.8002, 0.8003, 0.8001])[0].best_epoch == 6.0  # at most three epochs after the best
    assert _validated([*flat, 0.86, 0.79, 0.86])[0].best_epoch == 8.0
    assert _validated([1.0, 0.9, 0.8, 0.801, 0.802])[0].best_epoch == 4.0  # grows epoch by epoch: not noise


def test_overconfidence_is_told_from_a_falling_score():
    _, (soft,) = _validated(RISING, [0.5, 0.6, 0.7, 0.72, 0.72, 0.73, 0.74, 0.74])
    assert "overconfident" in soft.message and soft.severity == "warning" and not soft.may_stop
    assert "8 values of the validation loss and 8 values of the validation score" in soft.message
    _, (hard,) = _validated(RISING, [0.5, 0.6, 0.7, 0.72, 0.6, 0.55, 0.5, 0.45])
    assert hard.severity == "critical" and hard.may_stop and "best 0.72" in hard.message
    _, (eager,) = _validated(RISING, [0.5, 0.6, 0.7, 0.72, 0.72, 0.73, 0.74, 0.74], **PRESETS["eager"])
    assert eager.may_stop


SLIPS = [0.5, 0.6, 0.7, 0.705, 0.702, 0.7, 0.704, 0.702]


@pytest.mark.parametrize(
    ("losses", "scores", "said"),
    [
        ([0.5, 0.45, 0.62], [0.8, 0.83, 0.79], "the validation loss is worse than its best since epoch 3"),
        ([1.0, 1.05, 1.09], None, "(1.09, best 1 at epoch 1)"),
        (
            [0.5, 0.4, 0.3, 0.2, 0.1, 0.09],
            [0.6, 0.9, 0.85, 0.8, 0.75, 0.7],
            "the validation score is worse than its best",
        ),
    ],
)
def test_healthy_is_not_said_where_validation_is_clearly_worse_at_the_end(losses, scores, said):
    detector, found = _validated(losses, scores)
    reached = verdict(found, decline=detector.decline, validation=detector.validation)
    assert not found and reached.state == "watch" and said.lower() in reached.reason.lower()


def test_noise_at_the_end_is_healthy():
    for losses, scores in (
        ([1.0, 0.8, 0.6, 0.5, 0.51, 0.505], None),
        ([1.0, 0.8, 0.7, 0.6, 0.5, 0.45, 0.4, 0.38], SLIPS),
    ):
        detector, found = _validated(losses, scores)
        assert not found and detector.decline == ""


def test_a_score_that_slips_by_little_still_holds():
    losses = [1.0, 0.8, 0.7, 0.65, 0.75, 0.85, 0.95, 1.1]
    _, (finding,) = _validated(losses, SLIPS)
    assert finding.severity == "warning" and "overconfident" in finding.message


@pytest.mark.parametrize(
    "losses", [RISING, [1.0, 0.9, 0.8, 0.801, 0.83, 0.9, 1.0], [0.5, 0.4, 0.402, 0.401, 0.4, 0.5, 0.6, 0.7]]
)
def test_the_rise_begins_after_the_epoch_to_keep(losses):
    detector, (finding,) = _validated(losses)
    assert detector.best_epoch < finding.since_epoch <= detector.best_epoch + 2


def test_a_late_rise_by_a_fifth_is_found():
    losses = [1.0 - 0.05 * e for e in range(10)] + [0.56, 0.55, 0.6, 0.66, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95]
    detector, found = _validated(losses)
    assert found and detector.best_epoch == 10.0


def test_an_alarm_by_validation_shows_no_numbers_of_the_training_signals():
    shown = {"score", "threshold", "probability"}
    detector, _ = replay("cnn batchnorm/hard noise40/0/validation")
    assert detector.probability is not None and not shown & set(detector.findings()[0].evidence)
    assert shown <= set(replay(OVERTRAINED[0])[0].findings()[0].evidence)
    (finding,) = _validated(RISING)[1]
    assert "values of the validation loss" in finding.message and "epoch 4 (step 40)" in finding.recommendation


def test_what_validation_rests_on_is_named():
    detector, _ = _validated(FALLING[:3])
    said = verdict([], doubt=detector.doubt, validation=detector.validation).reason
    assert said.startswith("Validation does not get worse in 3 values of the validation loss, and")
    detector, _ = _validated([*FALLING[:3], math.nan])
    assert detector.validation.endswith("loss (`val_loss` was NaN or infinite in 1 of 4 epochs)")
    detector, _ = replay("digits/clean/0")
    for _ in range(3):
        detector.update(Observation(10**7, 10.0**6, {}, {"val_loss": math.nan}))
    assert detector.doubt.startswith(
        "Validation values cannot be used: `val_loss` was NaN or infinite in all 3 epochs."
    )


def test_noise_in_the_validation_loss_raises_no_alarm():
    rng = np.random.default_rng(0)
    for seed in range(20):
        rng = np.random.default_rng(seed)
        _, found = _validated(list(0.5 + 1 / np.arange(1, 60) + rng.normal(0, 0.03, 59)))
        assert not found


def test_accuracy_at_chance_opens_nothing():
    detector = Overtraining()
    for e in range(1, 30):
        layers = {"a": {"frobenius_norm": 5.0 + 0.01 * e, "distance_from_init": 0.1 * e, "relative_update_norm": 0.01}}
        metrics = {"train_loss": 2.303, "first_loss": 2.31, "train_accuracy": 0.1, "learning_rate": 1e-3}
        assert not detector.update(Observation(10 * e, float(e), layers, metrics, epoch_losses=(2.303,) * 10))


def test_what_is_missing_is_named():
    detector = Overtraining()
    assert detector.insufficient == "no snapshot at the end of an epoch has been measured yet"
    detector.update(Observation(5, 1.0, {"a": {}}, {}))
    assert "no training loss is reported" in detector.insufficient
    detector, layers = Overtraining(), {"a": {"frobenius_norm": 1.0}}
    detector.update(Observation(5, 1.0, layers, {"train_loss": 1.0}))
    assert "the second" in detector.insufficient
    detector.update(Observation(10, 2.0, layers, {"train_loss": 0.9}))
    assert detector.insufficient == "" and "No validation values are logged" in detector.doubt


@pytest.mark.parametrize(
    ("layers", "frozen", "why"),
    [
        ({}, (), "no layer of the model has a matrix"),
        ({"a": {"frobenius_norm": math.nan, "stable_rank": 2.0}}, (), "none of frobenius_norm, distance_from_init, "),
        ({"a": {"frobenius_norm": 2.0}}, ("a",), "all layers with a matrix are frozen"),
    ],
)
def test_losses_alone_are_not_judged(layers, frozen, why):
    """The estimate was fitted to losses and weights together."""
    detector = Overtraining()
    for e in range(1, 30):  # memorised, by its losses
        metrics = {"train_loss": 2.0 * 0.7**e, "first_loss": 2.3, "learning_rate": 1e-3}
        losses = tuple(2.0 * 0.7**e * (1 + 0.02 * k) for k in range(10))
        snapshot = Observation(10 * e, float(e), layers, metrics, losses, frozen=frozenset(frozen))
        assert not detector.update(snapshot)
    assert detector.judged_by == "" and detector.probability is None and detector.doubt == ""
    assert detector.insufficient.startswith(why) and "Log a validation loss" in detector.insufficient
    for e in range(30, 33):
        detector.update(Observation(10 * e, float(e), layers, {"train_loss": 1e-4, "val_loss": 1.0 / e}))
    assert detector.judged_by == "validation" and detector.insufficient == ""


@pytest.mark.parametrize("name", [*OVERTRAINED, "language/hard tiny/0/validation"])
@pytest.mark.parametrize("at", [1, 4, 9])
def test_a_restored_detector_goes_on_as_an_undisturbed_one(name, at):
    whole, first, second = Overtraining(), Overtraining(), Overtraining()
    for i, observation in enumerate(series(name)):
        expected = whole.update(observation)
        if i == at:
            second.load_state_dict(json.loads(json.dumps(first.state_dict(), allow_nan=False)))
        found = (first if i < at else second).update(observation)
        assert found == expected
    assert second.state_dict() == whole.state_dict()


def test_a_state_of_another_kind_or_version_is_refused():
    with pytest.raises(ValueError, match="overtraining"):
        Overtraining().load_state_dict({"detector": "explosion"})
    with pytest.raises(ValueError, match="another version"):
        Overtraining().load_state_dict({"detector": "overtraining", "score": 1.0})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"threshold": "high"}, "threshold"),
        ({"streak": 2}, "between 0 and 1"),
        ({"margin": -1}, "at least 0"),
        ({"least": 0}, "1 or more"),
    ],
)
def test_wrong_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        Overtraining(**settings)


def test_the_slope_is_that_of_least_squares():
    losses = np.random.default_rng(0).random(10)
    x = (np.arange(10) + 0.5) / 10
    (slope, _), covariance = np.polyfit(x, losses, 1, cov="unscaled")
    residuals = losses - np.polyval(np.polyfit(x, losses, 1), x)
    error = math.sqrt(covariance[0, 0] * (residuals @ residuals) / 8)
    assert within_epoch_slope(losses) == pytest.approx((slope, error))
    assert all(map(math.isnan, within_epoch_slope([1.0, math.nan, 2.0])))


def test_a_diverging_loss_is_no_error():
    signals = TrainingSignals()
    for e, loss in enumerate([1.0, math.inf, math.nan, 0.0, 1e300], start=1):
        signals.update(Observation(e, float(e), {"a": {"frobenius_norm": math.nan}}, {"train_loss": loss}))
    assert signals.epochs == 3  # infinity and NaN are no losses


def test_the_noise_is_robust_and_a_trend_survives_its_state():
    assert noise_of([0.1, -0.1, 0.1, -0.1, 9.0]) < 0.4 and noise_of([1.0, 2.0]) == 0.0
    trend = ValidationTrend(higher_is_better=True)
    for e, value in enumerate([0.5, 0.6, 0.7, math.nan, 0.3, 0.25, 0.2]):
        trend.update(value, e, float(e))
    assert trend.best == 0.7 and trend.best_at == [2, 2.0] and trend.streak == 3 and trend.since == [4, 4.0]
    assert ValidationTrend.of(json.loads(json.dumps(trend.state_dict()))) == trend


def test_few_validation_values_are_not_called_none():
    detector = Overtraining()
    for observation in list(series("digits/clean/0"))[:4]:
        metrics = observation.metrics | ({"val_loss": 1.0} if observation.epoch in (2, 3) else {})
        detector.update(Observation(observation.step, observation.epoch, observation.layers, metrics))
    assert detector.judged_by == "training signals"
    assert detector.doubt.startswith("Validation values at 2 snapshots are too few")


def test_the_signals_of_a_fine_tuning_are_those_of_what_is_trained():
    """LoRA's update and not its sum with the frozen weight, no frozen layer; the output is the last trained layer."""

    def row(distance, norm, update):
        return {"distance_from_init": distance, "frobenius_norm": norm, "relative_update_norm": update}

    signals, names = TrainingSignals("head"), ("q.lora_update[a]", "v.lora_update[a]")
    for epoch in range(1, 9):
        moved = 0.1 * epoch**0.5
        layers = {"embedding": row(0.0, 50.0, 0.0)}
        for name in names:
            layers[name] = row(moved, moved, 0.2)
            layers[name.replace("lora_update[a]", "merged_weight")] = row(moved, 9.0, 1e-4)
        layers["head"] = row(0.0, 40.0, 0.0)
        found = signals.update(
            Observation(10 * epoch, epoch, layers, {"train_loss": 1.0 / epoch}, frozen=frozenset(("embedding", "head")))
        )
    assert found["output_update"] == found["hidden_update"] == pytest.approx(math.log(0.2))
    assert found["output_exponent"] == found["norm_exponent"] == pytest.approx(0.5, abs=1e-6)


@pytest.mark.parametrize("name", ["val_loss", "val_accuracy"])
def test_an_alarm_is_withdrawn_where_validation_reaches_a_new_best(name):
    """A loss that rises while the learning rate warms up and falls again afterwards."""
    values = [1.0, 0.9, 0.8, 1.0, 1.1, 1.2, 1.3, 1.4, 1.2, 0.9, 0.7, 0.71, 0.69]
    detector, found = Overtraining(), []
    for epoch, value in enumerate(values, 1):
        metrics = {"train_loss": 1.0 / epoch, name: value if name == "val_loss" else 2.0 - value}
        found.append(detector.update(Observation(10 * epoch, float(epoch), {}, metrics)))
    assert found[7] and found[7][0].best_epoch == 3.0 and found[9]
    assert not any(found[10:]) and detector.best_epoch == 13.0
    assert detector.published()["overtraining/keep"] < 0


@pytest.mark.parametrize(
    ("steps", "losses", "why"),
    [
        (1, [1.0, 0.5, 0.25, 0.12, 0.06, 0.03], "an epoch has one optimiser step"),
        (2, [1.0, 0.3, 0.02, 0.01, 1e-3, 1e-4], "the loss fell to a tenth within 6 optimiser steps"),
        (20, [0.08, 0.04, 0.02, 0.01, 0.005, 0.002], "the loss fell to a tenth within 20 optimiser steps"),
        (4, [1.0, 0.5, 0.3, 0.2, 0.12, 0.01], ""),
    ],
)
def test_few_huge_steps_are_not_judged_without_validation(steps, losses, why):
    """Full-batch training and LBFGS: all signals are as late in a memorising run."""
    detector = Overtraining()
    for epoch, loss in enumerate([math.nan, *losses]):
        layers = {"fc": {"frobenius_norm": 1.0 + epoch, "distance_from_init": 0.1 + epoch, "relative_update_norm": 0.3}}
        metrics = {"train_loss": loss, "first_loss": 1.0} if epoch else {}
        found = detector.update(Observation(steps * epoch, float(epoch), layers, metrics))
    assert bool(detector.insufficient) is bool(why) and detector.insufficient.startswith(why)
    if why:
        assert not found and detector.probability is None
        again = Overtraining()
        again.load_state_dict(detector.state_dict())
        assert again.insufficient == detector.insufficient
        for epoch, loss in enumerate([1.0, 0.9, 1.1, 1.3, 1.5, 1.7, 1.9], len(losses) + 1):
            found = again.update(Observation(steps * epoch, float(epoch), {}, {"train_loss": 1e-3, "val_loss": loss}))
        assert found and again.judged_by == "validation"


def test_steps_that_are_counted_anew_after_epochs_of_an_earlier_training_are_not_few():
    detector = Overtraining()
    for epoch in range(50, 60):
        layers = {"fc": {"frobenius_norm": 1.0 + epoch, "distance_from_init": 0.1 + epoch, "relative_update_norm": 0.3}}
        metrics = {"train_loss": 100.0 / epoch} if epoch > 50 else {}
        detector.update(Observation(4 * (epoch - 50), float(epoch), layers, metrics))
    assert not detector.insufficient


def test_no_run_of_the_benchmark_is_one_of_few_huge_steps():
    for name in runs():
        detector, _ = replay(name)
        assert not detector.insufficient
