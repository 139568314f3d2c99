"""What the detectors find, put together."""

import math

import pytest

from ww_callbacks.diagnosis.diagnosis import Diagnosis
from ww_callbacks.faults import Faults
from ww_callbacks.settings import Settings
from ww_callbacks.spectral.detectors import Finding, Observation, Overtraining
from ww_callbacks.spectral.layers.spec import LayerSpec


@pytest.fixture
def memorising(monkeypatch):
    """An overtraining detector that finds it in every snapshot."""
    found = Finding("overtraining", "critical", (), {}, 1, 1.0, "It memorises.", "Take epoch 1.", may_stop=True)
    monkeypatch.setattr(Overtraining, "update", lambda self, observation: [found])


def judged(norms, losses):
    diagnosis = Diagnosis(Settings(), [LayerSpec("a", (), "dense", "", (9, 9), ((9, 9),))], False, Faults(strict=True))
    kinds = []
    before = norms[0]
    for i, (norm, loss) in enumerate(zip(norms, losses, strict=True)):
        values = {"frobenius_norm": norm, "relative_update_norm": abs(norm - before) / before, "scale_collapse": 0.0}
        metrics = {"train_loss": loss} if i else {}
        layers = {"a": values}
        observation = Observation(i, float(i), layers, metrics, status={"a": "ok"}, changed={"a": True})
        diagnosis.judge(observation)
        kinds.append({alert.kind for alert in diagnosis.alerts})
        before = norm
    return diagnosis, kinds


def test_weights_that_blow_up_are_not_said_to_memorise(memorising):
    norms = [1.0, 1.0, 1.0, *(3.0**i for i in range(1, 8))]
    diagnosis, kinds = judged(norms, [math.nan, 2.0, 1.0, *[50.0] * 7])
    first = next(i for i, found in enumerate(kinds) if "explosion" in found)
    assert diagnosis.verdict.state == "diverging"
    assert "memorises" not in diagnosis.verdict.reason and first < 9


def test_weights_that_are_well_may_be_said_to_memorise(memorising):
    diagnosis, kinds = judged([1.0] * 5, [math.nan, 2.0, 1.0, 0.5, 0.4])
    assert kinds[-1] == {"overtraining"} and diagnosis.verdict.state == "overtraining"


def test_a_layer_that_shrinks_does_not_explode():
    norms = [10.0, 10.0, 10.0, *(10.0 * 0.3**i for i in range(1, 8))]
    _, kinds = judged(norms, [math.nan, 2.0, 1.0, *[2.3] * 7])
    assert "explosion" not in kinds[-1]


def test_the_overtraining_detector_sees_one_snapshot_an_epoch_whatever_the_cadence(monkeypatch):
    seen = []
    monkeypatch.setattr(Overtraining, "update", lambda self, observation: seen.append(observation.epoch) or [])
    diagnosis = Diagnosis(Settings(), [LayerSpec("a", (), "dense", "", (9, 9), ((9, 9),))], False, Faults(strict=True))
    for i in range(9):
        diagnosis.judge(Observation(20 * i, 20 * i / 29, {"a": {}}, {}, status={"a": "ok"}, changed={"a": True}))
    assert seen == [20 * i / 29 for i in (0, 2, 3, 5, 6, 8)]


def validated(losses, more=()):
    """The diagnosis of a run with these validation losses, and further snapshots with a layer in this status."""
    diagnosis = Diagnosis(Settings(), [LayerSpec("a", (), "dense", "", (9, 9), ((9, 9),))], False, Faults(strict=True))
    for i, loss in enumerate([math.nan, *losses, *[math.nan] * len(more)]):
        status = {"a": "ok" if i <= len(losses) else more[i - len(losses) - 1]}
        metrics = {"train_loss": 1.0 / i} | ({"val_loss": loss} if loss == loss else {}) if i else {}
        layers = {"a": {"frobenius_norm": 1.0 + 0.1 * i}}
        diagnosis.judge(Observation(10 * i, float(i), layers, metrics, status=status, changed={"a": True}))
    return diagnosis


@pytest.mark.parametrize(
    ("losses", "more", "state", "best", "advice"),
    [
        ([1.0, 0.8, 0.7, 0.6], (), "healthy", 4, ""),
        ([1.0, 0.8, 0.7, 0.79, 0.82], (), "healthy", 3, "Keep the weights of epoch 3 (step 30)."),
        ([1.0, 0.7, 0.8, 0.9, 1.0, 1.1], (), "overtraining", 2, "Keep the weights of epoch 2 (step 20). To train"),
        ([1.0, 0.9, 0.8, 1.0, 1.1, 1.2, 1.3, 1.4, 1.2, 0.9, 0.7], (), "watch", 11, "To train longer"),
        ([1.0, 0.8, 0.6, 0.9], ("non-finite",), "broken", 3, "Go back to the snapshot of epoch 4"),
    ],
)
def test_the_verdict_names_the_epoch_whose_weights_are_kept_in_every_state(losses, more, state, best, advice):
    diagnosis = validated(losses, more)
    reached = diagnosis.verdict
    assert (reached.state, reached.best_epoch, reached.best_step) == (state, best, 10 * best)
    assert (diagnosis.best_step, diagnosis.best_epoch) == (10 * best, best)
    assert reached.recommendation.startswith(advice) and bool(advice) is bool(reached.recommendation)
    again = validated([])
    again.load_state_dict(diagnosis.state_dict())
    assert (again.best_step, again.best_epoch) == (10 * best, best)
    assert again.steps_to_keep == diagnosis.steps_to_keep


def test_before_the_first_epoch_no_weights_are_the_best():
    diagnosis = validated([])
    assert diagnosis.best_step is diagnosis.verdict.best_step is diagnosis.verdict.best_epoch is None
