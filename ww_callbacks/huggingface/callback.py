"""The adapter for the Hugging Face Trainer (transformers 5)."""

from __future__ import annotations

import math
import sys
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
from transformers.trainer_callback import ExportableState
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from ww_callbacks.adapters.base import Watcher, free_directory, shows_settings
from ww_callbacks.adapters.call_stack import caller, local
from ww_callbacks.adapters.model_structure import Structure
from ww_callbacks.faults import logger
from ww_callbacks.integrations.sink import Sink
from ww_callbacks.lifecycle.saved_state import Saved, read_sidecar, write_sidecar
from ww_callbacks.probes.representation import RepresentationProbe
from ww_callbacks.run import Run
from ww_callbacks.scheduling.cadence import Plan
from ww_callbacks.scheduling.distributed import processes
from ww_callbacks.spectral.layers import inspect

_PRINTERS = (transformers.ProgressCallback, transformers.PrinterCallback)
_SIDECAR = "spectral_state"


@shows_settings
class SpectralCallback(Watcher, transformers.TrainerCallback, ExportableState):
    """Watches the spectra of the weights while a Hugging Face Trainer trains.

    Logs through the Trainer itself, so that its reporters and ``state.log_history`` have the values, and adds them to
    the metrics of an evaluation as ``eval_spectral/…``, which ``metric_for_best_model`` and ``EarlyStoppingCallback``
    can read. Stops through ``control.should_training_stop``.

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
        self._trainer = caller(transformers.Trainer)
        if self._trainer is not None:
            handler = self._trainer.callback_handler
            handler.callbacks = [self, *(c for c in handler.callbacks if c is not self)]
            if sum(isinstance(c, SpectralCallback) for c in handler.callbacks) > 1:
                raise ValueError("The Trainer has two SpectralCallbacks: give it one, with the settings of both.")
        structure = Structure(model, lambda: inspect(model, convolution=self.settings.convolution))
        folder = free_directory(self._folder(args))
        write = None if args.disable_tqdm else tqdm.write
        self._best_checkpoint = None
        self.run = Run(
            self.settings,
            structure.specs,
            "huggingface",
            folder,
            self._sinks(),
            write,
            group=processes() if args.world_size > 1 else None,
            refresh=structure.refresh,
            probing=self._probing(model),
        )
        self._measured_step = -1
        self._loss_mark = (state.global_step, self._total_loss())
        epochs = float(args.num_train_epochs) if args.max_steps <= 0 else None
        per_epoch = math.ceil(state.max_steps / state.num_train_epochs) if state.num_train_epochs else None
        saved = self._saved(args, state)
        self.run.begin(
            Plan(epochs, state.max_steps or None, per_epoch), state.global_step, float(state.epoch or 0.0), saved
        )
        if saved is not None and self.run.resumed:
            with suppress(KeyError, TypeError, ValueError):  # of an older version: the loss begins anew
                self._measured_step = int(saved.state.adapter["measured"])
                step, loss = saved.state.adapter["loss"]
                # The Trainer's own sum begins anew with every `train`.
                self._loss_mark = (int(step), self._total_loss() - float(loss))
        else:
            self._log(control)

    def _saved(self, args: transformers.TrainingArguments, state: transformers.TrainerState) -> Saved | None:
        """The state that lies in the checkpoint from which the Trainer goes on; None where it begins anew."""
        if state.global_step == 0:
            return None
        given = (local(transformers.Trainer, "resume_from_checkpoint"), _checkpoint(args, state))
        for folder in (Path(f) for f in given if isinstance(f, str | Path)):
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
        gained = self._total_loss() - self._loss_mark[1]
        saved = run.saved({"measured": self._measured_step, "loss": [self._loss_mark[0], gained]})
        if saved is not None and args.should_save:
            try:
                write_sidecar(_checkpoint(args, state), _SIDECAR, saved)
            except OSError as error:
                logger.warning("ww-callbacks: this checkpoint cannot be resumed from (%s). Training goes on.", error)

    def state(self) -> dict[str, Any]:
        """The arguments, from which the Trainer makes the callback anew where it restores callbacks.

        All else lies in the checkpoint's folder, and is found there with and without that.
        """
        arguments = self.settings.as_dict()
        arguments["policies"] = {k: p for k, p in self.settings.policies.items() if isinstance(p, str)}
        return {"args": arguments, "attributes": {}}

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
            self._snapshot(kind, state, control, float(state.epoch or 0.0), others)

    def on_epoch_end(
        self,
        args: transformers.TrainingArguments,
        state: transformers.TrainerState,
        control: transformers.TrainerControl,
        **others: Any,
    ) -> None:
        """Take the epoch's snapshot if one is due."""
        epoch = round(float(state.epoch or 0.0))
        kind = self._watched().cadence.due_at_epoch(epoch)
        if kind is not None and self._measured_step != state.global_step:
            self._snapshot(kind, state, control, float(epoch), others)

    def on_evaluate(
        self,
        args: transformers.TrainingArguments,
        state: transformers.TrainerState,
        control: transformers.TrainerControl,
        metrics: dict[str, float] | None = None,
        **others: Any,
    ) -> None:
        """Give the last snapshot's values to what chooses the best model by the evaluation's metrics."""
        if metrics is not None and self.run is not None:
            metrics.update({f"eval_{name}": value for name, value in self.run.scalars().items()})

    def on_train_end(
        self,
        args: transformers.TrainingArguments,
        state: transformers.TrainerState,
        control: transformers.TrainerControl,
        **others: Any,
    ) -> None:
        """Take the last snapshot if the run ended between two, and close."""
        run = self._watched()
        if run.missed(state.global_step) or self._measured_step != state.global_step:
            self._snapshot("full", state, control, float(state.epoch or 0.0), others)
        run.finish()

    def _snapshot(
        self,
        kind: Any,
        state: transformers.TrainerState,
        control: transformers.TrainerControl,
        epoch: float,
        others: dict[str, Any],
    ) -> None:
        run = self._watched()
        with run.guarded("a snapshot"):
            if kind == "full":
                self._measured_step = state.global_step
            run.snapshot(kind, state.global_step, epoch, self._metrics(state, others))
            self._log(control)
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
        step, total = state.global_step, self._total_loss()
        if step > self._loss_mark[0]:
            metrics["train_loss"] = (total - self._loss_mark[1]) / (step - self._loss_mark[0])
            self._loss_mark = (step, total)
        if others.get("optimizer") is not None:
            metrics["learning_rate"] = float(others["optimizer"].param_groups[0]["lr"])
        return metrics

    def _total_loss(self) -> float:
        """Sum of the steps' training losses so far, which the Trainer keeps in two parts."""
        logged = getattr(self._trainer, "_total_loss_scalar", math.nan)
        return float(logged) + float(getattr(self._trainer, "_tr_loss", math.nan))

    def _log(self, control: transformers.TrainerControl) -> None:
        if self._trainer is None:
            return
        handler, keep = self._trainer.callback_handler, control.should_log
        everyone = handler.callbacks
        # The progress bar would print every one of the values; the console sink has a line for them.
        handler.callbacks = [c for c in everyone if not isinstance(c, _PRINTERS)]
        try:
            self._trainer.log(self._watched().scalars())
        finally:
            handler.callbacks = everyone
            control.should_log = keep

    def _folder(self, args: transformers.TrainingArguments) -> Path:
        """The folder named, the one that the TensorBoard reporter writes to, or ``spectral`` in the output folder."""
        if self.settings.log_dir is not None:
            return Path(self.settings.log_dir)
        writers = self._writers()
        return Path(writers[0].log_dir) if writers else Path(args.output_dir or ".") / "spectral"

    def _sinks(self) -> list[Sink]:
        """What the Trainer's reporters cannot show; they have the scalars from the Trainer's own log."""
        asked = self.settings
        more: dict[str, Any] = {"scalars": False, "per_layer": asked.per_layer, "histograms": asked.histograms}
        sinks: list[Sink] = []
        for writer in self._writers():
            from ww_callbacks.integrations.tensorboard import TensorBoardSink

            sinks.append(TensorBoardSink(writer._get_file_writer().add_summary, layout=False, **more))
        wandb = sys.modules.get("wandb")
        if wandb is not None and wandb.run is not None:
            from ww_callbacks.integrations.wandb import WandbSink

            sinks.append(WandbSink(wandb.run, **more))
        return sinks

    def _writers(self) -> list[Any]:
        """The event writers of the Trainer's TensorBoard reporters."""
        reporters = self._trainer.callback_handler.callbacks if self._trainer is not None else []
        return [writer for c in reporters if (writer := getattr(c, "tb_writer", None)) is not None]


def _checkpoint(args: transformers.TrainingArguments, state: transformers.TrainerState) -> Path:
    return Path(args.output_dir or ".") / f"{PREFIX_CHECKPOINT_DIR}-{state.global_step}"
