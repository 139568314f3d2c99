"""Rows of the harmless matrix: both of Lightning's Trainers, with the loops that users write and all their loggers."""

from __future__ import annotations

import importlib
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from tests.adapters.harmless.checks import (
    Case,
    Outcome,
    Watch,
    csv_rows,
    ended_by,
    plain_results,
    process_state,
    tensorboard_rows,
    torch_attributes,
    torch_weights,
    wandb_rows,
)
from tests.adapters.nets import loader

TREES = ("pytorch_lightning", "lightning.pytorch")


def watch(folder: Path) -> Any:
    """The callback, with everything that it can do in the background."""
    from ww_callbacks.lightning import SpectralCallback

    return SpectralCallback(quantities=["default", "rand_distance"], verbose=0, workers=2, every_n_steps=3)


def module_of(tree: str, kind: str) -> Any:
    """A model of ``tree`` that draws random numbers, logs in every way and trains as ``kind`` says."""
    pl = importlib.import_module(tree)

    class Model(pl.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.net = nn.Sequential(
                nn.Linear(12, 24), nn.BatchNorm1d(24), nn.Dropout(0.3), nn.ReLU(), nn.Linear(24, 16), nn.Linear(16, 3)
            )
            self.automatic_optimization = kind not in ("gan", "raw")
            self.save_hyperparameters({"width": 24})

        def training_step(self, batch: Any, index: int) -> Any:
            x, y = batch
            logits = self.net(x + 0.01 * torch.randn_like(x))
            loss = nn.functional.cross_entropy(logits, y)
            self.log("train_loss", loss, on_step=True, on_epoch=True, prog_bar=True)
            self.log("train_acc", (logits.argmax(1) == y).float().mean())
            if self.global_step % 3 == 0:
                for logger in self.loggers:
                    logger.log_metrics({"by_hand": float(index)}, step=self.global_step)
            if kind == "fails" and self.current_epoch == 2:
                raise RuntimeError("the user's own error")
            if not self.automatic_optimization:
                self._by_hand(loss)
                return None
            return loss

        def _by_hand(self, loss: Any) -> None:
            optimizers = self.optimizers(use_pl_optimizer=kind == "gan")
            self.manual_backward(loss)
            for optimizer in optimizers:
                optimizer.step()
                optimizer.zero_grad()

        def validation_step(self, batch: Any, index: int) -> None:
            x, y = batch
            self.log("val_loss", nn.functional.cross_entropy(self.net(x), y))

        def on_validation_epoch_end(self) -> None:
            self.log("val_random", torch.rand(()))

        def on_train_epoch_start(self) -> None:
            if kind == "stops" and self.current_epoch == 2:
                self.trainer.should_stop = True

        def configure_optimizers(self) -> Any:
            layers = self.net[0].parameters(), self.net[4:].parameters()
            if not self.automatic_optimization:
                return [torch.optim.Adam(p, 0.01) for p in layers]
            optimizer = torch.optim.SGD(self.parameters(), 0.1, momentum=0.9)
            schedule = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, patience=0)
            return {"optimizer": optimizer, "lr_scheduler": schedule, "monitor": "val_loss"}

    return Model()


def loggers_of(tree: str, folder: Path) -> list[Any]:
    """CSV, TensorBoard and W&B."""
    loggers = importlib.import_module(f"{tree}.loggers")
    return [
        loggers.CSVLogger(folder, name="csv", version=0),
        loggers.TensorBoardLogger(folder, name="tensorboard", version=0),
        loggers.WandbLogger(save_dir=folder, offline=True),
    ]


def train(folder: Path, watch: Watch, tree: str = TREES[0], kind: str = "automatic", **options: Any) -> Outcome:
    """Train five epochs and look at everything that the user gets."""
    pl = importlib.import_module(tree)
    pl.seed_everything(3, verbose=False)
    model, loggers = module_of(tree, kind), loggers_of(tree, folder)
    saver = pl.callbacks.ModelCheckpoint(folder / "kept", monitor="val_loss", save_top_k=2, save_last=True)
    timed = pl.callbacks.ModelCheckpoint(folder / "timed", every_n_train_steps=4, save_top_k=-1)
    stopper = pl.callbacks.EarlyStopping("val_loss", patience=1)
    callbacks = [stopper, pl.callbacks.LearningRateMonitor(), *([watch(folder)] if watch else []), saver, timed]
    defaults: dict[str, Any] = {"max_epochs": 5, "log_every_n_steps": 1, "num_sanity_val_steps": 1}
    trainer = pl.Trainer(
        **defaults | options,
        accelerator="cpu",
        logger=loggers,
        callbacks=callbacks,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=folder,
    )
    ended = ended_by(lambda: trainer.fit(model, loader(6, shuffle=True), loader(2)))
    if not ended:
        ended = repr([plain_results(r) for r in trainer.validate(model, loader(2), verbose=False)])
    process = process_state()
    loggers[2].experiment.finish()
    saved = sorted(p.relative_to(folder).as_posix() for name in ("kept", "timed") for p in (folder / name).glob("*"))
    return Outcome(
        torch_weights(model, trainer.optimizers),
        {
            "CSV": csv_rows(folder / "csv" / "version_0" / "metrics.csv"),
            "TensorBoard": tensorboard_rows(folder / "tensorboard" / "version_0"),
            "W&B": wandb_rows(folder),
        },
        {
            "metrics": plain_results(trainer.callback_metrics),
            "logged": plain_results(trainer.logged_metrics),
            "bar": plain_results(trainer.progress_bar_metrics),
            "kept": [(Path(p).name, float(v)) for p, v in saver.best_k_models.items()],
            "best": (Path(saver.best_model_path).name, str(saver.best_model_score)),
            "saved": saved,
            "stopper": {k: str(v) for k, v in stopper.state_dict().items()},
            "counters": (trainer.global_step, trainer.current_epoch, trainer.should_stop, str(trainer.state.status)),
            "attributes": torch_attributes(model),
            "callbacks": [type(c).__name__ for c in trainer.callbacks if type(c).__name__ != "SpectralCallback"],
        },
        ended,
        process,
    )


KINDS: dict[str, dict[str, Any]] = {
    "automatic": {},
    "two optimisers by hand": {"kind": "gan"},
    "raw optimisers": {"kind": "raw"},
    "an error of the user's": {"kind": "fails"},
    "a stop of the user's": {"kind": "stops", "max_epochs": 9},
    "validation within epochs": {"val_check_interval": 2},
    "accumulated gradients": {"accumulate_grad_batches": 4},
    "nothing to train": {"max_epochs": 0},
}
CASES: dict[str, Case] = {
    f"{tree}, {name}": partial(train, tree=tree, **options) for tree in TREES for name, options in KINDS.items()
}
