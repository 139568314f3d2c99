"""The adapter for PyTorch Lightning; runs in the Trainers of ``lightning.pytorch`` and ``pytorch_lightning`` alike."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from difflib import get_close_matches
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

try:
    import pytorch_lightning as pl
except ImportError as missing:
    raise ImportError(
        'ww_callbacks.lightning needs PyTorch Lightning: pip install "ww-callbacks[lightning]"'
    ) from missing

from ww_callbacks.adapters.averages import lightning_specs
from ww_callbacks.adapters.base import Watcher, default_directory, free_directory, shows_settings
from ww_callbacks.adapters.model_structure import Structure
from ww_callbacks.adapters.training_metrics import LoopMetrics, StepLosses, in_words, understood, values_of
from ww_callbacks.faults import logger
from ww_callbacks.lifecycle.saved_state import RunState, Saved
from ww_callbacks.lightning.loggers import console_writer, log_folder, log_settings, sinks_for
from ww_callbacks.probes.representation import RepresentationProbe
from ww_callbacks.run import Run
from ww_callbacks.scheduling.cadence import Plan
from ww_callbacks.scheduling.distributed import processes
from ww_callbacks.spectral.layers import inspect
from ww_callbacks.spectral.layers.spec import LayerSpec

if TYPE_CHECKING:
    import torch


LOOKS_AN_EPOCH = 50
"""Batches of an epoch at which a training accuracy that is logged step by step is read."""


@shows_settings
class SpectralCallback(Watcher, pl.Callback):
    """Watches the spectra of the weights while a Lightning Trainer trains.

    Publishes to every logger of the Trainer, and to ``trainer.callback_metrics``, so that Lightning's own
    ``EarlyStopping`` and ``ModelCheckpoint`` can monitor ``spectral/<quantity>/<statistic>``, whatever the order of the
    callbacks. Stops through ``trainer.should_stop``.

    Args:
        probe: a :class:`~ww_callbacks.probes.representation.RepresentationProbe`, run at its own cadence.
        settings: see :class:`ww_callbacks.settings.Settings`; with no argument it measures every eligible layer after
            each epoch and stops nothing.

    Raises:
        TypeError: if an argument does not exist.
        ValueError: if a value is invalid.
    """

    def __init__(self, *, probe: RepresentationProbe | None = None, **settings: Any) -> None:
        super().__init__(probe=probe, **settings)
        self._loss = StepLosses()
        self._step = 0
        self._measured_step = -1
        self._monitored_in_validation = False
        self._epochs = 0
        self._loaded: Saved | None = None
        self._accuracy = StepLosses()
        self._accuracy_name: str | None = None
        self._validated = False
        self._explained = False

    @property
    def state_key(self) -> str:
        """Where a checkpoint keeps the callback's state; one SpectralCallback a Trainer."""
        return "ww_callbacks.lightning.SpectralCallback"

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Forget what an earlier fit left."""
        if stage == "fit":
            self._loaded = None

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Refuse what cannot work before anything is trained: only now is the model sharded and wrapped."""
        structure = Structure(pl_module, lambda: self._look(trainer, pl_module))
        self._best_checkpoint = None
        self.run = Run(
            self.settings,
            structure.specs,
            "lightning",
            self._folder(trainer),
            sinks_for(trainer, self.settings),
            console_writer(trainer),
            group=processes() if trainer.world_size > 1 else None,
            refresh=structure.refresh,
            probing=self._probing(pl_module),
        )
        self._measured_step = -1
        self._loss.reset()
        # Whether a callback of Lightning's monitors one of our values before an epoch's end.
        self._monitored_in_validation = any(
            str(getattr(c, "monitor", None) or "").startswith("spectral/")
            for c in trainer.callbacks  # type: ignore[attr-defined]
        )

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Take W_0 and publish the first snapshot."""
        run = self._watched()
        with run.guarded("logging the arguments"):
            log_settings(trainer, self.settings)
        self._step, self._epochs = trainer.global_step, trainer.current_epoch
        saved, self._loaded = self._loaded, None
        run.begin(_plan(trainer), trainer.global_step, float(trainer.current_epoch), saved)
        self._check_monitors(trainer, run)
        if saved is not None and run.resumed:
            self._restore(trainer, saved.state.adapter)

    def _check_monitors(self, trainer: pl.Trainer, run: Run) -> None:
        """Refuse a monitor of Lightning's own callbacks that would end the run at its first look."""
        for watching in trainer.callbacks:  # type: ignore[attr-defined]
            name = str(getattr(watching, "monitor", None) or "")
            if not name.startswith("spectral/") or name in run.scalars():
                continue
            who, known = type(watching).__name__, sorted(run.monitorable())
            if name not in known:
                near = ", ".join(get_close_matches(name, known, n=3)) or "spectral/effective_rank/median"
                raise ValueError(f"{who} monitors {name!r}, which is not among the values published. Near it: {near}.")
            if name.startswith("spectral/alpha") and getattr(watching, "strict", False):
                raise ValueError(
                    f"{who} monitors {name!r}, and no layer has enough evidence for an α yet: it would end the run at "
                    "its first look. Give it `strict=False`, or let it monitor another value."
                )

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint needs for the run to be taken up again, but W_0, which lies beside the record."""
        if self.run is None:
            return {}
        saved = self.run.saved({"loss": self._loss.state(), "measured": self._measured_step, "epochs": self._epochs})
        if saved is None:
            return {}
        import torch

        # The arrays are overwritten at the next snapshot, and the checkpoint may be written later than that.
        previous = {layer: [torch.tensor(a) for a in arrays] for layer, arrays in saved.previous.items()}
        return {"state": saved.state.plain(), "previous": previous}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up the run of a checkpoint when training starts."""
        if not state_dict:
            return
        try:
            state = RunState.parse(state_dict.get("state"), "the checkpoint")
            self._loaded = Saved(state, dict(state_dict.get("previous") or {}))
        except (ValueError, AttributeError) as error:
            logger.warning("ww-callbacks: %s A new record begins. Training goes on.", error)

    def _restore(self, trainer: pl.Trainer, adapter: Mapping[str, Any]) -> None:
        with suppress(KeyError, TypeError, ValueError):  # a checkpoint of an older version: the loss begins anew
            self._loss.restore(adapter["loss"])
            self._measured_step = int(adapter["measured"])
            self._epochs = int(adapter["epochs"])
        if trainer.current_epoch > self._epochs:
            # Saved after the epoch's validation and before its end, which Lightning does not do again.
            self._end_epoch(trainer, trainer.current_epoch)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Keep the mean loss, and take a snapshot where steps are counted."""
        run = self._watched()
        self._loss.add(_loss_of(outputs), trainer.accumulate_grad_batches)
        self._collect_accuracy(trainer, batch_idx)
        step = trainer.global_step
        if step == self._step:
            return
        self._step = step
        run.poll()
        self._act(trainer)
        kind = run.cadence.due_at_step(step)
        if trainer.is_last_batch and run.cadence.due_at_epoch(trainer.current_epoch + 1):
            # The epoch's own snapshot: now if a callback looks for it at the validation, else at the epoch's end, when
            # the accuracy is known too.
            kind = "full" if self._monitored_in_validation else None
        if kind is None:
            return
        batches = trainer.num_training_batches
        fraction = (batch_idx + 1) / batches if math.isfinite(batches) and batches else 0.0
        self._snapshot(trainer, kind, trainer.current_epoch + fraction, ended=trainer.is_last_batch)
        self._publish(pl_module, on_step=True)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Take the epoch's snapshot if one is due, and give its values to Lightning's own callbacks."""
        self._end_epoch(trainer, trainer.current_epoch + 1)
        self._publish(pl_module, on_step=False)

    def _end_epoch(self, trainer: pl.Trainer, epoch: int) -> None:
        kind = self._watched().cadence.due_at_epoch(epoch)
        if kind is not None and self._measured_step != trainer.global_step:
            self._snapshot(trainer, kind, float(epoch), ended=True)
        if trainer.is_global_zero:
            self._explain_metrics(trainer)
        self._loss.reset()
        self._accuracy.reset()
        self._epochs = epoch

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Take the last snapshot if the run ended between two, and close."""
        run = self._watched()
        if run.missed(trainer.global_step) or self._measured_step != trainer.global_step:
            self._snapshot(trainer, "full", float(trainer.current_epoch))
        run.finish()

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Close what is open; training's own error goes on unchanged."""
        if self.run is not None:
            self.run.abandon()

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Close what is still open."""
        if self.run is not None and stage == "fit":
            self.run.finish()

    def _snapshot(self, trainer: pl.Trainer, kind: Any, epoch: float, ended: bool = False) -> None:
        run = self._watched()
        with run.guarded("a snapshot"):
            if kind == "full":
                self._measured_step = trainer.global_step
            run.snapshot(kind, trainer.global_step, epoch, self._metrics(trainer, ended))
            self._act(trainer)
            self._keep_best(
                ".ckpt",
                lambda path: trainer.save_checkpoint(path, weights_only=True),
                validated=sum(trainer.num_val_batches or [0]) > 0,
            )

    def _act(self, trainer: pl.Trainer) -> None:
        if self._watched().should_stop:
            trainer.should_stop = True

    def _metrics(self, trainer: pl.Trainer, ended: bool) -> LoopMetrics:
        """What the loop knows now; validation values only of a validation since the last snapshot."""
        logged = values_of(trainer.callback_metrics, self.settings.metrics)
        accuracy = self._accuracy.mean()
        if accuracy is not None:
            logged["train_accuracy"] = accuracy
        if not self._validated:
            logged.pop("val_loss", None)
            logged.pop("val_accuracy", None)
        metrics = LoopMetrics(logged)
        if (loss := self._loss.mean()) is not None:
            metrics["train_loss"] = loss
        if self._loss.first is not None:
            metrics["first_loss"] = self._loss.first
        if trainer.optimizers:
            metrics["learning_rate"] = float(trainer.optimizers[0].param_groups[0]["lr"])
        if ended:
            metrics.epoch_losses = self._loss.parts()
            self._validated = False
        return metrics

    def _collect_accuracy(self, trainer: pl.Trainer, batch_idx: int) -> None:
        """The epoch's mean of an accuracy that is logged step by step: Lightning itself keeps the last batch's.

        About fifty batches an epoch are looked at, since each look makes Lightning collect its metrics.
        """
        batches = trainer.num_training_batches
        if math.isfinite(batches) and batch_idx % max(1, int(batches) // LOOKS_AN_EPOCH):
            return
        if self._accuracy_name is None:
            self._accuracy_name = understood(trainer.callback_metrics, self.settings.metrics).get("train_accuracy", "")
        value = trainer.callback_metrics.get(self._accuracy_name) if self._accuracy_name else None
        if value is not None and not self._accuracy_name.endswith("epoch"):
            self._accuracy.add(value)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Note that the validation values are of now, and say once which names were understood."""
        if trainer.sanity_checking or self.run is None:
            return
        self._validated = True

    def _explain_metrics(self, trainer: pl.Trainer) -> None:
        if not self._explained and self.settings.verbose:
            self._explained = True
            write = console_writer(trainer) or print
            write(f"spectral: {in_words(understood(trainer.callback_metrics, self.settings.metrics))}")

    def _publish(self, pl_module: pl.LightningModule, on_step: bool) -> None:
        """Make the last snapshot's values monitorable; the loggers get them from the sinks."""
        run = self._watched()
        with run.guarded("publishing to the Trainer"):
            for name, value in run.scalars().items():
                pl_module.log(name, value, on_step=on_step, on_epoch=not on_step, logger=False, batch_size=1)

    def _folder(self, trainer: pl.Trainer) -> Path:
        if trainer.fast_dev_run:  # type: ignore[attr-defined]
            return Path(tempfile.mkdtemp(prefix="spectral_fast_dev_run_"))
        if self.settings.log_dir is not None:
            return free_directory(Path(self.settings.log_dir))
        folder = log_folder(trainer)
        return default_directory() if folder is None else free_directory(folder)

    def _look(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> Sequence[LayerSpec]:
        look = partial(inspect, convolution=self.settings.convolution)
        if self.settings.weights == "average":
            return lightning_specs(trainer.callbacks, look, pl_module)  # type: ignore[attr-defined]
        return look(pl_module)


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
