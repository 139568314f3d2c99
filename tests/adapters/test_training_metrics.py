"""Losses within an epoch, and the names that loops give to their metrics."""

import numpy as np
import pytest
import torch

from ww_callbacks.adapters.training_metrics import PARTS, StepLosses, in_words, recognised, values_of


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["val_loss", "val_acc"], {"val_loss": "val_loss", "val_accuracy": "val_acc"}),
        (["validation_loss"], {"val_loss": "validation_loss"}),
        (["val/loss", "train/acc"], {"val_loss": "val/loss", "train_accuracy": "train/acc"}),
        (["eval_loss", "eval_f1"], {"val_loss": "eval_loss", "val_accuracy": "eval_f1"}),
        (["loss", "accuracy", "val_accuracy"], {"val_accuracy": "val_accuracy", "train_accuracy": "accuracy"}),
        (["train_acc_step", "train_acc_epoch"], {"train_accuracy": "train_acc_epoch"}),
        (["val_loss/dataloader_idx_0", "val_loss/dataloader_idx_1"], {"val_loss": "val_loss/dataloader_idx_0"}),
        (["val_out_loss"], {"val_loss": "val_out_loss"}),
        (["val_a_loss", "val_b_loss"], {}),
        (["val_loss", "val_out_loss"], {"val_loss": "val_loss"}),
        (["sparse_categorical_accuracy"], {"train_accuracy": "sparse_categorical_accuracy"}),
        (["learning_rate", "loss", "grad_norm", "value_loss"], {}),
        (["test_loss", "test_acc", "test_a_accuracy", "test_a_loss"], {}),
        (["accuracy_1", "val_auc_2"], {"train_accuracy": "accuracy_1", "val_accuracy": "val_auc_2"}),
        (["val_a_accuracy", "a_accuracy"], {"val_accuracy": "val_a_accuracy", "train_accuracy": "a_accuracy"}),
        (["val_a_acc", "val_b_acc", "train_a_acc"], {"train_accuracy": "train_a_acc"}),
        (["val_sparse_top_k_categorical_accuracy", "top_k_categorical_accuracy"], {}),
    ],
)
def test_usual_names_are_understood(names, expected):
    assert recognised(names) == expected


def test_the_users_own_names_come_first():
    logged = {"val_loss": 1.0, "mine": torch.tensor(0.5), "val_acc": "n/a"}
    assert values_of(logged, {"val_loss": "mine"}) == {"val_loss": 0.5}
    assert "val_loss from `mine`" in in_words(recognised(logged, {"val_loss": "mine"}))


def test_missing_validation_values_are_named():
    missing = "No validation values are logged under common names; map others: metrics={'val_loss': 'your name'}."
    assert in_words({}) == f"metrics recognised: none. {missing}"
    assert in_words({"train_loss": "loss"}) == f"metrics recognised: train_loss from `loss`. {missing}"
    assert in_words({"val_loss": "a", "val_accuracy": "b"}).endswith("val_loss from `a`, val_accuracy from `b`.")


@pytest.mark.parametrize("steps", [10, 11, 37, 639, 640, 641, 5000])
@pytest.mark.parametrize("kind", ["float", "torch"])
def test_parts_and_mean_are_those_of_all_losses(steps, kind):
    losses = np.random.default_rng(steps).random(steps)
    collected = StepLosses()
    for value in losses:
        collected.add(torch.tensor(value) if kind == "torch" else float(value))
    assert collected.steps == steps and len(collected._sums) <= 640
    assert collected.mean() == pytest.approx(losses.mean(), rel=1e-9)
    assert np.mean(collected.parts()) == pytest.approx(losses.mean(), rel=1e-9)
    if steps % PARTS == 0:
        expected = losses.reshape(PARTS, -1).mean(axis=1)
        assert collected.parts() == pytest.approx(expected, rel=0.02 if steps > 640 else 1e-9)


def test_fewer_than_ten_steps_have_no_parts():
    collected = StepLosses()
    for _ in range(9):
        collected.add(1.0)
    assert collected.parts() == () and collected.mean() == 1.0


def test_the_first_loss_and_the_last_mean_are_kept():
    collected = StepLosses()
    for value in (3.0, 1.0):
        collected.add(value)
    collected.reset()
    assert collected.first == 3.0 and collected.mean() == 2.0
    collected.add(7.0)
    collected.reset()
    assert collected.first == 3.0 and collected.mean() == 7.0


def test_a_restored_epoch_goes_on_as_an_undisturbed_one():
    losses = np.random.default_rng(0).random(1500)
    whole, broken = StepLosses(), StepLosses()
    for value in losses:
        whole.add(value)
    for value in losses[:1000]:
        broken.add(value)
    resumed = StepLosses()
    resumed.restore(broken.state())
    for value in losses[1000:]:
        resumed.add(value)
    assert resumed.parts() == whole.parts() and resumed.mean() == whole.mean()


def test_no_step_waits_for_the_device(monkeypatch):
    """Nothing is fetched before the epoch ends."""
    collected, fetched = StepLosses(), []
    monkeypatch.setattr(torch.Tensor, "__float__", lambda self: fetched.append(1) or 0.0)
    monkeypatch.setattr(torch.Tensor, "cpu", lambda self: fetched.append(1))
    for _ in range(2000):
        collected.add(torch.zeros(()), 2.0)
    assert not fetched
