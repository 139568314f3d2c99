"""What the adapter reads of Lightning beyond its documented interface: still there, and missed with a word."""

import importlib
from datetime import timedelta
from types import SimpleNamespace

import pytest

pl = pytest.importorskip("pytorch_lightning", reason="needs the extra lightning")
import torch

from tests.adapters.nets import Validated, fit, seeded
from tests.lightning.loops import During
from ww_callbacks.lightning import private


@pytest.fixture(autouse=True)
def nothing_said(monkeypatch):
    monkeypatch.setattr(private, "_said", set())


@pytest.mark.parametrize("tree", ["pytorch_lightning", "lightning.pytorch"])
def test_checkpoints_tell_when_they_look(tree):
    callbacks = importlib.import_module(f"{tree}.callbacks")
    saver = callbacks.ModelCheckpoint(every_n_train_steps=3)
    assert (saver._every_n_train_steps, saver._train_time_interval, saver._last_time_checked) == (3, None, None)
    timed = callbacks.ModelCheckpoint(train_time_interval=timedelta(seconds=2))
    assert timed._train_time_interval == timedelta(seconds=2)


@pytest.mark.parametrize("tree", ["pytorch_lightning", "lightning.pytorch"])
def test_callbacks_that_average_are_known(tree):
    callbacks = importlib.import_module(f"{tree}.callbacks")
    averaging = callbacks.StochasticWeightAveraging(swa_lrs=0.1)
    assert private.averages_weights(averaging) and private.averaged_model(averaging) is None
    assert not private.averages_weights(callbacks.ModelCheckpoint())


def test_the_loop_tells_its_steps_and_whether_a_validation_comes(caplog):
    seen = []
    look = During(lambda t: seen.append((private.logging_step(t, t.global_step), private.validates_now(t))))
    fit(seeded(Validated), look, epochs=2, validate=True, val_check_interval=2)
    assert seen == [(0, False), (1, True), (2, False), (3, True), (4, False), (5, True), (6, False), (7, True)]
    assert not [r for r in caplog.records if r.name == "ww_callbacks"]


def test_torchs_writer_has_its_event_file(tmp_path):
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(str(tmp_path)) as writer:
        assert callable(private.event_file(writer))
        assert private.event_file(writer).__name__ == "add_summary"


def test_torch_calls_us_after_steps_of_any_optimiser():
    from torch.optim.optimizer import register_optimizer_step_post_hook

    seen = []
    handle = register_optimizer_step_post_hook(lambda optimizer, *others: seen.append(optimizer))
    try:
        parameter = torch.nn.Parameter(torch.ones(2))
        parameter.grad = torch.ones(2)
        optimizer = torch.optim.Adam([parameter])
        optimizer.step()
    finally:
        handle.remove()
    assert seen == [optimizer]


@pytest.mark.parametrize(
    ("ask", "answer", "consequence"),
    [
        (lambda: private.saves_at_step(SimpleNamespace(every_n_epochs=1), None), False, "_every_n_train_steps"),
        (
            lambda: private.logging_step(SimpleNamespace(fit_loop=SimpleNamespace(epoch_loop=None)), 7),
            6,
            "away from yours",
        ),
        (
            lambda: private.validates_now(SimpleNamespace(fit_loop=SimpleNamespace(epoch_loop=None))),
            False,
            "validation",
        ),
        (lambda: private.event_file(None)(None, 0), None, "TensorBoard does not get our values"),
    ],
)
def test_what_is_gone_is_said_once_and_training_goes_on(ask, answer, consequence, caplog):
    assert ask() == answer and ask() == answer
    (message,) = [r.message for r in caplog.records if r.name == "ww_callbacks"]
    assert consequence in message and message.endswith("Training continues.")
