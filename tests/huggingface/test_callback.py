"""The Hugging Face adapter in real Trainers."""

import json
import random

import numpy as np
import pytest

transformers = pytest.importorskip("transformers", reason="needs the extra huggingface")
import torch
from transformers import EarlyStoppingCallback, GPT2Config, GPT2LMHeadModel, Trainer, TrainingArguments, set_seed

from ww_callbacks.huggingface import SpectralCallback


class Tokens(torch.utils.data.Dataset):
    def __init__(self, count=32):
        self.codes = torch.randint(0, 40, (count, 8), generator=torch.Generator().manual_seed(0))

    def __len__(self):
        return len(self.codes)

    def __getitem__(self, index):
        return {"input_ids": self.codes[index], "labels": self.codes[index]}


class Spoil(transformers.TrainerCallback):
    """Puts a NaN into a weight after step 9."""

    def on_step_end(self, args, state, control, model=None, **others):
        if state.global_step == 9:
            with torch.no_grad():
                model.transformer.h[0].mlp.c_fc.weight[0, 0] = float("nan")


def train(folder, *callbacks, samples=32, **options):
    set_seed(0)
    config = GPT2Config(
        vocab_size=40, n_positions=8, n_embd=32, n_layer=1, n_head=2, bos_token_id=None, eos_token_id=None
    )
    settings = {
        "num_train_epochs": 5,
        "per_device_train_batch_size": 8,
        "save_strategy": "no",
        "report_to": [],
        "use_cpu": True,
        "disable_tqdm": True,
        "logging_steps": 2,
        "learning_rate": 1e-3,
    } | options
    trainer = Trainer(
        model=GPT2LMHeadModel(config),
        args=TrainingArguments(output_dir=str(folder), **settings),
        train_dataset=Tokens(samples),
        eval_dataset=Tokens(),
        callbacks=list(callbacks),
    )
    trainer.train()
    return trainer


def test_every_epoch_is_measured_and_the_trainers_log_is_its_own(tmp_path):
    callback = SpectralCallback(verbose=0)
    trainer = train(tmp_path, callback)
    history = callback.history
    assert sorted(history.epoch.unique()) == [0, 1, 2, 3, 4, 5]
    assert sorted(history.step.unique()) == [0, 4, 8, 12, 16, 20]
    assert "transformer.h.0.attn.c_attn.weight[q]" in set(history.layer)
    assert "lm_head.weight" not in set(history.layer)  # tied to the embedding, which is measured once
    assert callback.summary["effective_rank/median"].notna().all()
    assert callback.directory == tmp_path / "spectral"
    assert not [name for row in trainer.state.log_history for name in row if "spectral" in name]
    losses = [row["step"] for row in trainer.state.log_history if "loss" in row]
    assert losses == list(range(2, 21, 2))


def test_the_training_loss_is_the_trainers(tmp_path):
    callback = SpectralCallback(verbose=0)
    trainer = train(tmp_path, callback, logging_strategy="epoch")
    logged = [row["loss"] for row in trainer.state.log_history if "loss" in row]
    rows = [json.loads(line) for line in (callback.directory / "spectral.jsonl").open()]
    measured = [row["metrics"]["train_loss"] for row in rows if row["record"] == "model" and row["step"]]
    np.testing.assert_allclose(measured, logged, rtol=1e-3)


def test_training_is_not_disturbed(tmp_path):
    states = []
    for callbacks in ((), (SpectralCallback(quantities=["default", "rand_distance"], verbose=0),)):
        trainer = train(tmp_path, *callbacks)
        state = {k: v.clone() for k, v in trainer.model.state_dict().items()}
        states.append((state, torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()))
    (weights, *rest), (weights_with, *rest_with) = states
    assert all(torch.equal(weights[k], weights_with[k]) for k in weights)
    assert torch.equal(rest[0], rest_with[0]) and rest[1:] == rest_with[1:]


def test_steps_where_the_run_has_no_epochs(tmp_path):
    callback = SpectralCallback(verbose=0)
    train(tmp_path, callback, max_steps=40, samples=640)
    assert sorted(callback.history.step.unique()) == list(range(0, 41, 2))


def test_the_best_model_and_early_stopping_by_our_values(tmp_path):
    """Both read the evaluation's metrics; the stopper stands before ours in the list."""
    callback = SpectralCallback(verbose=0)
    trainer = train(
        tmp_path,
        EarlyStoppingCallback(early_stopping_patience=2),
        callback,
        num_train_epochs=8,
        eval_strategy="epoch",
        save_strategy="epoch",
        load_best_model_at_end=True,
        metric_for_best_model="spectral/relative_distance_from_init/median",
        greater_is_better=False,
    )
    assert trainer.state.global_step == 12  # the distance only grows: best after the first epoch, patience of two
    assert trainer.state.best_model_checkpoint.endswith("checkpoint-4")


def test_stops_by_the_trainers_own_means(tmp_path, capsys):
    callback = SpectralCallback(policies={"non-finite": "stop"})
    trainer = train(tmp_path, Spoil(), callback)
    assert trainer.state.global_step == 12
    assert callback.verdict.stopped and callback.alerts[0].kind == "non-finite"
    assert "CRITICAL at epoch 3: non-finite" in capsys.readouterr().out


def test_streams_to_the_tensorboard_reporter(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    callback = SpectralCallback(verbose=0)
    train(tmp_path, callback, report_to=["tensorboard"])
    events = EventAccumulator(str(callback.directory), size_guidance={"tensors": 0}).Reload()
    read = events.Tensors("spectral/log_spectral_norm/median")
    assert [e.step for e in read] == [0, 4, 8, 12, 16, 20]
    np.testing.assert_allclose(
        [e.tensor_proto.float_val[0] for e in read], callback.summary["log_spectral_norm/median"], rtol=1e-6
    )


def test_single_layers_and_histograms_reach_the_tensorboard_reporter(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    callback = SpectralCallback(verbose=0, per_layer=True, histograms=True)
    train(tmp_path, callback, report_to=["tensorboard"])
    events = EventAccumulator(str(callback.directory), size_guidance={"tensors": 0, "scalars": 0}).Reload()
    history = callback.history
    layer = history["layer"].iloc[0]
    one = events.Tensors(f"spectral_layers/{layer}/log_spectral_norm")
    assert [e.step for e in one] == [0, 4, 8, 12, 16, 20]
    expected = history.query("layer == @layer")["log_spectral_norm"]
    np.testing.assert_allclose([e.tensor_proto.float_val[0] for e in one], expected, rtol=1e-6)
    assert [e.step for e in events.Tensors(f"spectral_layers/{layer}/log10_lambda")] == [0, 4, 8, 12, 16, 20]
    assert not [tag for tag in events.Tags()["scalars"] if "spectral" in tag], "logged twice"


def test_refused_before_training(tmp_path):
    with pytest.raises(ValueError, match="matches nothing"):
        train(tmp_path, SpectralCallback(layers=["encoder*"]))
    with pytest.raises(ValueError, match="no averaged weights"):
        SpectralCallback(weights="average")


def test_the_trainers_printing_is_spared_our_values(tmp_path, capsys):
    train(tmp_path, SpectralCallback(), disable_tqdm=False)
    out = capsys.readouterr().out
    assert "spectral/alpha" not in out
    assert sum(line.startswith("spectra: epoch") for line in out.splitlines()) == 6  # epoch 0, too


@pytest.mark.parametrize("shown", [True, False])
def test_keeping_the_best_weights_shows_no_progress_bar(tmp_path, capsys, monkeypatch, shown):
    from transformers.utils import logging

    monkeypatch.setattr(logging, "_tqdm_active", shown)
    callback = SpectralCallback(log_dir=tmp_path / "record", keep_best=True, verbose=0)
    train(tmp_path, callback, num_train_epochs=2)
    assert (callback.best_checkpoint / "model.safetensors").exists()
    seen = capsys.readouterr()
    assert "Writing model shards" not in seen.out + seen.err
    assert logging.is_progress_bar_enabled() == shown
