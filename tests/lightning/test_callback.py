"""The Lightning adapter in real Trainers."""

import json
import random

import numpy as np
import pandas as pd
import pytest

pl = pytest.importorskip("pytorch_lightning", reason="needs the extra lightning")
import torch
from pytorch_lightning.callbacks import EarlyStopping, ModelCheckpoint
from pytorch_lightning.loggers import CSVLogger, TensorBoardLogger
from torch import nn
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

from ww_callbacks.lightning import SpectralCallback


class Net(pl.LightningModule):
    def __init__(self, rate=0.1, spoil_at=None):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(12, 24), nn.Dropout(0.2), nn.ReLU(), nn.Linear(24, 24), nn.Linear(24, 3))
        self.rate, self.spoil_at = rate, spoil_at

    def training_step(self, batch, index):
        x, y = batch
        logits = self.net(x)
        self.log("train_acc", (logits.argmax(1) == y).float().mean(), on_step=False, on_epoch=True)
        return nn.functional.cross_entropy(logits, y)

    def validation_step(self, batch, index):
        x, y = batch
        self.log("val_loss", nn.functional.cross_entropy(self.net(x), y))

    def on_train_epoch_start(self):
        if self.current_epoch == self.spoil_at:
            with torch.no_grad():
                self.net[0].weight[0, 0] = float("nan")

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), self.rate)


def data(batches=4):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(batches * 8, 12, generator=generator)
    return TensorDataset(x, x[:, :3].argmax(1))


def fit(folder, *callbacks, epochs=5, model=None, loader=None, validate=False, trainer_class=None, **options):
    pl.seed_everything(0, verbose=False)
    options.setdefault("logger", False)
    options.setdefault("enable_checkpointing", False)
    trainer = (trainer_class or pl.Trainer)(
        max_epochs=epochs,
        callbacks=list(callbacks),
        default_root_dir=folder,
        enable_progress_bar=False,
        enable_model_summary=False,
        accelerator="cpu",
        **options,
    )
    model = model or Net()
    if loader is None:
        loader = DataLoader(data(), batch_size=8, shuffle=True)
    trainer.fit(model, loader, DataLoader(data(), batch_size=32) if validate else None)
    return trainer, model


def records(callback):
    with open(callback.directory / "spectral.jsonl") as file:
        return [json.loads(line) for line in file]


@pytest.mark.parametrize("tree", ["pytorch_lightning", "lightning.pytorch"])
def test_with_no_argument_every_epoch_is_measured(tmp_path, tree):
    package = pytest.importorskip(tree)
    callback = SpectralCallback()
    logger = package.loggers.CSVLogger(tmp_path)

    class Tree(Net if tree == "pytorch_lightning" else package.LightningModule):
        pass

    if tree != "pytorch_lightning":
        for name in ("__init__", "training_step", "validation_step", "on_train_epoch_start", "configure_optimizers"):
            if name != "__init__":
                setattr(Tree, name, Net.__dict__[name])
        Tree.__init__ = lambda self: (
            package.LightningModule.__init__(self),
            setattr(self, "net", nn.Sequential(nn.Linear(12, 24), nn.ReLU(), nn.Linear(24, 3))),
            setattr(self, "rate", 0.1),
            setattr(self, "spoil_at", None),
        )[0]
    fit(tmp_path, callback, model=Tree(), logger=logger, trainer_class=package.Trainer)

    history = callback.history
    assert sorted(history.epoch.unique()) == [0, 1, 2, 3, 4, 5]
    assert sorted(history.step.unique()) == [0, 4, 8, 12, 16, 20]
    assert history[history.epoch == 0].layer.iloc[0] == "net.0.weight"
    assert (history[history.epoch == 0].distance_from_init == 0).all()
    assert callback.verdict.state == "no sign of overtraining"
    assert callback.directory == tmp_path / "lightning_logs" / "version_0"
    rows = records(callback)
    assert rows[0]["framework"] == "lightning" and rows[-1]["record"] == "verdict"
    model = [r for r in rows if r["record"] == "model"]
    assert all(0 < r["metrics"]["train_loss"] < 3 for r in model[1:])
    assert all(r["metrics"]["learning_rate"] == 0.1 for r in model[1:])
    assert all(0 <= r["metrics"]["train_accuracy"] <= 1 for r in model[1:])
    logged = pd.read_csv(callback.directory / "metrics.csv")
    assert "spectral/effective_rank/median" in logged and logged["spectral/effective_rank/median"].notna().sum() == 6


def test_training_is_not_disturbed(tmp_path):
    states = []
    for callbacks in ((), (SpectralCallback(workers=2, quantities=["default", "rand_distance"], verbose=0),)):
        _, model = fit(tmp_path, *callbacks, validate=True)
        states.append(
            (
                {k: v.clone() for k, v in model.state_dict().items()},
                torch.get_rng_state(),
                np.random.get_state()[1].tolist(),
                random.getstate(),
                {k for m in model.modules() for k in vars(m)},
            )
        )
    (weights, *rest), (weights_with, *rest_with) = states
    assert all(torch.equal(weights[k], weights_with[k]) for k in weights)
    assert torch.equal(rest[0], rest_with[0])
    assert rest[1:] == rest_with[1:]


def test_lightnings_own_callbacks_monitor_our_values_whatever_the_order(tmp_path):
    """They look at the validation's end, before the training epoch has ended, and stand before ours in the list."""
    stopper = EarlyStopping("spectral/relative_distance_from_init/median", patience=2, mode="min")
    keeper = ModelCheckpoint(tmp_path / "kept", monitor="spectral/effective_rank/mean", mode="max", save_top_k=1)
    callback = SpectralCallback(verbose=0)
    trainer, _ = fit(tmp_path, stopper, keeper, callback, epochs=10, validate=True, enable_checkpointing=True)
    assert trainer.current_epoch == 3  # the distance grows from the first epoch on, so patience ends after the third
    summary = callback.summary
    assert float(keeper.best_model_score) == pytest.approx(summary["effective_rank/mean"][1:].max(), rel=1e-6)
    assert list(summary.epoch) == [0, 1, 2, 3]


def test_an_unknown_monitor_is_refused_before_training_with_what_is_near(tmp_path):
    stopper = EarlyStopping("spectral/effective_rank/medain", mode="max")
    with pytest.raises(
        ValueError, match=r"EarlyStopping monitors 'spectral/effective_rank/medain'.*effective_rank/median"
    ):
        fit(tmp_path, stopper, SpectralCallback(verbose=0), validate=True)


def test_a_monitor_without_evidence_is_refused_before_training_unless_it_may_be_missing(tmp_path):
    """The layers are far too small for an α with evidence."""
    callback = SpectralCallback(verbose=0)
    with pytest.raises(ValueError, match=r"no layer has enough evidence for an α yet.*`strict=False`"):
        fit(tmp_path, EarlyStopping("spectral/alpha/median"), callback, validate=True)
    lenient = EarlyStopping("spectral/alpha/median", strict=False, verbose=False)
    trainer, _ = fit(tmp_path, lenient, SpectralCallback(verbose=0), epochs=2, validate=True)
    assert trainer.current_epoch == 2


def test_streams_to_tensorboard(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    callback = SpectralCallback(verbose=0)
    fit(tmp_path, callback, logger=TensorBoardLogger(tmp_path))
    events = EventAccumulator(str(callback.directory), size_guidance={"tensors": 0, "scalars": 0})
    events.Reload()
    tags = events.Tags()["tensors"]
    read = [t for t in tags if t == "spectral/log_spectral_norm/median"]
    assert read, tags
    assert [e.step for e in events.Tensors(read[0])] == [0, 3, 7, 11, 15, 19]  # as Lightning's own metrics
    values = [e.tensor_proto.float_val[0] for e in events.Tensors(read[0])]
    np.testing.assert_allclose(values, callback.summary["log_spectral_norm/median"], rtol=1e-6)
    assert len(tags) < 80


def test_a_run_of_steps_is_measured_about_twenty_times(tmp_path):
    class Stream(IterableDataset):
        def __iter__(self):
            return iter(data(200))

    callback = SpectralCallback(verbose=0)
    fit(tmp_path, callback, epochs=-1, loader=DataLoader(Stream(), batch_size=8), max_steps=120)
    steps = sorted(callback.history.step.unique())
    assert steps == list(range(0, 121, 6))


def test_cheap_quantities_more_often(tmp_path):
    callback = SpectralCallback(every_n_epochs=2, cheap_every_n_steps=2, verbose=0)
    fit(tmp_path, callback, epochs=4)
    kinds = callback.summary.set_index("step").kind
    assert list(kinds[kinds == "full"].index) == [0, 8, 16]
    assert set(kinds[kinds == "cheap"].index) >= {2, 4, 6, 10, 12, 14}
    history = callback.history
    assert history[history.step == 2].alpha.isna().all()
    assert (history[history.step == 2].distance_from_init > 0).all()


def test_non_finite_weights_alert_and_training_goes_on(tmp_path):
    callback = SpectralCallback(verbose=0)
    trainer, _ = fit(tmp_path, callback, model=Net(spoil_at=2))
    assert trainer.current_epoch == 5
    alert = next(a for a in callback.alerts if a.kind == "non-finite")
    assert "net.0.weight" in alert.layers and alert.since_epoch == 3
    last = callback.history.query("epoch == 5")
    assert (last.status == "non-finite").any() and last.alpha.isna().any()
    assert callback.verdict.state == "broken"


def test_stops_by_lightnings_own_means_and_says_why(tmp_path, capsys):
    callback = SpectralCallback(policies={"non-finite": "stop"})
    trainer, _ = fit(tmp_path, callback, model=Net(spoil_at=2), epochs=8)
    assert trainer.should_stop and trainer.current_epoch == 3
    assert callback.verdict.stopped
    said = [r for r in records(callback) if r["record"] == "alert"]
    assert said[0]["action"] == "stop" and "net.0.weight" in said[0]["layers"]
    assert "net.0.weight" in capsys.readouterr().out


def test_min_epochs_win(tmp_path):
    trainer, _ = fit(
        tmp_path, SpectralCallback(policies={"non-finite": "stop"}, verbose=0), model=Net(spoil_at=0), min_epochs=4
    )
    assert trainer.current_epoch == 4


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"layers": ["netz.*"]}, "matches nothing"),
        ({"types": ["Conv2d"]}, "'Conv2d'.*matches nothing"),
        ({"baseline": "nowhere.safetensors"}, "nowhere.safetensors"),
    ],
)
def test_refused_before_training(tmp_path, settings, message):
    model = Net()
    model.training_step = lambda *_: pytest.fail("training started")
    with pytest.raises((ValueError, OSError), match=message):
        fit(tmp_path, SpectralCallback(**settings), model=model)


def test_a_folder_that_cannot_be_written_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="another folder"):
        fit(tmp_path, SpectralCallback(log_dir=tmp_path / "file" / "below"))


def test_an_error_of_ours_is_said_once_and_training_goes_on(tmp_path, monkeypatch, caplog):
    import ww_callbacks.publishing.publisher as publisher

    monkeypatch.setattr(publisher, "summarise_layers", lambda rows, errors: 1 / 0)
    trainer, _ = fit(tmp_path, SpectralCallback(verbose=0))
    assert trainer.current_epoch == 5
    said = [r.message for r in caplog.records if r.name == "ww_callbacks"]
    assert len(said) == 1 and "ZeroDivisionError" in said[0]
    with pytest.raises(ZeroDivisionError):
        fit(tmp_path, SpectralCallback(verbose=0, strict=True))


def test_a_sink_that_fails_is_said_once_and_the_others_go_on(tmp_path, caplog):
    class Broken(CSVLogger):
        def log_metrics(self, metrics, step=None):
            if any(k.startswith("spectral/") for k in metrics):
                raise OSError(28, "No space left on device")
            super().log_metrics(metrics, step)

    callback = SpectralCallback(verbose=0)
    fit(tmp_path, callback, logger=[Broken(tmp_path / "a"), CSVLogger(tmp_path / "b")])
    said = [r.message for r in caplog.records if r.name == "ww_callbacks"]
    assert len(said) == 1 and "Broken" in said[0] and "No space left" in said[0]
    assert "spectral/alerts" in pd.read_csv(tmp_path / "b" / "lightning_logs" / "version_0" / "metrics.csv")
    assert len(callback.summary) == 6


def test_fast_dev_run_leaves_nothing_in_the_working_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    callback = SpectralCallback(verbose=0)
    fit(tmp_path, callback, fast_dev_run=True)
    assert not list(tmp_path.iterdir())
    assert len(callback.history) > 0


def test_without_a_logger_the_record_lies_in_a_named_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    callback = SpectralCallback(verbose=0)
    fit(tmp_path, callback)
    assert callback.directory.parent.name == "spectral_runs"


def test_two_fits_are_two_records(tmp_path):
    callback = SpectralCallback(log_dir=tmp_path / "log", verbose=0)
    fit(tmp_path, callback, epochs=5)
    first = callback.directory
    fit(tmp_path, callback, epochs=6)
    assert first != callback.directory and len(callback.summary) == 7


def test_what_is_shown_in_a_notebook(tmp_path):
    callback = SpectralCallback(verbose=0)
    assert "no training" in callback._repr_html_()
    fit(tmp_path, callback, model=Net(spoil_at=1))
    html = callback._repr_html_()
    assert "non-finite" in html and "<table" in html and "% of training time" in html


def test_lightning_cli_reads_the_arguments_from_yaml(tmp_path):
    pytest.importorskip("jsonargparse", reason="LightningCLI needs jsonargparse")
    from pytorch_lightning.cli import LightningCLI
    from pytorch_lightning.demos.boring_classes import BoringDataModule, BoringModel

    config = tmp_path / "given.yaml"
    config.write_text(
        f"""
trainer:
  max_epochs: 1
  logger: false
  enable_checkpointing: false
  enable_progress_bar: false
  callbacks:
    - class_path: ww_callbacks.lightning.SpectralCallback
      init_args:
        quantities: [default, rand_distance]
        every_n_epochs: 1
        layers: [layer.*]
        policies: {{explosion: log}}
        log_dir: {tmp_path / "log"}
        verbose: 0
"""
    )
    cli = LightningCLI(BoringModel, BoringDataModule, args=["fit", "--config", str(config)])
    callback = next(c for c in cli.trainer.callbacks if isinstance(c, SpectralCallback))
    assert callback.settings.policies == {"explosion": "log"}
    assert callback.history.rand_distance.notna().any()
    header = records(callback)[0]
    assert header["settings"]["layers"] == ["layer.*"]
