"""The same for the HF Trainer, whether it restores its callbacks or not."""

import pytest

transformers = pytest.importorskip("transformers", reason="needs the extra huggingface")
import torch
from torch import nn
from transformers import Trainer, TrainingArguments, set_seed

from tests.lifecycle.records import Stop, assert_same
from ww_callbacks.huggingface import SpectralCallback, private

# The Trainer keeps only a float32 sum of the losses since it was started: their mean is not the same to the last bit.
ROUNDED = ("metrics/train_loss", "overtraining/score", "overtraining/keep")


class Rows(torch.utils.data.Dataset):
    def __init__(self, count=32):
        self.x = torch.randn(count, 12, generator=torch.Generator().manual_seed(0))

    def __len__(self):
        return len(self.x)

    def __getitem__(self, index):
        return {"x": self.x[index], "labels": self.x[index, :3].argmax()}


class Model(nn.Module):
    def __init__(self, stop_at=None):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(12, 24), nn.ReLU(), nn.Linear(24, 24), nn.Dropout(0.1), nn.Linear(24, 3))
        self.calls, self.stop_at = 0, stop_at

    def forward(self, x, labels):
        self.calls += 1
        if self.calls == self.stop_at:
            raise Stop("the user's own error")
        return {"loss": nn.functional.cross_entropy(self.net(x), labels)}


def train(folder, callback, model, resume=None, **options):
    set_seed(0)
    arguments = {
        "num_train_epochs": 4,
        "per_device_train_batch_size": 8,
        "save_strategy": "epoch",
        "report_to": [],
        "use_cpu": True,
        "disable_tqdm": True,
        "logging_strategy": "no",
        "learning_rate": 1e-2,
    } | options
    trainer = Trainer(
        model=model,
        args=TrainingArguments(output_dir=str(folder), **arguments),
        train_dataset=Rows(),
        callbacks=callback if isinstance(callback, list) else [callback],
    )
    trainer.train(resume_from_checkpoint=resume)
    return trainer


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    set_seed(0)
    train(folder, SpectralCallback(log_dir=str(folder / "record"), verbose=0, every_n_epochs=1), Model())
    return folder / "record"


@pytest.mark.parametrize(("epoch", "restored"), [(1, False), (2, True), (3, False)])
def test_at_any_epoch(tmp_path, whole, epoch, restored):
    settings = {"log_dir": str(tmp_path / "record"), "verbose": 0, "every_n_epochs": 1}
    options = {"restore_callback_states_from_checkpoint": restored}
    set_seed(0)
    with pytest.raises(Stop, match="the user's own error"):
        train(tmp_path, SpectralCallback(**settings), Model(stop_at=4 * epoch + 3), **options)
    trainer = train(tmp_path, SpectralCallback(**settings), Model(), resume=True, **options)
    (callback,) = (c for c in trainer.callback_handler.callbacks if isinstance(c, SpectralCallback))
    assert callback.directory == tmp_path / "record" and callback.settings.every_n_epochs == 1
    assert_same(whole, tmp_path / "record", ROUNDED)


def test_between_two_snapshots(tmp_path):
    options = {"save_strategy": "steps", "save_steps": 3}
    settings = {"verbose": 0, "every_n_steps": 5, "cheap_every_n_steps": 2}
    for folder, stop_at in (("whole", None), ("parts", 12)):
        set_seed(0)
        callback = SpectralCallback(log_dir=str(tmp_path / folder / "record"), **settings)
        try:
            train(tmp_path / folder, callback, Model(stop_at), **options)
        except Stop:
            callback = SpectralCallback(log_dir=str(tmp_path / folder / "record"), **settings)
            train(tmp_path / folder, callback, Model(), resume=str(tmp_path / folder / "checkpoint-9"), **options)
    assert_same(tmp_path / "whole" / "record", tmp_path / "parts" / "record", ROUNDED)


@pytest.mark.parametrize("stop_at", [10, 8])
def test_after_a_signal_at_which_the_trainer_saves(tmp_path, whole, monkeypatch, stop_at):
    """As at SIGTERM, three seconds after it: the Trainer saves at the next hook of its own, without ``on_save``."""
    jit = pytest.importorskip("transformers.trainer_jit_checkpoint", reason="needs transformers with JIT checkpoints")
    monkeypatch.setattr(jit.CheckpointManager, "setup_signal_handler", lambda manager: None)

    class Signal(transformers.TrainerCallback):
        def ask(self, state):
            if state.global_step == stop_at:
                own = (c for c in manager.callbacks if isinstance(c, jit.JITCheckpointCallback))
                next(own).jit_manager.is_checkpoint_requested = True

        def on_train_begin(self, args, state, control, **others):
            nonlocal manager
            manager = private.running_trainer().callback_handler

        def on_step_end(self, args, state, control, **others):
            self.ask(state)

    manager = None
    settings = {"log_dir": str(tmp_path / "record"), "verbose": 0, "every_n_epochs": 1}
    options = {"enable_jit_checkpoint": True, "save_strategy": "no"}
    set_seed(0)
    trainer = train(tmp_path, [SpectralCallback(**settings), Signal()], Model(), **options)
    assert trainer.state.global_step < 16 and (tmp_path / f"checkpoint-{stop_at}" / "spectral_state.json").exists()
    train(tmp_path, SpectralCallback(**settings), Model(), resume=True)
    assert_same(whole, tmp_path / "record", ROUNDED)


def test_at_the_last_step_of_an_epoch_before_its_end(tmp_path, whole):
    options = {"save_strategy": "steps", "save_steps": 4}
    settings = {"log_dir": str(tmp_path / "record"), "verbose": 0, "every_n_epochs": 1}
    set_seed(0)
    with pytest.raises(Stop, match="the user's own error"):
        train(tmp_path, SpectralCallback(**settings), Model(stop_at=10), **options)
    train(tmp_path, SpectralCallback(**settings), Model(), resume=True, **options)
    assert_same(whole, tmp_path / "record", ROUNDED)


def test_a_damaged_sidecar_is_said_by_name_and_training_goes_on(tmp_path, caplog):
    set_seed(0)
    train(tmp_path, SpectralCallback(log_dir=str(tmp_path / "record"), verbose=0), Model(), num_train_epochs=2)
    (tmp_path / "checkpoint-8" / "spectral_state.json").write_text("{")
    trainer = train(tmp_path, SpectralCallback(log_dir=str(tmp_path / "new"), verbose=0), Model(), resume=True)
    assert trainer.state.global_step == 16
    assert any("spectral_state.json" in r.message for r in caplog.records if r.name == "ww_callbacks")
