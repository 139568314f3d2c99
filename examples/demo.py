"""What `make demo` runs: a network that memorises wrong labels, and a callback that stops it and keeps better weights.

An MLP learns scikit-learn's digits, 40 % of whose training labels are wrong. It first learns what the digits look like
and then, epoch by epoch, the wrong labels by heart: the training loss keeps falling while the accuracy on fresh digits
falls too. The callback watches it twice:

- a tenth of the training digits (with their wrong labels) is held out, and its loss is logged: the validation decides;
- nothing is held out: the weights and the losses of training decide, more slowly, even with "eager", which accepts more
  false alarms.

Each time `restore="best"` puts the average of the weights over the best epoch into the model at the end. The accuracy
on fresh digits, with right labels, is measured here only to show what it would have cost to train on.
"""

from __future__ import annotations

import argparse
import logging
import sys
import warnings
from pathlib import Path

import numpy as np
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import TQDMProgressBar
from torch import nn

from examples.data import digits
from examples.lightning_mnist import Classifier, loader
from ww_callbacks.lightning import SpectralCallback

Data = tuple[np.ndarray, np.ndarray]


class Watched(Classifier):
    """The examples' classifier; where digits are held out, their loss is logged."""

    def validation_step(self, batch, _):
        images, labels = batch
        self.log("val_loss", nn.functional.cross_entropy(self.net(images), labels), prog_bar=True)


class FreshDigits(pl.Callback):
    """Accuracy on digits with right labels, after each epoch; for the story only, nothing reads it."""

    def __init__(self, images: np.ndarray, labels: np.ndarray) -> None:
        self.images, self.labels = torch.from_numpy(images), torch.from_numpy(labels)
        self.accuracy: dict[float, float] = {}

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.accuracy[float(trainer.current_epoch + 1)] = self.measure(pl_module)

    def measure(self, module: pl.LightningModule) -> float:
        with torch.no_grad():
            right = module.net(self.images).argmax(1) == self.labels
        return right.float().mean().item()


def train(data: Data, held_out: Data | None, test: Data, epochs: int, folder: Path, preset: str) -> None:
    """Train under watch, and say what was kept and what it is worth."""
    pl.seed_everything(0, verbose=False)
    model, fresh = Watched(64, 200), FreshDigits(*test)
    callback = SpectralCallback(early_stopping=preset, restore="best")
    trainer = pl.Trainer(
        max_epochs=epochs,
        callbacks=[callback, fresh, *([TQDMProgressBar(leave=False)] if sys.stderr.isatty() else [])],
        enable_progress_bar=sys.stderr.isatty(),  # in a file each of its frames would be a line
        logger=pl.loggers.TensorBoardLogger(folder, name=""),
        enable_model_summary=False,
        accelerator="cpu",
    )
    trainer.fit(model, loader(*data, 32, True), loader(*held_out, 256, False) if held_out is not None else None)
    best, last = max(fresh.accuracy, key=fresh.accuracy.get), max(fresh.accuracy)
    kept = callback.verdict.best_epoch
    print("\nAccuracy on fresh digits, which the callback never saw:")
    print(f"  best of all epochs        {fresh.accuracy[best]:.1%}  epoch {best:g}")
    print(f"  at the end                {fresh.accuracy[last]:.1%}  epoch {last:g}")
    if kept in fresh.accuracy:
        print(f"  epoch to keep             {fresh.accuracy[kept]:.1%}  epoch {kept:g}, {callback.best_checkpoint}")
        print(f"  its average, in the model {fresh.measure(model):.1%}  epoch {kept:g}, {callback.best_average}")
    if not callback.verdict.stopped:
        print("  (the callback did not stop this run)")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--log-dir", type=Path, default=Path("runs/demo"))
    args = parser.parse_args()
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="pytorch_lightning")
    (images, labels), test = digits(noise=0.4)
    part = len(images) // 10
    print("\n=== With a tenth held out: the validation loss decides ===\n")
    held_out = images[:part], labels[:part]
    train((images[part:], labels[part:]), held_out, test, args.epochs, args.log_dir / "with_validation", "cautious")
    print("\n=== With nothing held out: training itself decides ===\n")
    train((images, labels), None, test, args.epochs, args.log_dir / "without_validation", "eager")


if __name__ == "__main__":
    main()
