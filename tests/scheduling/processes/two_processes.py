"""What two gloo processes do for test_distributed: run under torchrun, all scenarios one after another.

torchrun --nproc-per-node 2 two_processes.py FOLDER
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path

import pytorch_lightning as pl
import torch
import torch.distributed as dist
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.strategies import ModelParallelStrategy
from torch import nn

from tests.adapters.nets import Net, fit, seeded
from ww_callbacks.lightning import SpectralCallback

RANK = int(os.environ.get("RANK", "0"))
EPOCHS = {"every_n_epochs": 1, "verbose": 0}


class Parallel(Net):
    """Sharded with FSDP2, or its dense layers split over the processes."""

    def __init__(self, tensor_parallel=False):
        super().__init__()
        self.tensor_parallel = tensor_parallel
        self.gathered = []

    def configure_model(self):
        if self.tensor_parallel:
            from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module

            plan = {"0": ColwiseParallel(), "2": RowwiseParallel()}
            parallelize_module(self.net, self.device_mesh["tensor_parallel"], plan)
            return
        from torch.distributed.fsdp import fully_shard

        for layer in self.net:
            if isinstance(layer, nn.Linear):
                fully_shard(layer, mesh=self.device_mesh["data_parallel"])
        fully_shard(self.net, mesh=self.device_mesh["data_parallel"])


class Spoil(pl.Callback):
    """Puts a NaN into one process's replica of a weight just before the snapshot of the second epoch."""

    def on_train_epoch_end(self, trainer, pl_module):
        if trainer.current_epoch == 1 and trainer.global_rank == 1:
            with torch.no_grad():
                pl_module.net[0].weight[0, 0] = float("nan")


class Steps(pl.Callback):
    """What step this process stops at."""

    def __init__(self):
        self.last = 0

    def on_train_batch_end(self, trainer, *others):
        self.last = trainer.global_step


def report(folder, **values):
    (folder / f"rank-{RANK}.json").write_text(json.dumps(values))


def told(callback):
    return {
        "own": sorted(callback.run._measuring.own),
        "alerts": [(a.kind, a.step, a.layers) for a in callback.alerts],
        "verdict": callback.verdict.state,
        "stop": callback.run.should_stop,
        "sinks": len(callback.run._sinks),
        "directory": str(callback.directory),
    }


def ddp(folder):
    callback = SpectralCallback(log_dir=str(folder / "record"), **EPOCHS)
    saver = ModelCheckpoint(folder / "checkpoints", save_top_k=-1)
    fit(seeded(), callback, saver, epochs=2, devices=2, strategy="ddp", use_distributed_sampler=False)
    (last,) = (folder / "checkpoints").glob("*step=8.ckpt")
    again = SpectralCallback(log_dir=str(folder / "record"), **EPOCHS)
    fit(Net(), again, epochs=4, devices=2, strategy="ddp", use_distributed_sampler=False, ckpt_path=last)
    report(folder, **told(again))


def background(folder):
    callback = SpectralCallback(log_dir=str(folder / "record"), background=True, **EPOCHS)
    fit(seeded(), callback, devices=2, strategy="ddp", use_distributed_sampler=False)
    report(folder, **told(callback))


def budget(folder):
    callback = SpectralCallback(log_dir=str(folder / "record"), max_overhead=0.5, **EPOCHS)
    fit(seeded(), callback, devices=2, strategy="ddp", use_distributed_sampler=False)
    report(folder, **told(callback))


def one_sided_nan(folder):
    settings = {"policies": {"non-finite": "stop"}, "log_dir": str(folder / "record"), **EPOCHS}
    callback, steps = SpectralCallback(**settings), Steps()
    fit(seeded(), Spoil(), callback, steps, devices=2, strategy="ddp", use_distributed_sampler=False)
    report(folder, **told(callback), last=steps.last)


def fsdp(folder):
    callback = SpectralCallback(log_dir=str(folder / "record"), **EPOCHS)
    torch.manual_seed(0)
    strategy = ModelParallelStrategy(data_parallel_size=2, tensor_parallel_size=1)
    model = Parallel()
    fit(model, callback, devices=2, strategy=strategy, use_distributed_sampler=False)
    report(folder, **told(callback), sharded=type(model.net[0].weight).__name__)


def tensor_parallel(folder):
    callback = SpectralCallback(log_dir=str(folder / "record"), **EPOCHS)
    torch.manual_seed(0)
    strategy = ModelParallelStrategy(data_parallel_size=1, tensor_parallel_size=2)
    model = Parallel(tensor_parallel=True)
    fit(model, callback, devices=2, strategy=strategy, use_distributed_sampler=False)
    report(folder, **told(callback), sharded=type(model.net[0].weight).__name__)


class Normalised(Net):
    """Its running statistics are those of the batches that each process has seen."""

    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(12, 24), nn.BatchNorm1d(24), nn.ReLU(), nn.Linear(24, 3))


def keeping(folder):
    callback = SpectralCallback(log_dir=str(folder / "record"), restore="best", **EPOCHS)
    model = seeded(Normalised)
    fit(model, callback, devices=2, strategy="ddp")
    kept, average = callback.best_checkpoint, callback.best_average
    averaged = torch.load(average, weights_only=True)["state_dict"]
    same = all(torch.equal(value, model.state_dict()[name]) for name, value in averaged.items())
    report(folder, **told(callback), step=callback.run.step, kept=kept.name, there=kept.exists(), same=same)


def keeping_sharded(folder):
    callback = SpectralCallback(log_dir=str(folder / "record"), restore="best", strict=True, **EPOCHS)
    torch.manual_seed(0)
    strategy = ModelParallelStrategy(data_parallel_size=2, tensor_parallel_size=1)
    model = Parallel()
    fit(model, callback, devices=2, strategy=strategy, use_distributed_sampler=False)
    kept, average = callback.best_checkpoint, callback.best_average
    same = average is not None and average.exists()
    report(folder, **told(callback), step=callback.run.step, kept=kept.name, there=kept.exists(), same=same)


def keeping_huggingface(folder):
    from tests.huggingface.test_resume import Model, train
    from ww_callbacks.huggingface import SpectralCallback as Callback

    callback = Callback(log_dir=str(folder / "record"), keep_best=True, **EPOCHS)
    options = {"ddp_backend": "gloo", "num_train_epochs": 2, "ddp_find_unused_parameters": False}
    train(folder, callback, Model(), **options)
    kept = callback.best_checkpoint
    report(folder, **told(callback), step=callback.run.step, kept=kept.name, there=kept.exists())


def huggingface(folder):
    from tests.huggingface.test_resume import Model, train
    from ww_callbacks.huggingface import SpectralCallback as Callback

    torch.manual_seed(0)
    callback = Callback(log_dir=str(folder / "record"), **EPOCHS)
    options = {"ddp_backend": "gloo", "num_train_epochs": 2, "ddp_find_unused_parameters": False}
    trainer = train(folder, callback, Model(), **options)
    if RANK == 0:
        torch.save(trainer.accelerator.unwrap_model(trainer.model).state_dict(), folder / "weights.pt")
    report(folder, **told(callback))


def estimates(folder):
    from tests.adapters.test_accuracy import SETTINGS, lightning

    lightning(folder, SETTINGS, devices=2, strategy="ddp", use_distributed_sampler=False)
    report(folder, done=True)


SCENARIOS = (
    ddp,
    estimates,
    background,
    budget,
    one_sided_nan,
    fsdp,
    tensor_parallel,
    huggingface,
    keeping,
    keeping_sharded,
    keeping_huggingface,
)


def perform(scenarios: Sequence[Callable[[Path], None]], folder: Path) -> None:
    """Each scenario in a folder of its own, with the error that it raises."""
    torch.set_num_threads(1)
    for scenario in scenarios:
        place = folder / scenario.__name__
        place.mkdir(exist_ok=True)
        try:
            scenario(place)
        except Exception:
            (place / f"error-{RANK}.txt").write_text(traceback.format_exc())
            raise
        dist.barrier()


if __name__ == "__main__":
    perform(SCENARIOS, Path(sys.argv[1]))
