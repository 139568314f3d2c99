"""Sets up a run from a Trainer: the plan, the folder, the layers."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ww_callbacks.adapters.base import default_directory
from ww_callbacks.adapters.model_structure import Structure
from ww_callbacks.adapters.saved_weights.weight_average import Weights
from ww_callbacks.integrations.record import free_directory
from ww_callbacks.lightning.averages import lightning_specs
from ww_callbacks.lightning.loggers import console_writer, log_folder, sinks_for
from ww_callbacks.probes.probe_runner import Probing
from ww_callbacks.run import Run
from ww_callbacks.scheduling.cadence import Plan
from ww_callbacks.scheduling.distributed import processes
from ww_callbacks.settings import Settings
from ww_callbacks.spectral.layers import inspect
from ww_callbacks.spectral.layers.spec import LayerSpec

if TYPE_CHECKING:
    import pytorch_lightning as pl


def make_run(
    settings: Settings,
    trainer: pl.Trainer,
    module: pl.LightningModule,
    probing: Probing | None,
    logged_at: Callable[[int], int],
) -> Run:
    """The run of a starting fit; raises if something cannot work.

    Args:
        settings: the callback's arguments.
        trainer: the Trainer.
        module: the model, already sharded and wrapped.
        probing: the probe, if there is one.
        logged_at: see :func:`ww_callbacks.lightning.loggers.sinks_for`.
    """
    structure = Structure(module, lambda: _layers(settings, trainer, module))
    return Run(
        settings,
        structure.specs,
        "lightning",
        _folder(settings, trainer),
        sinks_for(trainer, settings, logged_at),
        console_writer(trainer),
        group=processes() if trainer.world_size > 1 else None,
        refresh=structure.refresh,
        probing=probing,
    )


def _layers(settings: Settings, trainer: Any, module: pl.LightningModule) -> Sequence[LayerSpec]:
    look = partial(inspect, convolution=settings.convolution)
    if settings.weights == "average":
        return lightning_specs(trainer.callbacks, look, module)
    return look(module)


def _folder(settings: Settings, trainer: Any) -> Path:
    if trainer.fast_dev_run:
        return Path(tempfile.mkdtemp(prefix="spectral_fast_dev_run_"))
    if settings.log_dir is not None:
        return free_directory(Path(settings.log_dir))
    folder = log_folder(trainer)
    return default_directory() if folder is None else free_directory(folder)


def plan(trainer: pl.Trainer) -> Plan:
    """The length of the fit, in steps of the run's clock."""
    batches = trainer.num_training_batches
    finite = math.isfinite(batches) and batches > 0
    steps = trainer.max_steps if trainer.max_steps >= 0 else None
    if steps is not None:  # Lightning counts the steps of every optimiser
        steps = math.ceil(steps / max(len(trainer.optimizers), 1))
    return Plan(
        epochs=float(trainer.max_epochs) if trainer.max_epochs is not None and trainer.max_epochs >= 0 else None,
        steps=steps,
        steps_per_epoch=math.ceil(batches / trainer.accumulate_grad_batches) if finite else None,
    )


def weights_of(trainer: pl.Trainer, module: pl.LightningModule) -> Weights:
    """The trained weights.

    Raises:
        ValueError: if the strategy only holds them during computation.
    """
    from ww_callbacks.adapters.saved_weights.torch_weights import TorchWeights

    if type(trainer.strategy).__name__ in ("FSDPStrategy", "DeepSpeedStrategy"):
        raise ValueError(f"{type(trainer.strategy).__name__} only holds them during computation")
    return TorchWeights(module)


def checkpoint_saver(trainer: pl.Trainer) -> tuple[str, Callable[[Path], object]]:
    """The suffix of a checkpoint, and the function that saves the current weights."""
    return ".ckpt", lambda path: trainer.save_checkpoint(path, weights_only=True)
