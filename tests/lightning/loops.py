"""Training loops as Lightning's users write them: manual optimisation, several optimisers, streams."""

from __future__ import annotations

import pytorch_lightning as pl
import torch
from torch import nn
from torch.utils.data import DataLoader, IterableDataset

from tests.adapters.nets import Net, loader


class Manual(Net):
    """Steps ``optimizers`` optimisers by hand, each every ``accumulate`` batches, Lightning's wrapper around or not."""

    def __init__(self, optimizers=1, wrapped=True, accumulate=1, spoil_at=None):
        super().__init__()
        self.automatic_optimization = False
        self.count, self.wrapped, self.accumulate, self.spoil_at = optimizers, wrapped, accumulate, spoil_at

    def training_step(self, batch, index):
        optimizers = self.optimizers(use_pl_optimizer=self.wrapped)
        optimizers = optimizers if isinstance(optimizers, list) else [optimizers]
        loss = super().training_step(batch, index)
        self.manual_backward(loss)
        if (index + 1) % self.accumulate == 0:
            for optimizer in optimizers:
                optimizer.step()
                optimizer.zero_grad()
        if self.spoil_at == (self.current_epoch, index):
            with torch.no_grad():
                self.net[0].weight[0, 0] = float("nan")
        return loss

    def configure_optimizers(self):
        layers = [m for m in self.net if isinstance(m, nn.Linear)]
        if self.count == 1:
            return torch.optim.SGD(self.parameters(), self.rate)
        return [torch.optim.SGD(layers[i].parameters(), self.rate) for i in range(self.count)]


class HandMade(Net):
    """Updates the weights without stepping any optimiser."""

    def __init__(self):
        super().__init__()
        self.automatic_optimization = False

    def training_step(self, batch, index):
        loss = super().training_step(batch, index)
        self.zero_grad()
        self.manual_backward(loss)
        with torch.no_grad():
            for parameter in self.parameters():
                parameter -= 0.1 * parameter.grad
        return loss


class Stream(IterableDataset):
    """Batches without end, or ``batches`` of them."""

    def __init__(self, batches=None):
        self.batches = batches

    def __iter__(self):
        examples = list(loader(4).dataset)
        count = 0
        while self.batches is None or count < self.batches * 8:
            yield examples[count % len(examples)]
            count += 1


def stream(batches=None):
    return DataLoader(Stream(batches), batch_size=8)


class During(pl.Callback):
    """Calls a function with the Trainer at the end of every batch."""

    def __init__(self, call):
        self.call = call

    def on_train_batch_end(self, trainer, *others):
        self.call(trainer)
