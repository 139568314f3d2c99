"""The overtraining detector on real runs, and what its score must not depend on."""

import json
import time

import pytest

from tests.spectral.detectors.series import BROKEN, HEALTHY, OVERTRAINED, observations, replay, runs
from ww_callbacks.spectral.detectors import Observation, Overtraining, default_detectors, needed_quantities, verdict


def _first(found):
    return next((i for i, findings in enumerate(found) if findings), None)


@pytest.mark.parametrize("name", OVERTRAINED)
def test_an_overtrained_run_is_found_and_its_best_epoch_named(name):
    test = runs()[name]["test_accuracy"]
    assert runs()[name]["overtrained"]
    found = replay(Overtraining(), name)
    at = _first(found)
    finding = found[at][0]
    assert finding.may_stop and finding.severity == "critical"
    regret = max(test) - test[round(finding.best_epoch)]
    assert regret < 0.04 < max(test) - test[-1]
    assert finding.best_step == runs()[name]["steps"][round(finding.best_epoch)]
    assert finding.layers[0] == list(runs()[name]["layers"])[-1]
    assert 0.5 < finding.confidence <= 1
    assert f"epoch {finding.best_epoch:g}" in finding.recommendation


@pytest.mark.parametrize("name", [*HEALTHY, "digits-tiny-0"])
def test_a_run_that_does_not_overtrain_is_let_alone(name):
    assert not runs()[name]["overtrained"]
    assert _first(replay(Overtraining(), name)) is None


@pytest.mark.parametrize("name", OVERTRAINED)
@pytest.mark.parametrize("without", [("train_accuracy",), ("learning_rate",)])
def test_it_works_with_less_told(name, without):
    assert _first(replay(Overtraining(), name, without=without)) is not None


def test_without_training_loss_and_accuracy_it_says_that_it_cannot_judge():
    detector = Overtraining()
    assert _first(replay(detector, "digits-noise40-0", without=("train_loss", "train_accuracy"))) is None
    assert detector.score is None
    assert "training loss" in detector.insufficient
    assert verdict([], insufficient=detector.insufficient).state == "insufficient evidence"


def test_a_few_snapshots_do_not_suffice():
    detector = Overtraining()
    assert detector.insufficient
    for observation, _ in zip(observations("digits-clean-0"), range(5), strict=False):
        detector.update(observation)
    assert "epochs" in detector.insufficient
    replay(again := Overtraining(), "digits-clean-0")
    assert again.insufficient == ""


def _scores(**how):
    detector, scores = Overtraining(), []
    for observation in observations("mnist-noise20-1", **how):
        detector.update(observation)
        scores.append(detector.score)
    return [s for s in scores if s is not None]


@pytest.mark.parametrize("how", [{"scale": 1e-3}, {"scale": 1e4}, {"rate_unit": 100.0}])
def test_the_score_does_not_depend_on_the_scale_of_weights_or_rate(how):
    assert _scores(**how) == pytest.approx(_scores(), abs=1e-9)


@pytest.mark.parametrize("name", ["digits-noise40-0", "pydoc-clean-1", *BROKEN])
@pytest.mark.parametrize("which", range(len(default_detectors())))
def test_an_interrupted_run_gives_what_an_uninterrupted_one_gives(name, which):
    whole = replay(default_detectors("cautious")[which], name)
    detector, parts = default_detectors("cautious")[which], []
    for i, observation in enumerate(observations(name)):
        parts.append(detector.update(observation))
        if i % 3 == 0:
            kept = json.loads(json.dumps(detector.state_dict(), allow_nan=False))
            detector = default_detectors("cautious")[which]
            detector.load_state_dict(kept)
    assert parts == whole


def test_a_state_of_another_detector_is_refused():
    first, *_, last = default_detectors()
    with pytest.raises(ValueError, match=r"overtraining.*non-finite"):
        last.load_state_dict(first.state_dict())


def test_memory_stays_bounded_over_a_long_run():
    detector, sizes = Overtraining(), []
    for i in range(1, 1501):
        layer = {"frobenius_norm": 10 * i**0.2, "distance_from_init": i**0.3}
        detector.update(Observation(i, float(i), {"a": layer, "b": layer}, {"train_loss": 1.0}))
        sizes.append(len(json.dumps(detector.state_dict())))
    assert max(sizes[500:]) < 1.1 * max(sizes[:500])
    assert detector.score == pytest.approx(0.0, abs=0.05)  # a power law has a constant exponent


def test_snapshots_in_which_nothing_was_learned_are_passed_over():
    plain, padded = Overtraining(), Overtraining()
    for observation in observations("digits-noise40-0"):
        plain.update(observation)
        padded.update(observation)
        padded.update(observation)
    assert padded.score == plain.score
    assert padded.best_epoch == plain.best_epoch


def test_what_a_checkpoint_callback_may_monitor():
    # mode min: the file that is kept must be the one of the epoch that the detector names
    for name in OVERTRAINED:
        detector, lowest, kept = Overtraining(), float("inf"), None
        for observation in observations(name):
            detector.update(observation)
            published = detector.published()
            if observation.step and published["overtraining/keep"] < lowest:
                lowest, kept = published["overtraining/keep"], observation.epoch
        assert kept == detector.best_epoch
    detector = Overtraining(onset=0.27)  # never past the onset: the last epoch is kept
    replay(detector, "digits-clean-0")
    assert detector.published()["overtraining/keep"] == -runs()["digits-clean-0"]["epochs"][-1]


def test_the_output_layer_can_be_named():
    found = replay(Overtraining(output="3.weight"), "digits-noise40-0")
    assert found[_first(found)][0].layers[0] == "3.weight"
    missing = Overtraining(output="nowhere")
    replay(missing, "digits-noise40-0")
    assert "nowhere" in missing.insufficient


def test_the_presets():
    off, cautious, eager = (default_detectors(p)[-1] for p in ("off", "cautious", "eager"))
    assert not off.stops and cautious.stops and eager.stops
    assert eager.threshold < cautious.threshold == off.threshold
    assert not any(f.may_stop for findings in replay(off, "digits-noise40-0") for f in findings)
    replaced = default_detectors("eager", overtraining={"threshold": 0.5})[-1]
    assert replaced.threshold == 0.5
    assert "distance_from_init" in needed_quantities(default_detectors())


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"threshold": -1}, "threshold"),
        ({"onset": 0.5}, "onset"),
        ({"persistence": 0}, "persistence"),
        ({"quorum": 4}, "quorum"),
        ({"thresold": 0.2}, "thresold"),
    ],
)
def test_wrong_settings_are_refused_early(arguments, match):
    with pytest.raises(ValueError, match=match):
        default_detectors("cautious", overtraining=arguments)


def test_an_unknown_preset_is_refused():
    with pytest.raises(ValueError, match="cautious"):
        default_detectors("bold")


def test_judging_costs_less_than_a_millisecond_a_layer():
    detectors = default_detectors("cautious")
    series = list(observations("pydoc-noise40-1"))
    start = time.process_time()
    for observation in series:
        for detector in detectors:
            detector.update(observation)
    layers = len(series[0].layers)
    assert (time.process_time() - start) / (len(series) * layers) < 1e-3
