"""Small Lightning modules and data for the tests at scale."""

from __future__ import annotations

import pytorch_lightning as pl
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from tests.lifecycle.records import Stop


class Net(pl.LightningModule):
    """No dropout: neither Lightning nor Keras restores the random state."""

    def __init__(self, rate=0.1, stop_at=None):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(12, 24), nn.ReLU(), nn.Linear(24, 24), nn.ReLU(), nn.Linear(24, 3))
        self.rate, self.stop_at = rate, stop_at

    def training_step(self, batch, index):
        if self.stop_at == (self.current_epoch, index):
            raise Stop("the user's own error")
        x, y = batch
        return nn.functional.cross_entropy(self.net(x), y)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), self.rate, momentum=0.9)


class Validated(Net):
    def validation_step(self, batch, index):
        x, y = batch
        self.log("val_loss", nn.functional.cross_entropy(self.net(x), y))


def adapted():
    """DoRA, which is LoRA and a learned length, on two layers."""
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(12, 24), nn.Tanh(), nn.Linear(24, 16), nn.Tanh(), nn.Linear(16, 3))
    return get_peft_model(net, LoraConfig(r=4, target_modules=["0", "2"], init_lora_weights=False, use_dora=True))


def loader(batches=4, shuffle=False):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(batches * 8, 12, generator=generator)
    return DataLoader(TensorDataset(x, x[:, :3].argmax(1)), batch_size=8, shuffle=shuffle)


def same_batches():
    """Every batch is the same, so that the order is the same wherever an epoch is resumed."""
    x, y = next(iter(loader(1)))
    return DataLoader(TensorDataset(x.repeat(4, 1), y.repeat(4)), batch_size=8)


def fit(model, *callbacks, epochs=4, validate=False, data=None, **options):
    ckpt_path = options.pop("ckpt_path", None)
    options.setdefault("logger", False)
    options.setdefault("enable_checkpointing", any(isinstance(c, pl.callbacks.ModelCheckpoint) for c in callbacks))
    trainer = pl.Trainer(
        max_epochs=epochs,
        callbacks=list(callbacks),
        enable_progress_bar=False,
        enable_model_summary=False,
        accelerator="cpu",
        **options,
    )
    trainer.fit(model, loader() if data is None else data, loader(2) if validate else None, ckpt_path=ckpt_path)
    return trainer


def seeded(kind=Net, **arguments):
    torch.manual_seed(0)
    return kind(**arguments)
