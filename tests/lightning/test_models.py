"""Models as users have them, and Trainers as they set them up."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pl = pytest.importorskip("pytorch_lightning", reason="needs the extra lightning")
import torch
from pytorch_lightning.callbacks import BaseFinetuning, ModelCheckpoint
from pytorch_lightning.loggers import CSVLogger, TensorBoardLogger, WandbLogger
from torch import nn

from tests.adapters.nets import Net, Validated, fit, seeded
from tests.lifecycle.records import Stop
from tests.lightning.loops import During, Manual
from ww_callbacks.integrations.record import read_run
from ww_callbacks.lightning import SpectralCallback

ROOT = Path(__file__).parents[2]


def watched(folder, model, *others, settings=None, **options):
    callback = SpectralCallback(log_dir=str(folder / "record"), verbose=0, **{"every_n_epochs": 1} | (settings or {}))
    trainer = fit(model, callback, *others, **options)
    return callback, trainer


def said(caplog):
    return [r.message for r in caplog.records if r.name == "ww_callbacks"]


class Lazy(Net):
    def __init__(self, all_of_it=True):
        super().__init__()
        self.net[4] = nn.LazyLinear(3)
        if all_of_it:
            self.net[0], self.net[2] = nn.LazyLinear(24), nn.LazyLinear(24)


class First(pl.Callback):
    """Keeps the weights of the first batch before its update."""

    def on_before_optimizer_step(self, trainer, pl_module, optimizer):
        if not hasattr(self, "weights"):
            self.weights = [p.detach().clone().numpy() for p in pl_module.parameters() if p.ndim == 2]


@pytest.mark.parametrize("all_of_it", [True, False])
@pytest.mark.parametrize("validated", [True, False])
def test_lazy_modules_start_from_the_weights_before_the_first_update(tmp_path, all_of_it, validated, caplog):
    first = First()
    callback, _ = watched(tmp_path, seeded(Lazy, all_of_it=all_of_it), first, validate=validated)
    start = callback.history.query("step == 0")
    norms = [np.linalg.norm(w.astype(float)) for w in first.weights]
    np.testing.assert_allclose(start["frobenius_norm"], norms, rtol=1e-6)
    assert (start["distance_from_init"] == 0).all() and callback.summary["step"].tolist() == [0, 4, 8, 12, 16]
    assert said(caplog) == []


def test_lazy_modules_whose_backward_pass_lightning_does_not_see(tmp_path):
    class Hidden(Manual):
        def __init__(self):
            super().__init__(wrapped=False)
            self.net[4] = nn.LazyLinear(3)

        def manual_backward(self, loss, *arguments, **options):
            loss.backward()

    callback, _ = watched(tmp_path, seeded(Hidden))
    assert callback.summary["epoch"].tolist() == [0, 1, 2, 3, 4] and callback.history["layer"].nunique() == 3


@pytest.mark.parametrize(
    "compile_part",
    [
        torch.jit.script,
        lambda part: torch.jit.trace(part, torch.randn(2, 24)),
    ],
)
def test_a_scripted_submodule(tmp_path, compile_part):
    class Scripted(Net):
        def __init__(self):
            super().__init__()
            self.net[2] = compile_part(nn.Linear(24, 24))

    callback, trainer = watched(tmp_path, seeded(Scripted))
    assert trainer.current_epoch == 4
    history = callback.history
    assert set(history["layer"]) == {"net.0.weight", "net.2.weight", "net.4.weight"}
    assert history["status"].eq("ok").all() and history.query("step == 16")["distance_from_init"].gt(0).all()


def test_a_module_that_defies_inspection_is_left_out(tmp_path):
    class Odd(nn.Linear):
        @property
        def _forward_pre_hooks(self):
            return {0: self}

        @_forward_pre_hooks.setter
        def _forward_pre_hooks(self, value):
            pass

        @property
        def name(self):
            raise RuntimeError("not to be asked")

    class WithOdd(Net):
        def __init__(self):
            super().__init__()
            self.odd = Odd(3, 3)

        def forward(self, x):
            return self.net(x)

    callback, trainer = watched(tmp_path, seeded(WithOdd))
    assert trainer.current_epoch == 4 and "net.0.weight" in set(callback.history["layer"])


class Flat(Net):
    def __init__(self):
        super().__init__()
        self.net = nn.BatchNorm1d(12)

    def training_step(self, batch, index):
        return self.net(batch[0]).square().mean()


def test_a_model_without_matrices_is_trained_and_nothing_is_watched(tmp_path, caplog):
    callback, trainer = watched(tmp_path, seeded(Flat))
    assert trainer.current_epoch == 4
    (message,) = said(caplog)
    assert "no layer whose weights form a matrix (a vector: it has no spectrum)" in message and "strict=True" in message
    assert len(callback.history) == 0 and callback.summary["epoch"].tolist() == [0, 1, 2, 3, 4]
    assert callback.summary["metrics/train_loss"].notna().sum() == 4
    with pytest.raises(ValueError, match="no layer whose weights form a matrix"):
        watched(tmp_path, seeded(Flat), settings={"strict": True})


def test_a_pattern_that_matches_nothing_is_still_refused(tmp_path):
    with pytest.raises(ValueError, match="matches nothing"):
        watched(tmp_path, seeded(), settings={"layers": "nett.*"})


class Normalised(Net):
    def __init__(self, wrap):
        super().__init__()
        for part in (self.net[0], self.net[2], self.net[4]):
            wrap(part)


@pytest.mark.parametrize("wrap", [nn.utils.spectral_norm, nn.utils.parametrizations.spectral_norm])
@pytest.mark.parametrize("validated", [True, False])
def test_spectral_norm_is_no_collapse(tmp_path, wrap, validated):
    """Before the first batch the older one divides by a random number."""
    kind = type("Kind", (Normalised,), {"validation_step": Validated.validation_step}) if validated else Normalised
    callback, _ = watched(tmp_path, seeded(kind, wrap=wrap), epochs=6, validate=validated)
    history = callback.history
    assert history["scale_collapse"].abs().max() < 0.5
    assert not [a for a in callback.alerts if a.kind in ("scale collapse", "explosion")]
    start = history.query("step == 0")
    assert (start["distance_from_init"] == 0).all() and start["log_spectral_norm"].abs().max() < 0.5


class Finetuning(BaseFinetuning):
    def freeze_before_training(self, pl_module):
        self.freeze([pl_module.net[0], pl_module.net[2]])

    def finetune_function(self, pl_module, epoch, optimizer):
        if epoch == 5:
            self.unfreeze_and_add_param_group(pl_module.net[2], optimizer)


def test_layers_that_lightning_freezes_are_frozen_and_not_dead(tmp_path):
    class Head(Net):
        def configure_optimizers(self):
            return torch.optim.SGD([p for p in self.parameters() if p.requires_grad], 0.1)

    callback, _ = watched(tmp_path, seeded(Head), Finetuning(), epochs=8)
    frozen = callback.history.pivot(index="epoch", columns="layer", values="frozen")
    assert frozen["net.0.weight"].all() and not frozen["net.4.weight"].any()
    assert frozen["net.2.weight"].tolist() == [True] * 6 + [False] * 3
    assert not [a for a in callback.alerts if a.kind == "dead layer"]


@pytest.mark.parametrize(
    "others, reason",
    [
        (lambda: [nn.Parameter(torch.zeros(3, 3))], "the optimiser has other parameters than the model's"),
        (lambda: [], "no optimiser has parameters"),
    ],
)
def test_a_model_that_does_not_train_is_told(tmp_path, others, reason):
    class Still(Net):
        def configure_optimizers(self):
            return torch.optim.SGD(held, 0.1) if (held := others()) else None

    # Without an optimiser no learning rate is known, and three snapshots must tell.
    callback, _ = watched(tmp_path, seeded(Still), epochs=2 if others() else 4)
    (alert,) = [a for a in callback.alerts if a.kind == "dead layer"]
    assert alert.message == f"No layer has changed since the start: {reason}."
    assert "optimiser has its parameters" in alert.recommendation
    assert alert.since_step == 0 and alert.severity == "warning" and callback.verdict.state == "watch"


def test_a_loss_without_a_graph_is_told(tmp_path):
    class Cut(Net):
        def training_step(self, batch, index):
            return super().training_step(batch, index).detach().clone().requires_grad_()

    callback, _ = watched(tmp_path, seeded(Cut), epochs=2)
    (alert,) = [a for a in callback.alerts if a.kind == "dead layer"]
    assert "the loss has no graph that leads to the model" in alert.message


def test_a_learning_rate_of_zero_is_told_after_three_snapshots(tmp_path):
    callback, _ = watched(tmp_path, seeded(Net, rate=0.0), epochs=2)
    assert not [a for a in callback.alerts if a.kind == "dead layer"], "a schedule may begin at zero"
    callback, _ = watched(tmp_path / "longer", seeded(Net, rate=0.0), epochs=4)
    (alert,) = [a for a in callback.alerts if a.kind == "dead layer"]
    assert alert.message == "No layer has changed since the start: the learning rate is 0."


class HeadFirst(pl.LightningModule):
    """Its layers in another order than they run in; one of them is never used."""

    def __init__(self, penalty=0.0, tied=False):
        super().__init__()
        self.head, self.body = nn.Linear(24, 3), nn.Sequential(nn.Linear(12, 24), nn.ReLU())
        self.spare = nn.Linear(24, 24)
        self.penalty, self.tied = penalty, tied

    def training_step(self, batch, index):
        x, y = batch
        hidden = self.body(x)
        loss = nn.functional.cross_entropy(self.head(hidden), y)
        return loss + self.penalty * sum(p.square().sum() for p in self.parameters())

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)


def output_of(callback):
    (detector,) = callback.run.diagnosis._overtraining()
    return detector.output


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (Net, "net.4.weight"),
        (HeadFirst, "head.weight"),
        (lambda: HeadFirst(penalty=0.01), "head.weight"),
        (lambda: Manual(optimizers=2), "net.4.weight"),
    ],
)
def test_the_output_layer_is_the_one_that_makes_the_output(tmp_path, make, expected):
    callback, _ = watched(tmp_path, make(), epochs=1)
    assert output_of(callback) == expected


def test_the_user_may_name_the_output_layer(tmp_path):
    callback, _ = watched(tmp_path, HeadFirst(), settings={"overtraining": {"output": "body.0.weight"}}, epochs=1)
    assert output_of(callback) == "body.0.weight"
    with pytest.raises(ValueError, match=r"names a layer that the model does not have. Near it: head\.weight"):
        watched(tmp_path, HeadFirst(), settings={"overtraining": {"output": "head.wieght"}})


def test_the_record_lies_in_tensorboards_folder_whatever_other_loggers_there_are(tmp_path, monkeypatch):
    wandb = pytest.importorskip("wandb")
    for name, value in {"WANDB_SILENT": "true", "WANDB_MODE": "offline"}.items():
        monkeypatch.setenv(name, value)
    wandb.teardown()  # what another test set up has read the environment already
    loggers = [
        CSVLogger(tmp_path / "csv"),
        WandbLogger(save_dir=tmp_path, offline=True),
        TensorBoardLogger(tmp_path, name="board"),
    ]
    callback = SpectralCallback(verbose=0)
    fit(seeded(), callback, logger=loggers, epochs=1)
    loggers[1].experiment.finish()
    assert callback.directory == tmp_path / "board" / "version_0"


@pytest.mark.parametrize(("strategy", "devices"), [("ddp_spawn", 1), ("ddp_fork", 2)])
def test_the_parent_of_spawned_processes_finds_the_record(tmp_path, strategy, devices):
    command = [sys.executable, "-m", "tests.lightning.spawned", str(tmp_path), strategy, str(devices)]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=200)
    assert run.returncode == 0, run.stderr[-3000:]
    found = json.loads(run.stdout.splitlines()[-1])
    assert [f["directory"] for f in found] == [str(tmp_path / "record"), str(tmp_path / "record" / "run-2")]
    assert [f["steps"] for f in found] == [8 // devices, 12 // devices]
    assert all(f["layers"] == 3 and f["html"] for f in found)


@pytest.mark.parametrize("hook", ["training_step", "validation_step", "on_train_epoch_end", "configure_optimizers"])
def test_an_error_anywhere_leaves_a_verdict_and_is_the_users_own(tmp_path, hook):
    def fail(self, *arguments):
        raise Stop("the user's own error")

    kind = type("Kind", (Validated,), {hook: fail})
    callback = SpectralCallback(log_dir=str(tmp_path / "record"), verbose=0)
    with pytest.raises(Stop, match=r"^the user's own error$"):
        fit(seeded(kind), callback, validate=True, num_sanity_val_steps=0)
    if hook == "configure_optimizers":
        assert callback.run is None and not (tmp_path / "record").exists()
    else:
        assert read_run(tmp_path / "record").verdict is not None


def test_sigterm_leaves_a_verdict(tmp_path):
    """Lightning ends the fit at the end of the batch, by an exception."""

    def end(trainer):
        if trainer.global_step == 6:
            os.kill(os.getpid(), signal.SIGTERM)

    callback = SpectralCallback(log_dir=str(tmp_path / "record"), verbose=0, every_n_epochs=1)
    with pytest.raises(BaseException) as caught:
        fit(seeded(), callback, During(end))
    assert "SIGTERM" in type(caught.value).__name__
    record = read_run(tmp_path / "record")
    assert record.verdict is not None and record.model["step"].tolist() == [0, 4]


@pytest.mark.parametrize("tree", ["pytorch_lightning", "lightning.pytorch"])
def test_the_command_line_takes_the_class_with_nested_arguments(tmp_path, tree):
    pytest.importorskip("jsonargparse", reason="LightningCLI needs jsonargparse")
    np.save(tmp_path / "probe.npy", np.random.default_rng(0).normal(size=(8, 32)).astype("float32"))
    (tmp_path / "given.yaml").write_text(
        f"""
trainer:
  max_epochs: 2
  limit_train_batches: 4
  limit_val_batches: 1
  logger: false
  enable_checkpointing: false
  enable_progress_bar: false
  enable_model_summary: false
  callbacks:
    - class_path: ww_callbacks.lightning.SpectralCallback
      init_args:
        probe:
          class_path: ww_callbacks.probes.representation.RepresentationProbe
          init_args: {{batch: {tmp_path / "probe.npy"}, every_n_epochs: 1}}
        quantities: [default, rand_distance]
        layers: layer.*
        policies: {{explosion: log, non-finite: stop}}
        metrics: {{val_loss: x}}
        overtraining: {{output: layer.weight, least: 4}}
        detectors:
          - class_path: ww_callbacks.spectral.detectors.DeadLayer
            init_args: {{persistence: 2}}
        sinks:
          - class_path: ww_callbacks.integrations.sinks.console.ConsoleSink
            init_args: {{verbose: 0}}
        log_dir: {tmp_path / "log"}
        verbose: 0
"""
    )
    program = f"""
from {tree}.cli import LightningCLI
from {tree}.demos.boring_classes import BoringDataModule, BoringModel
args = ["fit", "--config", {str(tmp_path / "given.yaml")!r}]
cli = LightningCLI(BoringModel, BoringDataModule, args=args, save_config_kwargs={{"overwrite": True}})
(ours,) = [c for c in cli.trainer.callbacks if type(c).__name__ == "SpectralCallback"]
assert ours.settings.policies == {{"explosion": "log", "non-finite": "stop"}}
assert ours.settings.detectors[0].persistence == 2 and ours.settings.overtraining["least"] == 4
assert ours.history.rand_distance.notna().any() and ours.history.feature_effective_rank.notna().any()
"""
    run = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert run.returncode == 0, run.stderr[-3000:]


def test_checkpoints_of_a_lazy_model_are_resumed_from(tmp_path):
    callback, _ = watched(tmp_path, seeded(Lazy), ModelCheckpoint(tmp_path / "c"), epochs=2)
    (path,) = (tmp_path / "c").glob("*.ckpt")
    again, _ = watched(tmp_path, Lazy(), epochs=4, ckpt_path=path)
    assert again.directory == callback.directory
    assert again.summary["step"].tolist() == [0, 4, 8, 12, 16]
