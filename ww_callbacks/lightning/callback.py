"""The adapter for PyTorch Lightning; works with ``lightning.pytorch`` and ``pytorch_lightning``."""

from __future__ import annotations

import math
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from ww_callbacks.adapters.base import Watcher, shows_settings
from ww_callbacks.adapters.first_batch import is_lazy
from ww_callbacks.adapters.stalled_training import why_no_gradient, why_not_trained
from ww_callbacks.adapters.traced_output import traced_output
from ww_callbacks.engine.snapshot_kind import Kind
from ww_callbacks.faults import logger
from ww_callbacks.integrations.sinks.console import for_terminal
from ww_callbacks.lifecycle.saved_state import RunState, Saved
from ww_callbacks.lightning import private
from ww_callbacks.lightning.averages import lightning_owner
from ww_callbacks.lightning.log_consumers import LogConsumers
from ww_callbacks.lightning.loggers import console_writer, log_settings
from ww_callbacks.lightning.loop_values import LoopValues
from ww_callbacks.lightning.optimizer_steps import OptimizerSteps
from ww_callbacks.lightning.packages import callback_classes
from ww_callbacks.lightning.trainer_setup import checkpoint_saver, make_run, plan, weights_of
from ww_callbacks.probes.representation import RepresentationProbe

if TYPE_CHECKING:
    import pytorch_lightning as pl
    import torch


@shows_settings
class SpectralCallback(Watcher, *callback_classes()):  # type: ignore[misc]
    """Watches the spectra of the weights while a Lightning Trainer trains.

    Logs to every logger of the Trainer and to ``trainer.callback_metrics``, so that Lightning's ``EarlyStopping``,
    ``ModelCheckpoint`` and learning rate schedulers can monitor ``spectral/<quantity>/<statistic>``. The weights are
    measured at the moment at which such a callback reads its value. Stops the run through ``trainer.should_stop``.

    Args:
        probe: a :class:`~ww_callbacks.probes.representation.RepresentationProbe`, run at its own cadence.
        settings: see :class:`ww_callbacks.settings.Settings`. By default every eligible layer is measured after each
            epoch, and the run is never stopped.

    Raises:
        TypeError: if an argument does not exist.
        ValueError: if a value is invalid.

    Examples:
        >>> callback = SpectralCallback(early_stopping="cautious", max_overhead=0.01)
        >>> trainer = Trainer(max_epochs=20, callbacks=[callback])  # doctest: +SKIP
        >>> trainer.fit(model)  # doctest: +SKIP
        >>> print(callback.verdict)  # doctest: +SKIP
        healthy: Validation does not get worse in 20 values of the validation loss, and no other problem was found.
    """

    def __init__(self, *, probe: RepresentationProbe | None = None, **settings: Any) -> None:
        super().__init__(probe=probe, **settings)
        self._start_over()
        self._loaded: Saved | None = None

    def _start_over(self) -> None:
        """Forget what an earlier fit left."""
        self._values = LoopValues(self.settings.metrics)
        self._measured_step = -1
        self._postponed: Kind | None = None
        self._consumers: LogConsumers | None = None
        self._steps: OptimizerSteps | None = None
        self._logged_at: dict[int, int] = {}
        self._traced = False
        self._forget_best()

    @property
    def state_key(self) -> str:
        """The key of the callback's state in a checkpoint; a Trainer takes one SpectralCallback."""
        return "ww_callbacks.lightning.SpectralCallback"

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Forget what an earlier fit left."""
        if stage == "fit":
            self._loaded = None

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Check model and settings before training; only now is the model sharded and wrapped."""
        self.run = None
        self._start_over()
        self._consumers = LogConsumers(trainer)
        self._consumers.take_place(trainer, self)
        if not is_lazy(pl_module):
            self._make_run(trainer, pl_module)

    def _make_run(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.run = make_run(
            self.settings,
            trainer,
            pl_module,
            self._probing(pl_module),
            lambda step: self._logged_at.get(step, max(step - 1, 0)),
        )

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Store W_0 and publish the first snapshot, unless the weights are only known after the first batch."""
        if not pl_module.automatic_optimization:
            self._steps = OptimizerSteps(pl_module, trainer.optimizers)
        if self.run is not None:
            self._begin(trainer, pl_module)

    def _begin(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self.run is None:
            self._make_run(trainer, pl_module)
        run = self._watched()
        with run.guarded("logging the arguments"):
            log_settings(trainer, self.settings)
        saved, self._loaded = self._loaded, None
        run.begin(plan(trainer), trainer.global_step, float(trainer.current_epoch), saved)
        self._tell_parent()
        self._average_weights(
            lambda: weights_of(trainer, pl_module), plan(trainer).steps_per_epoch, lightning_owner(trainer)
        )
        if saved is not None and run.resumed:
            self._restore(trainer, saved)
        else:
            self._measured_step = run.clock.steps
        self._publish(trainer)
        if self._consumers is not None:
            self._consumers.check(run)

    @property
    def _begun(self) -> bool:
        return self.run is not None and self.run.progress.started

    def on_before_backward(self, trainer: pl.Trainer, pl_module: pl.LightningModule, loss: torch.Tensor) -> None:
        """At the first batch, before its update: find the output layer, and store W_0 if that had to wait."""
        if self._traced:
            return
        self._traced = True
        if not self._begun:
            self._begin(trainer, pl_module)
        run = self._watched()
        with run.guarded("finding the output layer"):
            run.diagnosis.set_no_change_reason(
                why_no_gradient(loss, pl_module) or why_not_trained(pl_module, trainer.optimizers)
            )
            run.diagnosis.name_output(traced_output(loss, pl_module, run.specs))

    def state_dict(self) -> dict[str, Any]:
        """The state needed to resume the run, except W_0, which is stored with the record."""
        if self.run is None:
            return {}
        plain, kept = self._kept_state()
        saved = self.run.saved(
            {
                "loss": self._values.loss.state(),
                "measured": self._measured_step,
                "postponed": self._postponed,
                "kept": plain,
            }
        )
        if saved is None:
            return {}
        import torch

        # The arrays are overwritten at the next snapshot, and the checkpoint may be written later than that.
        previous = {layer: [torch.tensor(a) for a in arrays] for layer, arrays in saved.previous.items()}
        return {"state": saved.state.plain(), "previous": previous, "kept": kept}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load the state of a checkpoint, to resume its run when training starts."""
        if not state_dict:
            return
        try:
            state = RunState.parse(state_dict.get("state"), "the checkpoint")
            self._loaded = Saved(state, dict(state_dict.get("previous") or {}), dict(state_dict.get("kept") or {}))
        except (ValueError, AttributeError) as error:
            logger.warning("ww-callbacks: %s Starting a new record. Training continues.", error)

    def _restore(self, trainer: pl.Trainer, saved: Saved) -> None:
        adapter = saved.state.adapter
        self._restore_kept(adapter.get("kept", {}), saved.kept, *checkpoint_saver(trainer))
        with suppress(KeyError, TypeError, ValueError):  # a checkpoint of an older version: the loss starts over
            self._values.loss.restore(adapter["loss"])
            self._measured_step = int(adapter["measured"])
            self._postponed = adapter["postponed"]
        if trainer.current_epoch > self._watched().clock.epochs:
            # Saved after the epoch's validation and before its end, which Lightning does not do again.
            self._end_epoch(trainer, trainer.current_epoch)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Record the loss, and take a snapshot if one is due or another callback is about to read a value.

        If a validation follows, the snapshot is taken after it, with its values; a callback that reads a value earlier
        gets a preview.
        """
        if not self._begun:
            self._begin(trainer, pl_module)  # the user's own backward pass did not report the loss
        run = self._watched()
        self._values.saw_batch(trainer, outputs, batch_idx)
        batches = trainer.num_training_batches
        stepped = run.clock.saw_batches(
            counter=trainer.global_step,
            stepped=self._steps.take() if self._steps is not None else None,
            per_step=trainer.accumulate_grad_batches,
            fraction=1.0 if trainer.is_last_batch else (batch_idx + 1) / batches if math.isfinite(batches) else 0.0,
        )
        if stepped:
            self._average_step()
            self._note_axis(trainer)
            run.poll()
            self._act(trainer)
        kind = run.due()
        if trainer.is_last_batch and run.clock.due_at_epoch_end(run.cadence):
            kind = None  # the epoch's own snapshot comes at its end, when the validation is known too
        if self._consumers and self._consumers.at_step(trainer, batch_idx):
            follows = trainer.is_last_batch or private.validates_now(trainer)
            if follows and self._measured_step != run.clock.steps:
                self._postponed = "full"
                run.preview(run.clock.steps, run.clock.epoch)
                self._publish(trainer)
            else:
                self._measure_for_consumers(trainer)
        elif kind is not None:
            self._postponed = kind
            if not private.validates_now(trainer):
                self._take_postponed(trainer)

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Take a snapshot that was postponed for a validation that did not run; the weights are still the same."""
        self._take_postponed(trainer)

    def _take_postponed(self, trainer: pl.Trainer) -> None:
        kind, self._postponed = self._postponed, None
        if kind is not None and self._measured_step != self._watched().clock.steps:
            self._snapshot(trainer, kind, ended=trainer.is_last_batch)
            self._publish(trainer)

    def _note_axis(self, trainer: pl.Trainer) -> None:
        """Remember the step at which Lightning logs, if it is not the index of the last step."""
        steps = self._watched().clock.steps
        axis = private.logging_step(trainer, steps)
        if axis != max(steps - 1, 0):
            self._logged_at[steps] = axis

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Assign the validation metrics to the current weights, and measure these if a callback reads a value."""
        if trainer.sanity_checking or self.run is None or not self._begun:
            return
        self._values.saw_validation(self.run.clock.steps, trainer.current_epoch)
        if self._consumers:
            self._measure_for_consumers(trainer)
        self._take_postponed(trainer)

    def _measure_for_consumers(self, trainer: pl.Trainer) -> None:
        run = self._watched()
        if run.missed(run.clock.steps) or self._measured_step != run.clock.steps:
            self._snapshot(trainer, "full", ended=trainer.is_last_batch, needed=True)
        self._publish(trainer)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Take the snapshot of the epoch if one is due, and publish its values to Lightning's own callbacks."""
        self._take_postponed(trainer)
        if math.isfinite(trainer.num_training_batches) and not trainer.is_last_batch:
            # The training ends within the epoch: no epoch has ended, and the last snapshot comes at `on_train_end`.
            if self._consumers:
                self._measure_for_consumers(trainer)
            return
        self._end_epoch(trainer, trainer.current_epoch + 1)

    def _end_epoch(self, trainer: pl.Trainer, completed: int) -> None:
        run = self._watched()
        run.clock.saw_epoch(completed)
        if self._steps is not None:
            self._steps.end_epoch()
        kind = run.due()
        if self._consumers:
            self._measure_for_consumers(trainer)
        elif kind is not None and self._measured_step != run.clock.steps:
            self._snapshot(trainer, kind, ended=True)
            self._publish(trainer)
        if trainer.is_global_zero and self.settings.verbose and (said := self._values.explained(trainer)):
            (console_writer(trainer) or print)(for_terminal(f"spectra: {said}"))
        self._values.end_epoch()
        self._average_epoch()

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Take the last snapshot if the run ended between two snapshots, and close."""
        run = self._watched()
        step = run.clock.steps
        if run.missed(step) or self._measured_step != step:
            self._snapshot(trainer, "full")
        self._put_best()
        self._close()

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Record the weights if nothing was trained (``max_epochs=0``, ``limit_train_batches=0``)."""
        if not self._begun:
            self._begin(trainer, pl_module)
        self._close()

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Close the run; the error of the training propagates unchanged."""
        if self.run is not None:
            self.run.abandon()
        self._close()

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Close the run if it is still open."""
        if stage == "fit":
            self._close()

    def _close(self) -> None:
        if self._steps is not None:
            self._steps.close()
            self._steps = None
        if self.run is not None:
            self.run.finish()

    def _snapshot(self, trainer: pl.Trainer, kind: Kind, ended: bool = False, needed: bool = False) -> None:
        """Take a snapshot.

        Args:
            trainer: the Trainer.
            kind: what is measured.
            ended: whether it is the snapshot at the end of an epoch.
            needed: whether its values are read immediately, so that it must not be postponed.
        """
        run = self._watched()
        with run.guarded("a snapshot"):
            step = run.clock.steps
            if kind == "full":
                self._measured_step = step
            # The clock counts an epoch when it ends; the Trainer's number of the epoch that has just ended is the same
            # before and after that.
            metrics = self._values.metrics(trainer, step, trainer.current_epoch, ended)
            run.snapshot(kind, step, run.clock.epoch, metrics, needed)
            self._act(trainer)
            self._keep_best(*checkpoint_saver(trainer), step)

    def _act(self, trainer: pl.Trainer) -> None:
        if self._watched().should_stop:
            trainer.should_stop = True

    def _publish(self, trainer: pl.Trainer) -> None:
        """Publish the values of the last snapshot for monitoring; the loggers get them from the sinks."""
        run = self._watched()
        with run.guarded("publishing to the Trainer"):
            import torch

            device = trainer.strategy.root_device
            values = {name: torch.tensor(value, device=device) for name, value in run.scalars().items()}
            trainer.callback_metrics.update(values)
