"""The adapter for the Hugging Face Trainer (transformers 5)."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

try:
    import transformers
except ImportError as missing:
    raise ImportError(
        'ww_callbacks.huggingface needs transformers and accelerate: pip install "ww-callbacks[huggingface]"'
    ) from missing

from tqdm import tqdm

from ww_callbacks.adapters.base import Watcher, shows_settings
from ww_callbacks.adapters.model_structure import Structure
from ww_callbacks.adapters.saved_weights.torch_weights import TorchWeights, as_numpy
from ww_callbacks.adapters.stalled_training import why_not_trained
from ww_callbacks.adapters.training_metrics import in_words
from ww_callbacks.faults import logger
from ww_callbacks.huggingface import private
from ww_callbacks.huggingface.best_model import BestModelMetric
from ww_callbacks.huggingface.loop_metrics import TrainerMetrics
from ww_callbacks.huggingface.progress import EpochClock, plan
from ww_callbacks.huggingface.reporters import is_reporter, reporter_folder, reporter_sinks
from ww_callbacks.integrations.record import free_directory
from ww_callbacks.integrations.sinks.console import for_terminal
from ww_callbacks.lifecycle.saved_state import Saved, read_sidecar, write_sidecar
from ww_callbacks.probes.representation import RepresentationProbe
from ww_callbacks.run import Run
from ww_callbacks.scheduling.distributed import processes
from ww_callbacks.spectral.layers import inspect

_SIDECAR = "spectral_state"
_FLOW = transformers.DefaultFlowCallback


@shows_settings
class SpectralCallback(Watcher, transformers.TrainerCallback):
    """Watches the spectra of the weights while a Hugging Face Trainer or a TRL trainer trains.

    Logs to the Trainer's reporters (TensorBoard, W&B and others) under ``spectral/…``. Adds nothing to
    ``state.log_history``, to the console or to the metrics of an evaluation, with one exception: if
    ``metric_for_best_model`` names one of its values, each evaluation gets this value of the evaluated weights. Stops
    the run through ``control.should_training_stop``.

    Args:
        probe: a :class:`~ww_callbacks.probes.representation.RepresentationProbe`, run at its own cadence.
        settings: see :class:`ww_callbacks.settings.Settings`. By default every eligible layer is measured after each
            epoch, or about twenty times over the planned steps, and the run is never stopped.

    Raises:
        TypeError: if an argument does not exist.
        ValueError: if a value is invalid.

    Examples:
        >>> callback = SpectralCallback(early_stopping="cautious", fine_tuning=True)
        >>> trainer = Trainer(model, args, train_dataset=data, callbacks=[callback])  # doctest: +SKIP
        >>> trainer.train()  # doctest: +SKIP
        >>> print(callback.verdict)  # doctest: +SKIP
        healthy: Validation does not get worse in 3 values of the validation loss, and no other problem was found.
    """

    def __init__(self, *, probe: RepresentationProbe | None = None, **settings: Any) -> None:
        Watcher.__init__(self, probe=probe, **settings)
        self._trainer: transformers.Trainer | None = None
        self._best_model: BestModelMetric | None = None
        self._clock = EpochClock()
        self._measured_step = -1
        self._batch_size: int | None = None
        self._metrics = TrainerMetrics({})
        self._waiting: Any = None
        self._explained = False
        if self.settings.weights != "trained":
            raise ValueError("The Hugging Face Trainer keeps no averaged weights: leave `weights='trained'`.")

    def on_train_begin(
        self,
        args: transformers.TrainingArguments,
        state: transformers.TrainerState,
        control: transformers.TrainerControl,
        model: Any = None,
        train_dataloader: Any = None,
        **others: Any,
    ) -> None:
        """Check model and settings, and store W_0."""
        directory = self._end_earlier(args, state)
        trainer = self._trainer = private.running_trainer()
        self._take_place()
        callbacks = trainer.callback_handler.callbacks if trainer is not None else []
        structure = Structure(model, lambda: inspect(model, convolution=self.settings.convolution))
        self._forget_best()
        if args.load_best_model_at_end and self.settings.restore == "best":
            raise ValueError(
                "Use either `restore='best'` or `load_best_model_at_end`: both put weights into the model at the end."
            )
        self.run = Run(
            self.settings,
            structure.specs,
            "huggingface",
            directory or free_directory(self._folder(args, callbacks)),
            reporter_sinks(callbacks, args, state, self.settings) if state.is_world_process_zero else (),
            None if args.disable_tqdm else tqdm.write,
            group=processes() if args.world_size > 1 else None,
            refresh=structure.refresh,
            probing=self._probing(model),
            claimed=directory is not None,
        )
        self._best_model = BestModelMetric.asked(args, self.run.monitorable())
        if self._best_model is not None:
            self._best_model.check_search(trainer)
        self._measured_step, self._batch_size = -1, state.train_batch_size
        self._metrics, self._waiting = TrainerMetrics(self.settings.metrics), None
        self._clock = EpochClock.of(train_dataloader, state.global_step)
        saved = self._saved(args, state)
        planned = plan(args, state, train_dataloader)
        self.run.begin(planned, state.global_step, self._clock.now(state), saved)
        self._average_weights(lambda: TorchWeights(model), planned.steps_per_epoch)
        if (optimizer := others.get("optimizer")) is not None:
            self.run.diagnosis.set_no_change_reason(why_not_trained(model, [optimizer]))
        if saved is not None and self.run.resumed:
            self._restore_kept(saved.state.adapter.get("kept", {}), saved.kept, *self._saver())
            with suppress(KeyError, TypeError, ValueError):  # of an older version: the loss starts over
                self._measured_step = int(saved.state.adapter["measured"])
                self._metrics.restore(saved.state.adapter["losses"])
                self._clock.passes = int(saved.state.adapter["passes"])
            epoch = self._clock.now(state)
            if self._clock.sized and epoch == round(epoch) and self.run.cadence.due_at_epoch(round(epoch)):
                # Saved at the epoch's last step and before its end, which the Trainer does not do again.
                self._snapshot("full", state, control, others)
                self._metrics.end_epoch()
        elif not self.run.resumed:
            self._measured_step = state.global_step

    def _end_earlier(self, args: transformers.TrainingArguments, state: transformers.TrainerState) -> Path | None:
        """End the run of a training that raised an exception.

        Returns:
            Its folder if ``auto_find_batch_size`` starts the same training again, with smaller batches; otherwise None.
        """
        if self.run is None:
            return None
        size, before = state.train_batch_size, self._batch_size
        smaller = args.auto_find_batch_size and size is not None and before is not None and size < before
        if not smaller or self.run.progress.finished:
            self.run.abandon()
            return None
        if self._best_checkpoint is not None:
            self._best_checkpoint.remove()
        return self.run.give_up(f"batches of {before} do not fit into memory; training starts again with {size}")

    @property
    def _running(self) -> bool:
        """Whether a training is being watched; evaluations before or after it are ignored."""
        return self.run is not None and not self.run.progress.finished

    def _take_place(self) -> None:
        """Move before the user's callbacks, which may read the values added to an evaluation, and after the reporters.

        Raises:
            ValueError: if the Trainer has two SpectralCallbacks.
        """
        if self._trainer is None:
            return
        handler = self._trainer.callback_handler
        if sum(isinstance(c, SpectralCallback) for c in handler.callbacks) > 1:
            raise ValueError("The Trainer has two SpectralCallbacks: give it one, with the settings of both.")
        others = [c for c in handler.callbacks if c is not self]
        earlier = (is_reporter(c) or isinstance(c, _FLOW) or private.saves_at_a_signal(c) for c in others)
        first = (i for i, before in enumerate(earlier) if not before)
        place = next(first, len(others))
        handler.callbacks = [*others[:place], self, *others[place:]]

    def _saved(self, args: transformers.TrainingArguments, state: transformers.TrainerState) -> Saved | None:
        """The state in the checkpoint from which the Trainer resumes; None if it starts from scratch."""
        if state.global_step == 0:
            return None
        given = (private.resumed_from(), private.checkpoint_folder(self._trainer, args, state))
        for folder in (f for f in given if f is not None):
            try:
                return read_sidecar(folder, _SIDECAR)
            except FileNotFoundError:
                continue
            except (OSError, ValueError) as error:
                logger.warning("ww-callbacks: %s Starting a new record. Training continues.", error)
                return None
        return None

    def on_save(
        self,
        args: transformers.TrainingArguments,
        state: transformers.TrainerState,
        control: transformers.TrainerControl,
        **others: Any,
    ) -> None:
        """Save the state needed to resume the run in the folder of the checkpoint."""
        run = self._watched()
        self._catch_up(state, control, others)
        if control.should_training_stop and args.load_best_model_at_end:
            self._snapshot("full", state, control, others)
        losses, passes = self._metrics.state(), self._clock.passes
        plain, kept = self._kept_state()
        saved = run.saved({"measured": self._measured_step, "losses": losses, "passes": passes, "kept": plain})
        if saved is not None and args.should_save:
            saved = replace(saved, kept={name: as_numpy(value) for name, value in kept.items()})
            folder = private.checkpoint_folder(self._trainer, args, state)
            try:
                if not folder.is_dir():
                    raise FileNotFoundError(f"there is no {folder}")
                write_sidecar(folder, _SIDECAR, saved)
            except OSError as error:
                logger.warning(
                    "ww-callbacks: the record cannot be resumed from this checkpoint (%s). Training continues.", error
                )

    def _save_at_a_signal(
        self,
        args: transformers.TrainingArguments,
        state: transformers.TrainerState,
        control: transformers.TrainerControl,
        others: dict[str, Any],
    ) -> None:
        """Save next to the checkpoint that ``enable_jit_checkpoint`` writes at SIGTERM without calling ``on_save``.

        With several processes the signal may reach them at different steps, so the state is not saved.
        """
        if not (control.should_training_stop and getattr(args, "enable_jit_checkpoint", False)) or args.world_size > 1:
            return
        folder = private.checkpoint_folder(self._trainer, args, state)
        if folder.is_dir() and not (folder / f"{_SIDECAR}.json").exists():
            self.on_save(args, state, control, **others)

    def on_step_begin(
        self,
        args: transformers.TrainingArguments,
        state: transformers.TrainerState,
        control: transformers.TrainerControl,
        **others: Any,
    ) -> None:
        """Take a snapshot that waited for an evaluation without metrics, before the weights change."""
        self._catch_up(state, control, others)
        self._save_at_a_signal(args, state, control, others)

    def on_pre_optimizer_step(
        self,
        args: transformers.TrainingArguments,
        state: transformers.TrainerState,
        control: transformers.TrainerControl,
        **others: Any,
    ) -> None:
        """Save the state next to a checkpoint that was written at a signal."""
        self._save_at_a_signal(args, state, control, others)

    def on_step_end(
        self,
        args: transformers.TrainingArguments,
        state: transformers.TrainerState,
        control: transformers.TrainerControl,
        **others: Any,
    ) -> None:
        """Record the loss of the step, and take a snapshot if one is due at this step."""
        run = self._watched()
        with run.guarded("reading the training loss"):
            self._metrics.step(self._trainer, state)
        self._average_step()
        run.poll()
        self._act(control)
        epoch = self._clock.now(state)
        ends = self._clock.sized and epoch == round(epoch)
        # At an epoch's last step the epoch's own snapshot follows, which can wait for an evaluation.
        if not (ends and run.cadence.due_at_epoch(round(epoch))):
            self._due(run.cadence.due_at_step(state.global_step), state, control, others)
        self._save_at_a_signal(args, state, control, others)

    def on_epoch_end(
        self,
        args: transformers.TrainingArguments,
        state: transformers.TrainerState,
        control: transformers.TrainerControl,
        **others: Any,
    ) -> None:
        """Take the snapshot of the epoch if one is due, or the last one if the best weights will be reloaded."""
        run, epoch = self._watched(), self._clock.end_epoch(state, control)
        kind = None if epoch is None else run.cadence.due_at_epoch(epoch)
        if control.should_training_stop and args.load_best_model_at_end:
            kind = "full"
        self._due(kind, state, control, others)
        self._metrics.end_epoch()
        self._average_epoch()
        self._save_at_a_signal(args, state, control, others)
        if args.eval_strategy == "no":
            self._explain(args, state)

    def on_evaluate(
        self,
        args: transformers.TrainingArguments,
        state: transformers.TrainerState,
        control: transformers.TrainerControl,
        metrics: dict[str, float] | None = None,
        **others: Any,
    ) -> None:
        """Take the snapshot that waited for these metrics, and add the value that ``metric_for_best_model`` names."""
        if metrics is None or not self._running:
            return
        run, prefix, asked = self._watched(), private.metric_prefix(), self._best_model
        if prefix.startswith("eval"):
            self._metrics.evaluated(metrics)
            self._explain(args, state)
            kind = "full" if asked is not None else self._waiting
            if kind is not None:
                self._snapshot(kind, state, control, others, metrics)
        if asked is not None:
            if run.settings.background:
                run.missed(state.global_step)
            # If no snapshot could be taken (budget, internal error), an older value does not belong to these weights.
            values = run.scalars() if run.step == self._measured_step == state.global_step else {}
            metrics.update(asked.metrics(values, prefix))

    def on_log(
        self,
        args: transformers.TrainingArguments,
        state: transformers.TrainerState,
        control: transformers.TrainerControl,
        logs: dict[str, float] | None = None,
        **others: Any,
    ) -> None:
        """Record the logged training metrics, and close at the Trainer's last row, while its reporters are open."""
        if not self._running or logs is None:
            return
        self._metrics.logged(logs)
        if {"train_runtime", "total_flos"} <= logs.keys():
            self._end(args, state, control, others)

    def on_train_end(
        self,
        args: transformers.TrainingArguments,
        state: transformers.TrainerState,
        control: transformers.TrainerControl,
        **others: Any,
    ) -> None:
        """Close if the Trainer logged no last row, as in some subclasses."""
        if self._running:
            self._end(args, state, control, others)

    def _end(
        self,
        args: transformers.TrainingArguments,
        state: transformers.TrainerState,
        control: transformers.TrainerControl,
        others: dict[str, Any],
    ) -> None:
        """Take the last snapshot if the run ended between two snapshots, and close."""
        run = self._watched()
        if run.missed(state.global_step):
            self._measured_step = -1
        # Whether the best weights have already taken the place of the last ones depends on the version.
        if not (args.load_best_model_at_end and state.best_model_checkpoint is not None):
            self._snapshot("full", state, control, others)
        self._put_best()
        run.finish()

    def _due(
        self,
        kind: Any,
        state: transformers.TrainerState,
        control: transformers.TrainerControl,
        others: dict[str, Any],
    ) -> None:
        """Take the snapshot that is due, or postpone it until the evaluation of the same weights."""
        if kind is None:
            return
        if control.should_evaluate:
            self._waiting = "full" if "full" in (kind, self._waiting) else kind
        else:
            self._snapshot(kind, state, control, others)

    def _catch_up(
        self, state: transformers.TrainerState, control: transformers.TrainerControl, others: dict[str, Any]
    ) -> None:
        if self._waiting is not None:
            self._snapshot(self._waiting, state, control, others)

    def _snapshot(
        self,
        kind: Any,
        state: transformers.TrainerState,
        control: transformers.TrainerControl,
        others: dict[str, Any],
        evaluation: dict[str, float] | None = None,
    ) -> None:
        """Take a snapshot, unless there is a full one of this step."""
        run, self._waiting = self._watched(), None
        if self._measured_step == state.global_step:
            return
        with run.guarded("a snapshot"):
            if kind == "full":
                self._measured_step = state.global_step
            epoch = self._clock.now(state)
            metrics = self._metrics.collect(others.get("optimizer"), evaluation, ended=epoch > 0 and epoch % 1 == 0)
            run.snapshot(kind, state.global_step, epoch, metrics)
            self._act(control)
            if self._trainer is not None:
                self._keep_best(*self._saver(), state.global_step)

    def _saver(self) -> tuple[str, Callable[[Path], object]]:
        """The suffix of a checkpoint, and the function that saves the current weights."""
        trainer = self._trainer

        def save(path: Path) -> None:
            if trainer is not None:
                with private.without_progress_bars():
                    trainer.save_model(str(path))

        return "", save

    def _explain(self, args: transformers.TrainingArguments, state: transformers.TrainerState) -> None:
        """Print once which metric names were recognised."""
        if not self._explained and self.settings.verbose and state.is_world_process_zero:
            self._explained = True
            write = print if args.disable_tqdm else tqdm.write
            write(for_terminal(f"spectra: {in_words(self._metrics.names)}"))

    def _act(self, control: transformers.TrainerControl) -> None:
        if self._watched().should_stop:
            control.should_training_stop = True

    def _folder(self, args: transformers.TrainingArguments, callbacks: list[Any]) -> Path:
        """``log_dir``, the folder of the TensorBoard reporter, or ``spectral`` in the output folder."""
        if self.settings.log_dir is not None:
            return Path(self.settings.log_dir)
        return reporter_folder(callbacks) or private.run_folder(self._trainer, args) / "spectral"
