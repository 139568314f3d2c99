"""When snapshots are taken: data without a length, accumulated gradients, less than an epoch, resuming."""

import json

import pytest

transformers = pytest.importorskip("transformers", reason="needs the extra huggingface")

import torch

from tests.huggingface.small import Classifier, Rows, Stream, train, trainer
from tests.lifecycle.records import Stop
from ww_callbacks.huggingface import SpectralCallback
from ww_callbacks.integrations.record import read_run


def recorded(callback):
    rows = [json.loads(line) for line in (callback.directory / "spectral.jsonl").open()]
    return [(row["step"], row["epoch"]) for row in rows if row["record"] == "model"]


@pytest.mark.parametrize("rows", [2000, 160], ids=["one pass", "several passes"])
def test_a_stream_is_measured_about_twenty_times(tmp_path, rows):
    callback = SpectralCallback(verbose=0)
    train(tmp_path, callback, data=Stream(rows), max_steps=100, num_train_epochs=3)
    steps, epochs = zip(*recorded(callback), strict=True)
    assert steps == tuple(range(0, 101, 5))
    assert list(epochs) == sorted(epochs)
    assert epochs[-1] == pytest.approx(1.0 if rows == 2000 else 4.2)


def test_a_stream_stops_on_its_alerts(tmp_path):
    """A rate at which the weights overflow: said, and stopped, within a twentieth of the steps."""
    callback = SpectralCallback(verbose=0, policies={"non-finite": "stop"})
    options = {"learning_rate": 1e25, "optim": "sgd", "max_grad_norm": 0.0}
    trained = train(tmp_path, callback, data=Stream(4000), max_steps=400, **options)
    assert trained.state.global_step <= 40 and callback.verdict.stopped


def test_passes_over_a_stream_are_its_epochs(tmp_path):
    callback = SpectralCallback(verbose=0, every_n_epochs=1)
    train(tmp_path, callback, data=Stream(80), max_steps=25)
    assert recorded(callback) == [(0, 0.0), (10, 1.0), (20, 2.0), (25, pytest.approx(2.2))]


def test_the_passes_are_counted_on_after_resuming(tmp_path):
    class FailsAtStep(transformers.TrainerCallback):
        def on_step_end(self, args, state, control, **others):
            if state.global_step == 14:
                raise Stop("the user's own error")

    options = {"data": Stream(80), "max_steps": 25, "save_strategy": "steps", "save_steps": 12}
    folder = str(tmp_path / "record")
    with pytest.raises(Stop, match="the user's own error"):
        train(tmp_path, SpectralCallback(verbose=0, every_n_epochs=1, log_dir=folder), FailsAtStep(), **options)
    callback = SpectralCallback(verbose=0, every_n_epochs=1, log_dir=folder)
    train(tmp_path, callback, resume=True, **options)
    assert [step for step, _ in recorded(callback)] == [0, 10, 22, 25]  # the Trainer begins a new pass at step 12


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"num_train_epochs": 0.5}, [(s, s / 10) for s in range(0, 6)]),
        ({"max_steps": 7}, [(s, s / 10) for s in range(0, 8)]),
        ({"num_train_epochs": 6}, [(10 * e, float(e)) for e in range(7)]),
        ({"num_train_epochs": 5.5}, [*((10 * e, float(e)) for e in range(6)), (55, 5.5)]),
        ({"num_train_epochs": 5, "gradient_accumulation_steps": 3}, [(4 * e, float(e)) for e in range(6)]),
        ({"num_train_epochs": 4}, [(s, s / 10) for s in range(0, 41, 2)]),
    ],
    ids=["half an epoch", "steps of less than an epoch", "six epochs", "and a half", "accumulated", "four epochs"],
)
def test_as_often_as_it_says(tmp_path, options, expected):
    callback = SpectralCallback(verbose=0, quantities=["stable_rank"])
    trained = train(tmp_path, callback, data=Rows(80), **options)
    assert recorded(callback) == [(step, pytest.approx(epoch)) for step, epoch in expected]
    assert trained.state.global_step == expected[-1][0]


def test_spectral_norm_is_no_collapse(tmp_path):
    model, callback = Classifier(dropout=0.0), SpectralCallback(verbose=0)
    for layer in (model.net[0], model.net[2], model.net[4]):
        torch.nn.utils.spectral_norm(layer)
    train(tmp_path, callback, model=model, num_train_epochs=6)
    assert callback.history["scale_collapse"].abs().max() < 0.5 and not callback.alerts


def test_an_optimiser_of_other_parameters_is_told(tmp_path):
    other = torch.optim.SGD(torch.nn.Linear(3, 3).parameters(), 0.1)
    callback = SpectralCallback(verbose=0)
    train(tmp_path, callback, more={"optimizers": (other, None)}, num_train_epochs=5)
    (alert,) = [a for a in callback.alerts if a.kind == "dead layer"]
    said = "No layer has changed since the start: the optimiser has other parameters than the model's."
    assert alert.message == said and callback.verdict.state == "watch"


def test_an_epoch_that_a_callback_ends_early_counts(tmp_path):
    class EndsEpochs(transformers.TrainerCallback):
        def on_step_end(self, args, state, control, **others):
            control.should_epoch_stop = state.epoch % 1 == 0.5

    callback = SpectralCallback(verbose=0, every_n_epochs=1)
    train(tmp_path, EndsEpochs(), callback, num_train_epochs=3)
    assert recorded(callback) == [(0, 0.0), (2, 1.0), (4, 2.0), (6, 3.0)]


@pytest.mark.parametrize("restored", [False, True])
def test_a_checkpoint_made_without_the_callback(tmp_path, restored):
    train(tmp_path, save_strategy="epoch", num_train_epochs=2, max_steps=8)
    callback = SpectralCallback(verbose=0)
    options = {"save_strategy": "epoch", "restore_callback_states_from_checkpoint": restored}
    trained = train(tmp_path, callback, resume=True, **options)
    assert trained.state.global_step == 16
    assert next(step for step, _ in recorded(callback)) == 8
    assert (tmp_path / "checkpoint-16" / "spectral_state.json").exists()


def test_the_users_object_keeps_answering_where_the_trainer_restores_callbacks(tmp_path):
    options = {"save_strategy": "epoch", "restore_callback_states_from_checkpoint": True}
    train(tmp_path, SpectralCallback(verbose=0, log_dir=str(tmp_path / "record")), max_steps=8, **options)
    callback = SpectralCallback(verbose=0, log_dir=str(tmp_path / "record"), policies={"non-finite": print})
    made = trainer(tmp_path, callback, **options)
    made.train(resume_from_checkpoint=True)
    assert callback in made.callback_handler.callbacks
    assert [step for step, _ in recorded(callback)][-1] == 16 and callback.verdict is not None
    assert callback.settings.policies == {"non-finite": print}


class Hungry(Classifier):
    """Has no memory for batches of more than 6, from its ``fails_at``-th batch on."""

    def __init__(self, fails_at):
        super().__init__()
        self.fails_at, self.batches = fails_at, 0

    def forward(self, x, labels=None):
        self.batches += 1
        if self.training and len(x) > 6 and self.batches >= self.fails_at:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory.")
        return super().forward(x, labels)


@pytest.mark.parametrize("fails_at", [1, 6], ids=["at once", "after an epoch"])
def test_the_batch_sizes_that_fail_leave_no_run_of_their_own(tmp_path, capsys, fails_at):
    callback = SpectralCallback(log_dir=str(tmp_path / "record"), every_n_epochs=1, keep_best=True)
    options = {"auto_find_batch_size": True, "num_train_epochs": 2}
    train(tmp_path / "out", callback, model=Hungry(fails_at), **options)
    out = capsys.readouterr().out
    assert "batches of 8 do not fit into memory; training starts again with 7" in out
    assert "batches of 7 do not fit into memory; training starts again with 6" in out
    assert out.count("verdict: ") == 1 and callback.directory == tmp_path / "record"
    assert not list(callback.directory.glob("run-*")) and recorded(callback) == [(0, 0.0), (6, 1.0), (12, 2.0)]
    assert {path.name for path in callback.directory.glob("best-*")} == {"best-step-12", "best-step-12-average"}
    assert read_run(callback.directory).verdict.best_step == 12
    assert (callback.directory / "spectral.2.jsonl").exists()


def test_a_training_that_the_user_starts_again_is_another_run(tmp_path):
    callback = SpectralCallback(log_dir=str(tmp_path / "record"), verbose=0)

    class Fails(transformers.TrainerCallback):
        def on_step_end(self, args, state, control, **others):
            raise Stop("the user's own error")

    made = trainer(tmp_path / "out", callback, Fails(), auto_find_batch_size=True)
    with pytest.raises(Stop, match="the user's own error"):
        made.train()
    made.remove_callback(Fails)
    made.train()
    assert callback.directory == tmp_path / "record" / "run-2"
    assert read_run(tmp_path / "record").verdict is not None
