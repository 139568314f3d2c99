"""What the callbacks show the judgement of overtraining is what the benchmark that fitted it has measured."""

import pytest

pytest.importorskip("torch")

from benchmarks.overfitting import real_loops

NEEDS = {"plain": "torch", "lightning": "pytorch_lightning", "huggingface": "transformers"}
EPOCHS = 3


@pytest.fixture(scope="module")
def trained():
    train, test = real_loops.data("clean", 0)
    return train, real_loops.reference(train, test, 0, EPOCHS)[0]


@pytest.mark.parametrize("loop", NEEDS)
def test_a_callback_sees_what_the_replay_sees(tmp_path, loop, trained, monkeypatch):
    pytest.importorskip(NEEDS[loop])
    train, expected = trained
    monkeypatch.setattr(real_loops.Recorder, "seen", [])
    real_loops.LOOPS[loop](train, 0, EPOCHS, str(tmp_path))
    seen = real_loops.Recorder.seen
    assert [(o.step, o.epoch) for o in seen] == [(o.step, o.epoch) for o in expected]
    for live, replayed in zip(seen[1:], expected[1:], strict=True):
        for name, value in replayed.metrics.items():
            assert live.metrics[name] == pytest.approx(value, rel=1e-5), name
        assert live.epoch_losses == pytest.approx(replayed.epoch_losses, rel=0.02)  # parts that share a step
    live, replayed = (real_loops.judged(series, "cautious")[0] for series in (seen, expected))
    assert real_loops.difference(live, replayed) < 1e-3
