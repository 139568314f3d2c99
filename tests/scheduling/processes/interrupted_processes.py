"""What two gloo processes do for test_interrupted_processes: previews, and runs that are stopped and resumed.

torchrun --nproc-per-node 2 interrupted_processes.py FOLDER
"""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.strategies import ModelParallelStrategy

from tests.adapters.nets import Validated, fit, same_batches, seeded
from tests.scheduling.processes.two_processes import EPOCHS, Parallel, perform, report, told
from ww_callbacks.lightning import SpectralCallback

MOVED = "spectral/relative_distance_from_init/median"
DDP = {"devices": 2, "strategy": "ddp", "use_distributed_sampler": False}


class AtStep(pl.Callback):
    """Calls ``action`` in every process after the step ``step``."""

    def __init__(self, step, action):
        self.step, self.action = step, action

    def on_train_batch_end(self, trainer, *others):
        if trainer.global_step == self.step:
            self.action(trainer)


def preview(folder):
    """A checkpoint at an epoch's last step reads our value before the validation, after which the snapshot comes."""
    callback = SpectralCallback(log_dir=str(folder / "record"), **EPOCHS)
    saver = ModelCheckpoint(folder / "c", monitor=MOVED, mode="max", every_n_train_steps=2, save_top_k=-1)
    fit(seeded(Validated), callback, saver, epochs=3, validate=True, **DDP)
    scores = {Path(path).name: float(score) for path, score in saver.best_k_models.items()}
    report(folder, **told(callback), scores=scores)


def within_an_epoch(folder):
    """Stopped two steps after a snapshot and resumed, in the same folder."""
    saved = folder / "middle.ckpt"
    settings = {"log_dir": str(folder / "record"), **EPOCHS}
    middle = AtStep(6, lambda trainer: trainer.save_checkpoint(saved))
    fit(seeded(), SpectralCallback(**settings), middle, data=same_batches(), epochs=2, **DDP)
    again = SpectralCallback(**settings)
    fit(seeded(), again, data=same_batches(), ckpt_path=saved, **DDP)
    report(folder, **told(again), resumed=again.run.resumed)


def terminated(folder):
    """SIGTERM to every process, as a scheduler sends it, and a second training from the last checkpoint."""
    settings = {"log_dir": str(folder / "record"), **EPOCHS}
    saver = ModelCheckpoint(folder / "c", save_top_k=-1)
    stopped = ""
    first = SpectralCallback(**settings)
    try:
        fit(seeded(), first, saver, AtStep(6, lambda trainer: os.kill(os.getpid(), signal.SIGTERM)), **DDP)
    except BaseException as error:
        stopped = type(error).__name__
    verdict = first.verdict.state if first.verdict else ""
    (last,) = (folder / "c").glob("*step=4.ckpt")
    again = SpectralCallback(**settings)
    fit(seeded(), again, ckpt_path=last, **DDP)
    report(folder, **told(again), stopped=stopped, resumed=again.run.resumed, first_verdict=verdict)


def sharded(folder):
    """FSDP2 with averaged weights: an undisturbed training, and one that is stopped within an epoch and resumed."""
    whole, halves = (SpectralCallback(log_dir=str(folder / name), restore="best", **EPOCHS) for name in ("a", "b"))
    saved, finals = folder / "middle", []
    middle = AtStep(6, lambda trainer: trainer.save_checkpoint(saved))
    for callback, extra, options in (
        (whole, (), {}),
        (halves, (middle,), {"epochs": 2}),
        (SpectralCallback(log_dir=str(folder / "b"), restore="best", **EPOCHS), (), {"ckpt_path": saved}),
    ):
        torch.manual_seed(0)
        model = Parallel()
        strategy = ModelParallelStrategy(data_parallel_size=2, tensor_parallel_size=1)
        shared = {"devices": 2, "strategy": strategy, "use_distributed_sampler": False}
        fit(model, callback, *extra, data=same_batches(), **shared, **options)
        finals.append({name: p.full_tensor() for name, p in model.named_parameters()})
    apart = max(float((finals[0][name] - finals[2][name]).abs().max()) for name in finals[0])
    report(folder, **told(callback), apart=apart, resumed=callback.run.resumed, average=str(callback.best_average))


def huggingface(folder):
    """The HF Trainer, stopped by a signal at which it saves, and started again from there; then at its end again."""
    from tests.huggingface.test_resume import Model, train
    from ww_callbacks.huggingface import SpectralCallback as Callback

    settings = {"log_dir": str(folder / "record"), **EPOCHS}
    options = {"ddp_backend": "gloo", "ddp_find_unused_parameters": False, "save_strategy": "no"}

    class Terminated(Model):
        def forward(self, x, labels):
            found = super().forward(x, labels)
            if self.calls == 5:
                os.kill(os.getpid(), signal.SIGTERM)
                time.sleep(3.2)  # the Trainer saves three seconds after the signal
            return found

    first = Callback(**settings)
    train(folder / "out", first, Terminated(), enable_jit_checkpoint=True, **options)
    saved = [path.name for path in (folder / "out").glob("checkpoint-*")]
    second = Callback(**settings)
    train(folder / "out", second, Model(), resume=True, **options | {"save_strategy": "epoch"})
    done = Callback(**settings)
    train(folder / "out", done, Model(), resume=True, **options)
    report(
        folder,
        **told(second),
        saved=saved,
        resumed=second.run.resumed,
        verdicts=[callback.verdict.state for callback in (first, second, done)],
        at_the_end=[done.run.resumed, str(done.directory)],
    )


if __name__ == "__main__":
    perform((preview, within_an_epoch, terminated, sharded, huggingface), Path(sys.argv[1]))
