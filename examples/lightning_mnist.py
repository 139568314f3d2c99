"""Lightning: an MLP on images, watched by one callback.

python -m examples.lightning_mnist                      the digits that scikit-learn carries
python -m examples.lightning_mnist --data FOLDER        full MNIST from FOLDER/mnist
"""

from __future__ import annotations

import argparse

import pytorch_lightning as pl
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from examples.data import digits, mnist
from ww_callbacks.lightning import SpectralCallback


class Classifier(pl.LightningModule):
    """An MLP whose training loss and accuracy are logged; nothing in it knows of the callback."""

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Flatten(),
            nn.Linear(inputs, width),
            nn.ReLU(),
            nn.Linear(width, width),
            nn.ReLU(),
            nn.Linear(width, 10),
        )

    def training_step(self, batch, _):
        images, labels = batch
        logits = self.net(images)
        loss = nn.functional.cross_entropy(logits, labels)
        self.log("train_loss", loss, on_epoch=True, on_step=False, prog_bar=True)
        self.log("train_acc", (logits.argmax(1) == labels).float().mean(), on_epoch=True, on_step=False, prog_bar=True)
        return loss

    def validation_step(self, batch, _):
        images, labels = batch
        self.log("val_acc", (self.net(images).argmax(1) == labels).float().mean(), prog_bar=True)

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=1e-3)


def loader(images, labels, batch_size: int, shuffle: bool) -> DataLoader:
    data = TensorDataset(torch.from_numpy(images), torch.from_numpy(labels))
    return DataLoader(data, batch_size=batch_size, shuffle=shuffle)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="folder that holds mnist/; without it scikit-learn's digits")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--width", type=int, default=300)
    parser.add_argument("--log-dir", default="runs/lightning")
    args = parser.parse_args()

    pl.seed_everything(0)
    train, test = mnist(args.data) if args.data else digits()
    model = Classifier(train[0][0].size, args.width)
    callback = SpectralCallback()
    trainer = pl.Trainer(
        max_epochs=args.epochs,
        callbacks=[callback],
        logger=pl.loggers.TensorBoardLogger(args.log_dir),
        accelerator="cpu",
    )
    trainer.fit(model, loader(*train, 64, True), loader(*test, 500, False))
    print(callback.history.query("epoch == epoch.max()")[["layer", "alpha", "alpha_evidence", "effective_rank"]])
    print("Verdict:", callback.verdict)


if __name__ == "__main__":
    main()
