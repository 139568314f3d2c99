"""The same training with the callback and without: weights, random state, the user's own values, results and exit."""

import json
import os
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

transformers = pytest.importorskip("transformers", reason="needs the extra huggingface")
import torch

from tests.huggingface.small import Classifier, Rows, Stream, trainer
from tests.lifecycle.records import Stop
from ww_callbacks.huggingface import SpectralCallback

TIMED = ("runtime", "per_second", "_timestamp", "_runtime", "_step_time")


def untimed(row):
    return {k: v for k, v in row.items() if not k.endswith(TIMED)}


class UsersOwn(transformers.TrainerCallback):
    """Keeps all that a callback of the user's is told, and what it finds at the end of the log then."""

    def __init__(self):
        self.told = []

    def on_log(self, args, state, control, logs=None, **others):
        self.told.append(("log", state.global_step, untimed(logs), control.should_log, control.should_save))

    def on_evaluate(self, args, state, control, metrics=None, **others):
        self.told.append(("evaluate", state.global_step, untimed(metrics), untimed(state.log_history[-1])))

    def on_step_end(self, args, state, control, **others):
        told = control.should_log, control.should_evaluate, control.should_save, control.should_training_stop
        self.told.append(("step", state.global_step, told, [untimed(row) for row in state.log_history[-1:]]))


def classifier(folder, *callbacks, **options):
    return trainer(folder, *callbacks, eval_strategy="epoch", **options)


def sft(folder, *callbacks, **options):
    from tests.huggingface.language import trl_trainer

    return trl_trainer("SFT", folder, *callbacks, **options)


def lora():
    from peft import LoraConfig

    return LoraConfig(r=4, target_modules=["c_attn", "c_proj"], task_type="CAUSAL_LM", fan_in_fan_out=True)


def sft_lora(folder, *callbacks, **options):
    return sft(folder, *callbacks, peft_config=lora(), **options)


def dpo(folder, *callbacks, **options):
    """Without a copy of the model to compare with, which TRL would fetch by name: LoRA's base is it."""
    from tests.huggingface.language import trl_trainer

    return trl_trainer("DPO", folder, *callbacks, peft_config=lora(), **options)


def stream(folder, *callbacks, **options):
    return trainer(folder, *callbacks, data=Stream(64), max_steps=12, gradient_accumulation_steps=2, **options)


def needs(kind):
    if kind in (sft, sft_lora, dpo):
        pytest.importorskip("trl", reason="needs trl")


def everything(made, own, result):
    """All of a training that must not depend on whether it is watched."""
    made.model.eval()
    return {
        "weights": {k: v.clone() for k, v in made.model.state_dict().items()},
        "random": (torch.get_rng_state().tolist(), np.random.get_state()[1].tolist(), random.getstate()),
        "log": [untimed(row) for row in made.state.log_history],
        "told": own.told,
        "result": (result.global_step, result.training_loss, untimed(result.metrics)),
        "evaluation": untimed(made.evaluate()),
        "test": untimed(made.evaluate(metric_key_prefix="test")),
        "optimiser": [v for state in made.optimizer.state_dict()["state"].values() for v in state.values()],
    }


def same(a, b):
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    return a == b or (a != a and b != b)


@pytest.mark.parametrize("kind", [classifier, stream, sft, sft_lora, dpo])
def test_all_is_the_same(tmp_path, kind):
    needs(kind)
    runs = []
    for callbacks in ((), (SpectralCallback(quantities=["default", "rand_distance"], verbose=0, every_n_steps=3),)):
        own = UsersOwn()
        made = kind(tmp_path / str(len(runs)), own, *callbacks)
        runs.append(everything(made, own, made.train()))
    for name in runs[0]:
        assert same(runs[0][name], runs[1][name]), name
    if kind in (sft, sft_lora):
        assert all({"entropy", "mean_token_accuracy", "num_tokens"} <= r.keys() for r in runs[1]["log"] if "loss" in r)


def of_tensorboard(folder):
    """Tag → (step, value) of all that is no timing and not ours."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder), size_guidance={"scalars": 0, "tensors": 0}).Reload()
    tags = events.Tags()
    found = {t: [(e.step, e.value) for e in events.Scalars(t)] for t in tags["scalars"] if not t.endswith(TIMED)}
    texts = {t: [e.step for e in events.Tensors(t)] for t in tags["tensors"]}
    ours = ("spectral", "custom_scalars")
    return found | {t: steps for t, steps in texts.items() if not t.startswith(ours)}, len(texts)


@pytest.mark.parametrize("kind", [classifier, sft])
def test_the_tensorboard_reporters_values_are_the_users(tmp_path, monkeypatch, kind):
    needs(kind)
    runs = []
    for callbacks in ((), (SpectralCallback(verbose=0),)):
        folder = tmp_path / f"events{len(runs)}"
        monkeypatch.setenv("TENSORBOARD_LOGGING_DIR", str(folder))
        kind(tmp_path / "out", *callbacks, report_to=["tensorboard"]).train()
        runs.append(of_tensorboard(folder))
    assert runs[0][0] == runs[1][0] and runs[0][0]
    assert runs[1][1] > runs[0][1] + 10  # ours are there


def test_the_users_rows_in_wandb_are_the_same(tmp_path, monkeypatch):
    """Every key, value and W&B step, also of rows that the user logs with their own step."""
    wandb = pytest.importorskip("wandb", reason="needs the extra wandb")
    for name, value in {"WANDB_MODE": "offline", "WANDB_SILENT": "true", "WANDB_CONSOLE": "off"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("WANDB_X_DISABLE_STATS", "true")

    class LogsItself(transformers.TrainerCallback):
        def on_step_end(self, args, state, control, **others):
            # Just ahead of W&B's counter, which the reporter moves by one per row: if a row of ours moved it too, this
            # one would get another step, or W&B would drop it.
            wandb.log({"mine": state.global_step}, step=2 * state.global_step)

    runs, ours = [], []
    for callbacks in ((), (SpectralCallback(verbose=0),)):
        folder = tmp_path / str(len(runs))
        folder.mkdir()
        monkeypatch.setenv("WANDB_DIR", str(folder))
        wandb.teardown()
        classifier(tmp_path / "out", LogsItself(), *callbacks, report_to=["wandb"]).train()
        synced = wandb.run.settings.sync_dir
        wandb.finish()
        tool = [Path(sys.executable).with_name("wandb"), "leet", "inspect", "--json", synced]
        lines = subprocess.run(tool, capture_output=True, text=True, check=True, env=os.environ).stdout.splitlines()
        history = [row["history"]["item"] for row in map(json.loads, lines) if row["type"] == "history"]
        own = [{k: v for k, v in untimed(row).items() if not k.startswith("spectral")} for row in history]
        runs.append([row for row in own if set(row) - {"_step", "train/global_step"}])
        ours.append([row for row in history if any(name.startswith("spectral") for name in row)])
        wandb.teardown()
    assert runs[0] == runs[1] and len(runs[0]) > 8
    assert not ours[0] and len(ours[1]) > 8


class FailsAtStep(transformers.TrainerCallback):
    def on_step_end(self, args, state, control, **others):
        if state.global_step == 6:
            raise Stop("the user's own error")


def test_the_users_error_comes_out_as_it_is_and_the_callback_can_watch_again(tmp_path):
    callback = SpectralCallback(verbose=0)
    made = classifier(tmp_path, FailsAtStep(), callback)
    with pytest.raises(Stop, match="the user's own error"):
        made.train()
    made.remove_callback(FailsAtStep)
    made.train()
    assert callback.directory == tmp_path / "spectral" / "run-2"
    assert list(callback.summary.step) == [0, *range(1, 17)]


def test_training_twice_and_evaluating_before_between_and_after(tmp_path):
    callback = SpectralCallback(verbose=0, every_n_epochs=1)
    made = classifier(tmp_path, callback, report_to=["tensorboard"])
    folders = []
    made.evaluate()
    for _ in range(2):
        made.train()
        made.evaluate()
        made.predict(Rows(8))
        folders.append(callback.directory)
        assert list(callback.summary.step) == [0, 4, 8, 12, 16]
    assert folders[0] != folders[1]


def test_an_error_of_ours_does_not_end_the_run(tmp_path, monkeypatch, caplog):
    from ww_callbacks.engine.engine import Engine

    def broken(*args, **options):
        raise RuntimeError("a fault of ours")

    runs = []
    for fault in (False, True):
        if fault:
            monkeypatch.setattr(Engine, "measure", broken)
        made = classifier(tmp_path / str(fault), SpectralCallback(verbose=0), model=Classifier())
        made.train()
        runs.append({k: v.clone() for k, v in made.model.state_dict().items()})
    assert same(*runs)
    assert any("a fault of ours" in r.message for r in caplog.records if r.name == "ww_callbacks")
