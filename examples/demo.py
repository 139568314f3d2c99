"""What `make demo` runs: a network that memorises wrong labels, and a callback that sees it in the weights.

An MLP learns scikit-learn's digits, 40 % of whose training labels are wrong. It first learns what the digits look like
and then, epoch by epoch, the wrong labels by heart: the training loss keeps falling while the accuracy on fresh digits
falls too. The callback is given no validation data; the accuracy on fresh digits is measured here only to show what
it would have cost to train on.
"""

from __future__ import annotations

import argparse
import logging
import sys
import warnings

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import TQDMProgressBar
from torch import nn

from examples.data import digits
from examples.lightning_mnist import Classifier, loader
from ww_callbacks.lightning import SpectralCallback


class FreshDigits(pl.Callback):
    """Accuracy on digits with right labels, after each epoch; for the story only, nothing reads it."""

    def __init__(self, images: torch.Tensor, labels: torch.Tensor) -> None:
        self.images, self.labels = images, labels
        self.accuracy: dict[float, float] = {}

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        with torch.no_grad():
            right = pl_module.net(self.images).argmax(1) == self.labels
        self.accuracy[float(trainer.current_epoch + 1)] = right.float().mean().item()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--log-dir", default="runs/demo")
    args = parser.parse_args()
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="pytorch_lightning")

    pl.seed_everything(0, verbose=False)
    train, (images, labels) = digits(noise=0.4)
    model = Classifier(64, 200)
    model.net = nn.Sequential(*model.net)
    fresh = FreshDigits(torch.from_numpy(images), torch.from_numpy(labels))
    callback = SpectralCallback(early_stopping="cautious")
    trainer = pl.Trainer(
        max_epochs=args.epochs,
        callbacks=[callback, fresh, *([TQDMProgressBar(leave=False)] if sys.stderr.isatty() else [])],
        enable_progress_bar=sys.stderr.isatty(),  # in a file each of its frames would be a line
        logger=pl.loggers.TensorBoardLogger(args.log_dir, name=""),
        enable_model_summary=False,
        accelerator="cpu",
    )
    trainer.fit(model, loader(*train, 32, True))

    print("\nWhat the weights looked like at the end:")
    last = callback.history.query("step == step.max()")
    print(
        last[["layer", "alpha", "sigma", "alpha_evidence", "effective_rank", "relative_distance_from_init"]].to_string(
            index=False
        )
    )
    verdict = callback.verdict
    best = max(fresh.accuracy, key=fresh.accuracy.get)
    print("\nOn fresh digits, which the callback never saw:")
    print(f"  best        {fresh.accuracy[best]:.1%} after epoch {best:g}")
    print(f"  at the end  {fresh.accuracy[max(fresh.accuracy)]:.1%} after epoch {max(fresh.accuracy):g}")
    if verdict.best_epoch in fresh.accuracy:
        kept = fresh.accuracy[verdict.best_epoch]
        print(f"  kept        {kept:.1%} after epoch {verdict.best_epoch:g}, in {callback.best_checkpoint}")
    if not verdict.stopped:
        print("  (the callback did not stop this run)")


if __name__ == "__main__":
    main()
