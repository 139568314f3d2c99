"""What reaches the record and the verdict of the training: losses by step, validation values of these weights."""

import json

import pytest

transformers = pytest.importorskip("transformers", reason="needs the extra huggingface")

from tests.huggingface.small import Rows, train
from ww_callbacks.adapters.training_metrics import StepLosses
from ww_callbacks.huggingface import SpectralCallback
from ww_callbacks.run import Run


class KeepsLosses(transformers.Trainer):
    """Keeps the loss of every batch, as the model gave it."""

    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        self.losses = []

    def compute_loss(self, model, inputs, *arguments, **options):
        loss = super().compute_loss(model, inputs, *arguments, **options)
        if model.training:
            self.losses.append(float(loss.detach() if not isinstance(loss, tuple) else loss[0].detach()))
        return loss


def recorded(callback):
    rows = [json.loads(line) for line in (callback.directory / "spectral.jsonl").open()]
    return {row["step"]: row["metrics"] for row in rows if row["record"] == "model"}


@pytest.mark.parametrize("logging", [{"logging_steps": 3}, {"logging_strategy": "no"}, {"logging_strategy": "epoch"}])
@pytest.mark.parametrize("accumulated", [1, 2])
def test_the_losses_are_those_of_the_steps(tmp_path, monkeypatch, logging, accumulated):
    given = []
    real = Run.snapshot

    def keep(self, kind, step, epoch, metrics=None):
        given.append((step, dict(metrics), metrics.epoch_losses))
        return real(self, kind, step, epoch, metrics)

    monkeypatch.setattr(Run, "snapshot", keep)
    options = logging | {"gradient_accumulation_steps": accumulated, "num_train_epochs": 3}
    callback = SpectralCallback(verbose=0, every_n_epochs=1)
    trained = train(tmp_path, callback, data=Rows(160 * accumulated), kind=KeepsLosses, **options)
    batches = trained.losses
    steps = [sum(batches[i : i + accumulated]) / accumulated for i in range(0, len(batches), accumulated)]
    assert [step for step, _, _ in given] == [20, 40, 60]
    for step, metrics, parts in given:
        epoch = steps[step - 20 : step]
        assert metrics["train_loss"] == pytest.approx(sum(epoch) / 20, rel=1e-5)
        assert parts == pytest.approx([sum(epoch[i : i + 2]) / 2 for i in range(0, 20, 2)], rel=1e-4)
    assert given[-1][1]["first_loss"] == pytest.approx(steps[0], rel=1e-5)


def test_no_step_waits_for_the_device(tmp_path, monkeypatch):
    """A float is requested where a snapshot is taken, and nowhere else."""
    import torch

    asked = []
    for name in ("item", "__float__", "cpu", "tolist"):
        real = getattr(torch.Tensor, name)
        monkeypatch.setattr(torch.Tensor, name, lambda self, real=real: asked.append(1) or real(self))
    losses, tensor = StepLosses(), torch.tensor(1.0)
    from ww_callbacks.huggingface.loop_metrics import TrainerMetrics

    metrics = TrainerMetrics({})
    trainer = type("Trainer", (), {"_tr_loss": tensor, "_globalstep_last_logged": 0})()
    for step in range(1, 31):
        trainer._tr_loss += 1.0
        metrics.step(trainer, transformers.TrainerState(global_step=step))
        losses.add(tensor)
    assert not asked
    assert metrics.collect(None, None, ended=True).epoch_losses and asked


def test_validation_values_are_recorded_with_the_weights_that_they_are_of(tmp_path):
    own = {"compute_metrics": lambda prediction: {"accuracy": 0.5, "other": 3.0}}
    callback = SpectralCallback(verbose=0, every_n_epochs=1)
    trained = train(tmp_path, callback, eval_strategy="epoch", more=own)
    logged = {r["step"]: r["eval_loss"] for r in trained.state.log_history if "eval_loss" in r}
    found = recorded(callback)
    assert {step: found[step]["val_loss"] for step in logged} == logged and len(logged) == 4
    assert {found[step]["val_accuracy"] for step in logged} == {0.5}
    assert "val_loss" not in found[0]


def test_a_value_is_not_repeated_where_nothing_was_evaluated(tmp_path):
    callback = SpectralCallback(verbose=0, every_n_steps=2)
    train(tmp_path, callback, eval_strategy="steps", eval_steps=4)
    assert [step for step, metrics in recorded(callback).items() if "val_loss" in metrics] == [4, 8, 12, 16]


def test_an_evaluation_that_tells_nothing_costs_no_snapshot(tmp_path):
    class Silent(transformers.Trainer):
        def evaluate(self, *arguments, **options):
            return {"eval_loss": 1.0}

    callback = SpectralCallback(verbose=0, every_n_epochs=1)
    train(tmp_path, callback, kind=Silent, eval_strategy="epoch")
    assert list(recorded(callback)) == [0, 4, 8, 12, 16]


def test_the_names_understood_are_said_once(tmp_path, capsys):
    own = {"compute_metrics": lambda prediction: {"my_score": 0.5}}
    train(tmp_path, SpectralCallback(), eval_strategy="epoch", more=own)
    said = [line for line in capsys.readouterr().out.splitlines() if "metrics recognised" in line]
    assert len(said) == 1 and "val_loss from `eval_loss`" in said[0] and "val_accuracy" in said[0]
    callback = SpectralCallback(verbose=0, metrics={"val_accuracy": "eval_my_score"})
    train(tmp_path / "named", callback, eval_strategy="epoch", more=own)
    assert recorded(callback)[4]["val_accuracy"] == 0.5


def test_the_accuracy_that_trl_logs(tmp_path):
    pytest.importorskip("trl", reason="needs trl")
    from tests.huggingface.language import trl_trainer

    callback = SpectralCallback(verbose=0, every_n_epochs=1)
    made = trl_trainer("SFT", tmp_path, callback)
    made.train()
    logged = {r["step"]: r for r in made.state.log_history if "mean_token_accuracy" in r}
    found = recorded(callback)
    assert {s: found[s]["train_accuracy"] for s in (4, 8)} == {s: logged[s]["mean_token_accuracy"] for s in (4, 8)}
    assert found[8]["val_loss"] == [r for r in made.state.log_history if "eval_loss" in r][-1]["eval_loss"]
