"""Rows of the harmless matrix: loops of the user's own."""

from __future__ import annotations

import random
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from tests.adapters.harmless.checks import (
    Case,
    Outcome,
    Watch,
    ended_by,
    process_state,
    tensorboard_rows,
    torch_attributes,
    torch_weights,
    wandb_rows,
)
from tests.adapters.nets import loader


def watch(folder: Path) -> Any:
    """Makes the monitor of a model."""
    from ww_callbacks import SpectralMonitor

    return partial(SpectralMonitor, log_dir=folder / "record", verbose=0, quantities=["default", "rand_distance"])


def train(folder: Path, watch: Watch, fails: bool = False) -> Outcome:
    """A loop in torch that logs to TensorBoard and W&B itself, with its own steps."""
    import wandb
    from torch.utils.tensorboard import SummaryWriter

    torch.manual_seed(0), np.random.seed(0), random.seed(0)
    model = nn.Sequential(nn.Linear(12, 24), nn.BatchNorm1d(24), nn.Dropout(0.3), nn.ReLU(), nn.Linear(24, 3))
    optimizer = torch.optim.Adam(model.parameters(), 0.01)
    run = wandb.init(dir=str(folder))
    writer = SummaryWriter(str(folder / "events"))
    monitor = watch(folder)(model) if watch else None

    def loop() -> None:
        step = 0
        for epoch in range(4):
            for x, y in loader(5, shuffle=True):
                loss = nn.functional.cross_entropy(model(x + np.random.randn() * 0.01), y)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                step += 1
                writer.add_scalar("loss", loss.item(), step)
                run.log({"loss": loss.item(), "draw": random.random()}, step=step)
                if monitor is not None:
                    monitor.step(loss=loss)
                if fails and step == 8:
                    raise RuntimeError("the user's own error")
            if monitor is not None:
                monitor.observe(step=step, epoch=epoch + 1, val_loss=0.5)
            run.log({"epoch": epoch}, step=step)

    ended = ended_by(loop)
    if monitor is not None:
        monitor.close()
    run.log({"test": 1.0}, step=99)
    process = process_state()
    run.finish()
    writer.close()
    logged = {"TensorBoard": tensorboard_rows(folder / "events"), "W&B": wandb_rows(folder)}
    results = {"attributes": torch_attributes(model)}
    return Outcome(torch_weights(model, [optimizer]), logged, results, ended, process)


CASES: dict[str, Case] = {"torch": train, "torch, an error of the user's": partial(train, fails=True)}
