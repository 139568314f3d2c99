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
