"""What two gloo processes do for test_zero_three: DeepSpeed ZeRO-3 in a plain loop, with a monitor and without.

torchrun --nproc-per-node 2 -m tests.scheduling.processes.zero_three FOLDER
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import deepspeed
import torch
import torch.distributed as dist
from torch import nn

from tests.adapters.nets import adapted
from ww_callbacks import SpectralMonitor

RANK = int(os.environ.get("RANK", "0"))
PERSISTENT = 100
"""Parameters of fewer values stay whole on every process; the last layer's weight has 48."""
CONFIG = {
    "train_micro_batch_size_per_gpu": 8,
    "zero_optimization": {"stage": 3, "stage3_param_persistence_threshold": PERSISTENT},
    "zero_allow_untested_optimizer": True,
}


def net():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(12, 24),
        nn.Tanh(),
        nn.Linear(24, 16),
        nn.Tanh(),
        nn.utils.parametrizations.weight_norm(nn.Linear(16, 16)),
        nn.Linear(16, 3),
    )


def train(watch=None):
    """Two epochs of two steps; the losses, and after each epoch the weights and how many values of each were left."""
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
    engine, *_ = deepspeed.initialize(model=model, optimizer=optimizer, config=CONFIG)
    monitor = watch(engine) if watch else None
    generator = torch.Generator().manual_seed(RANK)
    losses, weights, left = [], [], []
    for epoch in range(2):
        for _ in range(2):
            x = torch.randn(8, 12, generator=generator)
            loss = nn.functional.cross_entropy(engine(x), x[:, :3].argmax(1))
            engine.backward(loss)
            engine.step()
            losses.append(loss.item())
        if monitor is not None:
            monitor.observe(step=2 * (epoch + 1), epoch=epoch + 1)
        parameters = dict(engine.module.named_parameters())
        left.append({name: p.numel() for name, p in parameters.items()})
        with deepspeed.zero.GatheredParameters([p for p in parameters.values() if not p.numel()]):
            weights.append({name: p.detach().clone() for name, p in parameters.items()})
    if monitor is not None:
        monitor.close()
    return losses, weights, left, monitor, engine


def huggingface(folder):
    """The Trainer with the same stage; the layers that are this process's own."""
    from tests.huggingface.test_resume import Model
    from tests.huggingface.test_resume import train as train_with
    from ww_callbacks.huggingface import SpectralCallback

    torch.manual_seed(0)
    callback = SpectralCallback(log_dir=str(folder / "huggingface"), verbose=0, strict=True, every_n_epochs=1)
    options = {"num_train_epochs": 2, "save_strategy": "no", "optim": "sgd", "ddp_backend": "gloo"}
    trainer = train_with(folder / "trainer", callback, Model(), deepspeed=CONFIG, **options)
    parameters = dict(trainer.model.named_parameters())
    with deepspeed.zero.GatheredParameters([p for p in parameters.values() if not p.numel()]):
        if RANK == 0:
            weights = {name: p.detach().clone() for name, p in parameters.items()}
            torch.save(weights, folder / "weights-huggingface.pt")
    return sorted(callback.run._measuring.own or ())


def lora(folder):
    """A step that trains adapters only, with every parameter partitioned, however small."""
    config = CONFIG | {"zero_optimization": {"stage": 3, "stage3_param_persistence_threshold": 0}}
    model = adapted()
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], 0.1)
    engine, *_ = deepspeed.initialize(model=model, optimizer=optimizer, config=config)
    with SpectralMonitor(engine, log_dir=str(folder / "lora"), verbose=0, strict=True) as monitor:
        loss = engine(torch.ones(8, 12)).square().mean()
        engine.backward(loss)
        engine.step()
        monitor.observe(step=1)
    parameters = dict(engine.module.named_parameters())
    assert not any(p.numel() for p in parameters.values())
    with deepspeed.zero.GatheredParameters(list(parameters.values())):
        if RANK == 0:
            weights = {name: p.detach().clone() for name, p in parameters.items()}
            torch.save(weights, folder / "weights-lora.pt")


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    deepspeed.init_distributed("gloo")
    losses, weights, left, *_ = train()

    def watch(engine):
        return SpectralMonitor(engine, log_dir=str(folder / "record"), verbose=0, strict=True, workers=2)

    watched, after, left_after, monitor, engine = train(watch)
    told = {
        "undisturbed": losses == watched
        and left == left_after
        and all(torch.equal(a[name], b[name]) for a, b in zip(weights, after, strict=True) for name in a),
        "own": sorted(monitor.run._measuring.own or ()),
        "sinks": len(monitor.run._sinks),
        "directory": str(monitor.directory),
        "left": left_after[-1],
    }
    try:
        SpectralMonitor(engine, log_dir=str(folder / "refused"), verbose=0, keep_best=True)
    except ValueError as error:
        told["keep_best"] = str(error)
    if RANK == 0:
        for epoch, values in enumerate(after, 1):
            torch.save(values, folder / f"weights-{epoch}.pt")
    told["huggingface"] = huggingface(folder)
    lora(folder)
    (folder / f"rank-{RANK}.json").write_text(json.dumps(told))
    dist.barrier()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
