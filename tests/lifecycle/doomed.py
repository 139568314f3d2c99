"""Trainings that end badly, for test_faults: each in a fork, made before this process has trained anything.

    python -m tests.lifecycle.doomed FOLDER

Prints one JSON object: scenario → exit code, or minus the signal that ended it.
"""

from __future__ import annotations

import json
import logging
import os
import random
import resource
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ModelCheckpoint

from tests.adapters.nets import fit, same_batches, seeded
from ww_callbacks.lightning import SpectralCallback

KILLED_AT = (5, 8, 11)
KILLS = 30


class During(pl.Callback):
    """Calls a function at the end of every batch."""

    def __init__(self, call: Callable[[int], object]) -> None:
        self.call = call

    def on_train_batch_end(self, trainer, *others):
        self.call(trainer.global_step)


def forked(action: Callable[[], object]) -> int:
    child = os.fork()
    if child == 0:
        code = 1
        try:
            action()
            code = 0
        except SystemExit as ended:
            code = int(ended.code or 0)
        except BaseException:
            traceback.print_exc()
        os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def callback_in(folder: Path) -> SpectralCallback:
    return SpectralCallback(log_dir=str(folder / "record"), verbose=0, every_n_epochs=1)


def killed(folder: Path, at: int) -> None:
    saver = ModelCheckpoint(folder / "checkpoints", save_top_k=-1)
    kill = During(lambda step: step == at and os.kill(os.getpid(), signal.SIGKILL))
    fit(seeded(), callback_in(folder), saver, kill)


def killed_at_any_moment(folder: Path, seconds: float) -> None:
    """The checkpoints of every step make most of the time, so most kills fall near or into a write of ours."""
    saver = ModelCheckpoint(folder / "checkpoints", every_n_train_steps=1, save_top_k=-1)
    signal.signal(signal.SIGALRM, lambda *_: os.kill(os.getpid(), signal.SIGKILL))
    signal.setitimer(signal.ITIMER_REAL, seconds)
    fit(seeded(), callback_in(folder), saver, epochs=2, data=same_batches())


def terminated(folder: Path) -> None:
    """As a cluster does it before it takes a machine away; Lightning turns the signal into an exception."""
    fit(seeded(), callback_in(folder), During(lambda step: step == 6 and os.kill(os.getpid(), signal.SIGTERM)))


def terminated_plain(folder: Path) -> None:
    from ww_callbacks import SpectralMonitor

    net = seeded().net
    optimizer = torch.optim.SGD(net.parameters(), 0.1)
    with SpectralMonitor(net, log_dir=folder / "record", verbose=0) as monitor:
        for epoch in range(1, 5):
            for x, y in same_batches():
                if monitor.run.step == 8:
                    os.kill(os.getpid(), signal.SIGTERM)
                loss = torch.nn.functional.cross_entropy(net(x), y)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                monitor.step(loss)
            monitor.observe(step=4 * epoch, epoch=epoch)


def terminated_hf(folder: Path, saves: bool) -> None:
    """The Trainer runs no hook of any callback, unless it is to write a checkpoint at the signal."""
    import transformers

    from tests.huggingface.small import train
    from ww_callbacks.huggingface import SpectralCallback as HuggingFace

    class Terminated(transformers.TrainerCallback):
        def on_step_end(self, args, state, control, **others):
            if state.global_step == 10:
                os.kill(os.getpid(), signal.SIGTERM)
                time.sleep(5 if saves else 0)  # the Trainer waits for a moment before it saves

    ours = HuggingFace(log_dir=str(folder / "record"), verbose=0, every_n_epochs=1)
    train(folder / "out", ours, Terminated(), enable_jit_checkpoint=saves)


def terminated_keras(folder: Path) -> None:
    os.environ["KERAS_BACKEND"] = "torch"
    import keras
    import numpy as np

    from ww_callbacks.keras import SpectralCallback as Keras

    class Terminated(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            if self.model.optimizer.iterations == 10:
                os.kill(os.getpid(), signal.SIGTERM)

    model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(8), keras.layers.Dense(3)])
    model.compile("sgd", "mse")
    ours = Keras(log_dir=str(folder / "record"), verbose=0)
    data = np.ones((32, 6)), np.ones((32, 3))
    model.fit(*data, batch_size=8, epochs=5, verbose=0, callbacks=[ours, Terminated()])


def interrupted(folder: Path) -> None:
    fit(seeded(), callback_in(folder), During(lambda step: step == 6 and os.kill(os.getpid(), signal.SIGINT)))


def disk_full(folder: Path) -> None:
    said: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: said.append(record.getMessage())  # type: ignore[method-assign]
    logging.getLogger("ww_callbacks").addHandler(handler)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    size = 6000
    full = During(lambda step: step == 2 and resource.setrlimit(resource.RLIMIT_FSIZE, (size, size)))
    callback = callback_in(folder)
    trainer = fit(seeded(), callback, full)
    assert trainer.current_epoch == 4 and trainer.state.finished
    assert len(said) == 2 and "record cannot be written now" in said[0] and "lacks" in said[1], said
    assert callback.verdict is not None


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    codes = {}
    for at in KILLED_AT:
        codes[f"killed-{at}"] = forked(lambda at=at: killed(folder / f"killed-{at}", at))
    began = time.perf_counter()
    forked(lambda: killed_at_any_moment(folder / "timed", 0.0))
    usual = time.perf_counter() - began
    moments = random.Random(0)
    for number in range(KILLS):
        seconds = usual * moments.uniform(0.2, 1.0)
        forked(lambda n=number, s=seconds: killed_at_any_moment(folder / f"any-{n}", s))
    forked(lambda: terminated(folder / "terminated"))
    codes["plain"] = forked(lambda: terminated_plain(folder / "terminated-plain"))
    codes["hf"] = forked(lambda: terminated_hf(folder / "terminated-hf", False))
    codes["hf_saves"] = forked(lambda: terminated_hf(folder / "terminated-hf_saves", True))
    codes["keras"] = forked(lambda: terminated_keras(folder / "terminated-keras"))
    codes["interrupted"] = forked(lambda: interrupted(folder / "interrupted"))
    codes["disk_full"] = forked(lambda: disk_full(folder / "disk_full"))
    print(json.dumps(codes))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
