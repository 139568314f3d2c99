"""The private attributes that the adapter reads exist; without them training continues with a warning."""

import inspect

import pytest

transformers = pytest.importorskip("transformers", reason="needs the extra huggingface")

from tests.huggingface.small import train, trainer
from ww_callbacks.huggingface import SpectralCallback, private


@pytest.fixture(autouse=True)
def _unsaid(monkeypatch):
    monkeypatch.setattr(private, "_said", set())


def test_all_are_there(tmp_path):
    from torch.utils.tensorboard import SummaryWriter

    made = trainer(tmp_path)
    assert isinstance(made.callback_handler.callbacks, list)
    assert {"resume_from_checkpoint"} <= inspect.signature(made.train).parameters.keys()
    assert {"metric_key_prefix"} <= inspect.signature(made.evaluate).parameters.keys()
    assert {"trial"} <= inspect.signature(made._get_output_dir).parameters.keys()
    assert hasattr(SummaryWriter, "_get_file_writer")
    source = inspect.getsource(transformers.Trainer)
    for name in ("self._globalstep_last_logged", "self._trial", "self.hp_search_backend"):
        assert name in source, name
    assert "self._tr_loss" in source or " tr_loss = " in source
    assert 'metrics["total_flos"]' in source and "self.log(metrics)" in source  # the last row


@pytest.mark.parametrize(
    ("function", "said"),
    [("caller", "Trainer on the call stack"), ("local", "")],
)
def test_without_the_call_stack(tmp_path, monkeypatch, caplog, function, said):
    monkeypatch.setattr(private, function, lambda *arguments: None)
    callback = SpectralCallback(verbose=0, every_n_epochs=1)
    train(tmp_path, callback, eval_strategy="epoch")
    assert list(callback.summary.step) == [0, 4, 8, 12, 16]
    assert said in caplog.text


def test_without_the_sum_of_losses(tmp_path, monkeypatch, caplog):
    class Without(transformers.Trainer):
        def __getattribute__(self, name):
            if name == "_globalstep_last_logged" and private.__name__ in _callers():
                raise AttributeError(name)
            return super().__getattribute__(name)

    callback = SpectralCallback(verbose=0, every_n_epochs=1)
    train(tmp_path, callback, kind=Without, save_strategy="epoch")
    assert list(callback.summary.step) == [0, 4, 8, 12, 16]
    assert "metrics/train_loss" not in callback.summary and "train_loss" not in callback.summary
    assert caplog.text.count("snapshots have no training loss") == 1


def _callers():
    return {frame.frame.f_globals.get("__name__") for frame in inspect.stack()[2:3]}


def test_without_the_trials_folder(tmp_path, caplog):
    class Plain:
        hp_search_backend = "optuna"

    args = transformers.TrainingArguments(output_dir=str(tmp_path))
    assert private.run_folder(Plain(), args) == tmp_path
    assert "_get_output_dir" in caplog.text


def test_without_the_event_file(caplog):
    class Reporter:
        tb_writer = object()

    private.event_file(Reporter())(None, 0)
    assert "TensorBoard does not get our values" in caplog.text
    assert private.event_file(object()) is None
