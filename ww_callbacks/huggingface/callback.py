"""The adapter for the Hugging Face Trainer (transformers 5)."""

from __future__ import annotations

import math
from contextlib import suppress
from pathlib import Path
from typing import Any

try:
    import transformers
except ImportError as missing:
    raise ImportError(
        'ww_callbacks.huggingface needs transformers and accelerate: pip install "ww-callbacks[huggingface]"'
    ) from missing

from tqdm import tqdm

from ww_callbacks.adapters.base import Watcher, free_directory, shows_settings
from ww_callbacks.adapters.model_structure import Structure
from ww_callbacks.faults import logger
from ww_callbacks.huggingface import private
from ww_callbacks.huggingface.best_model import BestModelMetric
from ww_callbacks.huggingface.progress import EpochClock, plan
from ww_callbacks.huggingface.reporters import is_reporter, reporter_folder, reporter_sinks
from ww_callbacks.lifecycle.saved_state import Saved, read_sidecar, write_sidecar
from ww_callbacks.probes.representation import RepresentationProbe
from ww_callbacks.run import Run
from ww_callbacks.scheduling.distributed import processes
from ww_callbacks.spectral.layers import inspect

_SIDECAR = "spectral_state"
_FLOW = transformers.DefaultFlowCallback


@shows_settings
class SpectralCallback(Watcher, transformers.TrainerCallback):
    """Watches the spectra of the weights while a Hugging Face Trainer, or one of TRL's, trains.

    Publishes to the Trainer's reporters (TensorBoard, W&B and others) under ``spectral/…``, and adds nothing to
    ``state.log_history``, to the console's rows or to the metrics of an evaluation; but where ``metric_for_best_model``
    names one of its values, the evaluation gets this one, of the weights that it evaluates. Stops through
    ``control.should_training_stop``.

    Args:
        probe: a :class:`~ww_callbacks.probes.representation.RepresentationProbe`, run at its own cadence.
        settings: see :class:`ww_callbacks.settings.Settings`; with no argument it measures every eligible layer after
            each epoch, or about twenty times over the planned steps, and stops nothing.

    Raises:
        TypeError: for an argument that does not exist.
        ValueError: for a value that cannot be.
    """

    def __init__(self, *, probe: RepresentationProbe | None = None, **settings: Any) -> None:
        Watcher.__init__(self, probe=probe, **settings)
        self._trainer: transformers.Trainer | None = None
        self._best_model: BestModelMetric | None = None
        self._clock = EpochClock()
        self._measured_step = -1
        self._loss_mark = (0, 0.0)
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
        """Refuse what cannot work, and take W_0."""
        if self.run is not None:
            self.run.abandon()  # of a training that ended with an exception
        trainer = self._trainer = private.running_trainer()
        self._take_place()
        callbacks = trainer.callback_handler.callbacks if trainer is not None else []
        structure = Structure(model, lambda: inspect(model, convolution=self.settings.convolution))
        self._best_checkpoint = None
        self.run = Run(
            self.settings,
            structure.specs,
            "huggingface",
            free_directory(self._folder(args, callbacks)),
            reporter_sinks(callbacks, args, state, self.settings) if state.is_world_process_zero else (),
            None if args.disable_tqdm else tqdm.write,
            group=processes() if args.world_size > 1 else None,
            refresh=structure.refresh,
            probing=self._probing(model),
        )
        self._best_model = BestModelMetric.asked(args, self.run.monitorable())
        if self._best_model is not None:
            self._best_model.check_search(trainer)
        self._measured_step = -1
        self._loss_mark = (state.global_step, private.total_loss(trainer))
        self._clock = EpochClock.of(train_dataloader, state.global_step)
        saved = self._saved(args, state)
        self.run.begin(plan(args, state, train_dataloader), state.global_step, self._clock.now(state), saved)
        if saved is not None and self.run.resumed:
            with suppress(KeyError, TypeError, ValueError):  # of an older version: the loss begins anew
                self._measured_step = int(saved.state.adapter["measured"])
                step, loss = saved.state.adapter["loss"]
                # The Trainer's own sum begins anew with every `train`.
                self._loss_mark = (int(step), private.total_loss(trainer) - float(loss))
                self._clock.passes = int(saved.state.adapter["passes"])
            epoch = self._clock.now(state)
            if self._clock.sized and epoch == round(epoch) and self.run.cadence.due_at_epoch(round(epoch)):
                # Saved at the epoch's last step and before its end, which the Trainer does not do again.
                self._snapshot("full", state, control, epoch, others)
        elif not self.run.resumed:
            self._measured_step = state.global_step

    @property
    def _running(self) -> bool:
        """Whether a training is watched now; an evaluation before or after it is none of ours."""
        return self.run is not None and not self.run.progress.finished

    def _take_place(self) -> None:
        """Stand before the user's callbacks, which may read what we add to an evaluation, and after the reporters.

        Raises:
            ValueError: if the Trainer has two of us.
        """
        if self._trainer is None:
            return
        handler = self._trainer.callback_handler
        if sum(isinstance(c, SpectralCallback) for c in handler.callbacks) > 1:
            raise ValueError("The Trainer has two SpectralCallbacks: give it one, with the settings of both.")
        others = [c for c in handler.callbacks if c is not self]
        first = (i for i, c in enumerate(others) if not (is_reporter(c) or isinstance(c, _FLOW)))
        place = next(first, len(others))
        handler.callbacks = [*others[:place], self, *others[place:]]

    def _saved(self, args: transformers.TrainingArguments, state: transformers.TrainerState) -> Saved | None:
        """The state that lies in the checkpoint from which the Trainer goes on; None where it begins anew."""
        if state.global_step == 0:
            return None
        given = (private.resumed_from(), private.checkpoint_folder(self._trainer, args, state))
        for folder in (f for f in given if f is not None):
            try:
                return read_sidecar(folder, _SIDECAR)
            except FileNotFoundError:
                continue
            except (OSError, ValueError) as error:
                logger.warning("ww-callbacks: %s A new record begins. Training goes on.", error)
                return None
        return None

    def on_save(
        self,
        args: transformers.TrainingArguments,
        state: transformers.TrainerState,
        control: transformers.TrainerControl,
        **others: Any,
    ) -> None:
        """Leave what is needed for the run to be taken up again in the checkpoint's folder."""
        run = self._watched()
        gained = private.total_loss(self._trainer) - self._loss_mark[1]
        loss = [self._loss_mark[0], gained]
        saved = run.saved({"measured": self._measured_step, "loss": loss, "passes": self._clock.passes})
        if saved is not None and args.should_save:
            folder = private.checkpoint_folder(self._trainer, args, state)
            try:
                if not folder.is_dir():
                    raise FileNotFoundError(f"there is no {folder}")
                write_sidecar(folder, _SIDECAR, saved)
            except OSError as error:
                logger.warning("ww-callbacks: this checkpoint cannot be resumed from (%s). Training goes on.", error)

    def on_step_end(
        self,
        args: transformers.TrainingArguments,
        state: transformers.TrainerState,
        control: transformers.TrainerControl,
        **others: Any,
    ) -> None:
        """Take a snapshot where steps are counted."""
        self._watched().poll()
        self._act(control)
        kind = self._watched().cadence.due_at_step(state.global_step)
        if kind is not None:
            self._snapshot(kind, state, control, self._clock.now(state), others)

    def on_epoch_end(
        self,
        args: transformers.TrainingArguments,
        state: transformers.TrainerState,
        control: transformers.TrainerControl,
        **others: Any,
    ) -> None:
        """Take the epoch's snapshot if one is due."""
        epoch = self._clock.end_epoch(state, control)
        kind = None if epoch is None else self._watched().cadence.due_at_epoch(epoch)
        if kind is not None:
            self._snapshot(kind, state, control, self._clock.now(state), others)

    def on_evaluate(
        self,
        args: transformers.TrainingArguments,
        state: transformers.TrainerState,
        control: transformers.TrainerControl,
        metrics: dict[str, float] | None = None,
        **others: Any,
    ) -> None:
        """Give the value that ``metric_for_best_model`` names, of the weights that were evaluated."""
        asked = self._best_model
        if asked is None or metrics is None or not self._running:
            return
        run = self._watched()
        self._snapshot("full", state, control, self._clock.now(state), others)
        if run.settings.background:
            run.missed(state.global_step)
        # Where no snapshot could be taken (a budget, a fault of ours), an older value is not one of these weights.
        values = run.scalars() if run.step == self._measured_step == state.global_step else {}
        metrics.update(asked.metrics(values, private.metric_prefix()))

    def on_log(
        self,
        args: transformers.TrainingArguments,
        state: transformers.TrainerState,
        control: transformers.TrainerControl,
        logs: dict[str, float] | None = None,
        **others: Any,
    ) -> None:
        """Close at the Trainer's last row: after it the best weights may take the place of the last ones."""
        if self._running and logs is not None and {"train_runtime", "total_flos"} <= logs.keys():
            self._end(state, control, others)

    def on_train_end(
        self,
        args: transformers.TrainingArguments,
        state: transformers.TrainerState,
        control: transformers.TrainerControl,
        **others: Any,
    ) -> None:
        """Close where the Trainer has logged no last row, as a subclass may do."""
        if not self._running:
            return
        reloaded = args.load_best_model_at_end and state.best_model_checkpoint is not None
        if reloaded:
            self._measured_step = state.global_step  # not with the weights of another step
        self._end(state, control, others)

    def _end(
        self, state: transformers.TrainerState, control: transformers.TrainerControl, others: dict[str, Any]
    ) -> None:
        """Take the last snapshot if the run ended between two, and close."""
        run = self._watched()
        if run.missed(state.global_step):
            self._measured_step = -1
        self._snapshot("full", state, control, self._clock.now(state), others)
        run.finish()

    def _snapshot(
        self,
        kind: Any,
        state: transformers.TrainerState,
        control: transformers.TrainerControl,
        epoch: float,
        others: dict[str, Any],
    ) -> None:
        """Take a snapshot, unless there is a full one of this step."""
        run = self._watched()
        if self._measured_step == state.global_step:
            return
        with run.guarded("a snapshot"):
            if kind == "full":
                self._measured_step = state.global_step
            run.snapshot(kind, state.global_step, epoch, self._metrics(state, others))
            self._act(control)
            trainer = self._trainer
            if trainer is not None:
                validated = trainer.args.eval_strategy != "no"
                self._keep_best("", lambda path: trainer.save_model(str(path)), validated)

    def _act(self, control: transformers.TrainerControl) -> None:
        if self._watched().should_stop:
            control.should_training_stop = True

    def _metrics(self, state: transformers.TrainerState, others: dict[str, Any]) -> dict[str, float]:
        metrics: dict[str, float] = {}
        step, total = state.global_step, private.total_loss(self._trainer)
        if step > self._loss_mark[0] and math.isfinite(total):
            metrics["train_loss"] = (total - self._loss_mark[1]) / (step - self._loss_mark[0])
            self._loss_mark = (step, total)
        if others.get("optimizer") is not None:
            metrics["learning_rate"] = float(others["optimizer"].param_groups[0]["lr"])
        return metrics

    def _folder(self, args: transformers.TrainingArguments, callbacks: list[Any]) -> Path:
        """The folder named, the one that the TensorBoard reporter writes to, or ``spectral`` in the output folder."""
        if self.settings.log_dir is not None:
            return Path(self.settings.log_dir)
        return reporter_folder(callbacks) or private.run_folder(self._trainer, args) / "spectral"
