"""The adapter for PyTorch Lightning; runs in the Trainers of ``lightning.pytorch`` and ``pytorch_lightning`` alike."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

try:
    import pytorch_lightning as pl
except ImportError as missing:
    raise ImportError(
        'ww_callbacks.lightning needs PyTorch Lightning: pip install "ww-callbacks[lightning]"'
    ) from missing

from spectral.layers import inspect
from ww_callbacks.cadence import Plan
from ww_callbacks.callback import Watcher, default_directory, free_directory, shows_settings
from ww_callbacks.lightning_loggers import console_writer, log_folder, log_settings, sinks_for
from ww_callbacks.metrics import MeanLoss, training_accuracy
from ww_callbacks.run import Run

if TYPE_CHECKING:
    import torch


@shows_settings
class SpectralCallback(Watcher, pl.Callback):
    """Watches the spectra of the weights while a Lightning Trainer trains.

    Publishes to every logger of the Trainer, and to ``trainer.callback_metrics``, so that Lightning's own
    ``EarlyStopping`` and ``ModelCheckpoint`` can monitor ``spectral/<quantity>/<statistic>``, whatever the order of the
    callbacks. Stops through ``trainer.should_stop``.

    Args:
        settings: see :class:`ww_callbacks.settings.Settings`; with no argument it measures every eligible layer after
            each epoch and stops nothing.

    Raises:
        TypeError: for an argument that does not exist.
        ValueError: for a value that cannot be.
    """

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self._loss = MeanLoss()
        self._step = 0
        self._measured_step = -1
        self._monitored_in_validation = False

    @property
    def state_key(self) -> str:
        """Where a checkpoint keeps the callback's state; one SpectralCallback a Trainer."""
        return "ww_callbacks.lightning.SpectralCallback"

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Refuse what cannot work before anything is trained."""
        if stage != "fit":
            return
        model = self._read_model(trainer, pl_module)
        specs = inspect(model, conv=self.settings.convolution)
        folder = self._folder(trainer)
        self.run = Run(self.settings, specs, "lightning", folder, sinks_for(trainer, self.settings), console_writer(trainer))

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Find out whether a callback of Lightning's monitors one of our values before an epoch's end."""
        self._monitored_in_validation = any(
            str(getattr(c, "monitor", None) or "").startswith("spectral/") for c in trainer.callbacks
        )

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Take W_0 and publish the first snapshot."""
        run = self._watched()
        log_settings(trainer, self.settings)
        self._step = trainer.global_step
        run.begin(_plan(trainer), trainer.global_step, float(trainer.current_epoch))

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Keep the mean loss, and take a snapshot where steps are counted."""
        run = self._watched()
        self._loss.add(_loss_of(outputs), trainer.accumulate_grad_batches)
        step = trainer.global_step
        if step == self._step:
            return
        self._step = step
        kind = run.cadence.due_at_step(step)
        if trainer.is_last_batch and run.cadence.due_at_epoch(trainer.current_epoch + 1):
            # The epoch's own snapshot: now if a callback looks for it at the validation, else at the epoch's end, when
            # the accuracy is known too.
            kind = "full" if self._monitored_in_validation else None
        if kind is None:
            return
        batches = trainer.num_training_batches
        fraction = (batch_idx + 1) / batches if math.isfinite(batches) and batches else 0.0
        self._snapshot(trainer, kind, trainer.current_epoch + fraction)
        self._publish(pl_module, on_step=True)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Take the epoch's snapshot if one is due, and give its values to Lightning's own callbacks."""
        run = self._watched()
        kind = run.cadence.due_at_epoch(trainer.current_epoch + 1)
        if kind is not None and self._measured_step != trainer.global_step:
            self._snapshot(trainer, kind, float(trainer.current_epoch + 1))
        self._publish(pl_module, on_step=False)
        self._loss.reset()

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Take the last snapshot if the run ended between two, and close."""
        run = self._watched()
        if self._measured_step != trainer.global_step:
            self._snapshot(trainer, "full", float(trainer.current_epoch))
        run.finish()

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Close what is open; training's own error goes on unchanged."""
        if self.run is not None:
            self.run.finish()

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Close what is still open."""
        if self.run is not None and stage == "fit":
            self.run.finish()

    def _snapshot(self, trainer: pl.Trainer, kind: Any, epoch: float) -> None:
        run = self._watched()
        with run.meter.running():
            if kind == "full":
                self._measured_step = trainer.global_step
            run.snapshot(kind, trainer.global_step, epoch, self._metrics(trainer))
            if run.should_stop:
                trainer.should_stop = True

    def _metrics(self, trainer: pl.Trainer) -> dict[str, float]:
        metrics = {"train_loss": self._loss.mean(), "train_accuracy": training_accuracy(trainer.callback_metrics)}
        if trainer.optimizers:
            metrics["learning_rate"] = float(trainer.optimizers[0].param_groups[0]["lr"])
        return {name: value for name, value in metrics.items() if value is not None}

    def _publish(self, pl_module: pl.LightningModule, on_step: bool) -> None:
        """Make the last snapshot's values monitorable; the loggers get them from the sinks."""
        run = self._watched()
        with run.meter.running():
            for name, value in run.scalars().items():
                pl_module.log(name, value, on_step=on_step, on_epoch=not on_step, logger=False, batch_size=1)

    def _folder(self, trainer: pl.Trainer) -> Path:
        if trainer.fast_dev_run:
            return Path(tempfile.mkdtemp(prefix="spectral_fast_dev_run_"))
        if self.settings.log_dir is not None:
            return free_directory(Path(self.settings.log_dir))
        folder = log_folder(trainer)
        return default_directory() if folder is None else free_directory(folder)

    def _read_model(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> Any:
        return pl_module


def _loss_of(outputs: Any) -> torch.Tensor | None:
    return outputs.get("loss") if isinstance(outputs, Mapping) else outputs


def _plan(trainer: pl.Trainer) -> Plan:
    batches = trainer.num_training_batches
    finite = math.isfinite(batches) and batches > 0
    return Plan(
        epochs=float(trainer.max_epochs) if trainer.max_epochs is not None and trainer.max_epochs >= 0 else None,
        steps=trainer.max_steps if trainer.max_steps >= 0 else None,
        steps_per_epoch=math.ceil(batches / trainer.accumulate_grad_batches) if finite else None,
    )
