"""Training under Lightning with the callback, quietly and without a data set: a step gets the rows of its batch."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import torch


class Rows:
    """The rows of each batch, shuffled again every epoch by a separate generator."""

    def __init__(self, n: int, batch: int, seed: int):
        self.n, self.batch = n, batch
        self.generator = torch.Generator().manual_seed(seed)

    def __len__(self) -> int:
        return -(-self.n // self.batch)

    def __iter__(self) -> Iterator[torch.Tensor]:
        return iter(torch.randperm(self.n, generator=self.generator).split(self.batch))


def fit(module: Any, rows: Rows, epochs: int, callback: Any) -> None:
    """Train ``module`` (a LightningModule) on the CPU with one callback and nothing else."""
    import pytorch_lightning as pl

    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    pl.Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        callbacks=[callback],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    ).fit(module, rows)
