"""All use of the Trainer's undocumented interface.

Each function names the attributes that it reads. All but ``_tr_loss`` are in the source of transformers 5.0.0, all in
5.23.0. If a later version lacks one, training continues, and one warning says what no longer works.
``tests/huggingface/test_private.py`` fails on the first version that lacks one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from ww_callbacks.adapters.call_stack import caller, local
from ww_callbacks.faults import logger

_said: set[str] = set()


def _lost(attribute: str, consequence: str) -> None:
    """Warn once that ``attribute`` is missing, and of the consequence."""
    if attribute not in _said:
        _said.add(attribute)
        logger.warning(
            "ww-callbacks: transformers %s has no %s: %s. Training continues.",
            transformers.__version__,
            attribute,
            consequence,
        )


def running_trainer() -> transformers.Trainer | None:
    """The Trainer whose hook is running, found on the call stack, because it does not pass itself to its callbacks."""
    trainer = caller(transformers.Trainer)
    if trainer is None:
        _lost(
            "Trainer on the call stack of a hook",
            "neither its reporters, its losses nor `metric_for_best_model` get anything",
        )
    return trainer


@contextmanager
def without_progress_bars() -> Iterator[None]:
    """Hide transformers' own progress bars (``utils.logging._tqdm_active``).

    The public switch is not used because it also changes the state of huggingface_hub, and can warn.
    """
    module = transformers.utils.logging
    shown = getattr(module, "_tqdm_active", None)
    if shown is None:
        _lost("utils.logging._tqdm_active", "saving the best weights shows a progress bar")
        yield
        return
    module._tqdm_active = False
    try:
        yield
    finally:
        module._tqdm_active = shown


def saves_at_a_signal(callback: Any) -> bool:
    """Whether ``callback`` is the Trainer's own that ``enable_jit_checkpoint`` adds (``JITCheckpointCallback``)."""
    return type(callback).__name__ == "JITCheckpointCallback"


def resumed_from() -> Path | None:
    """The checkpoint from which ``train(resume_from_checkpoint=…)`` resumes (a local variable of the training loop)."""
    folder = local(transformers.Trainer, "resume_from_checkpoint")
    return Path(folder) if isinstance(folder, str | Path) else None


def metric_prefix() -> str:
    """``metric_key_prefix`` of the evaluation that is running (an argument of ``Trainer.evaluate``)."""
    prefix = local(transformers.Trainer, "metric_key_prefix")
    return prefix if isinstance(prefix, str) else "eval"


def run_folder(trainer: transformers.Trainer | None, args: transformers.TrainingArguments) -> Path:
    """The folder of checkpoints: the output folder, or a trial's (``_get_output_dir``, ``_trial``)."""
    folder = Path(args.output_dir or ".")
    if trainer is None or getattr(trainer, "hp_search_backend", None) is None:
        return folder
    find, trial = getattr(trainer, "_get_output_dir", None), getattr(trainer, "_trial", None)
    if find is None:
        _lost("Trainer._get_output_dir", "checkpoints of a hyperparameter search cannot be resumed from")
        return folder
    return Path(find(trial=trial))


def checkpoint_folder(
    trainer: transformers.Trainer | None, args: transformers.TrainingArguments, state: transformers.TrainerState
) -> Path:
    """The folder of the checkpoint of this step."""
    return run_folder(trainer, args) / f"{PREFIX_CHECKPOINT_DIR}-{state.global_step}"


def running_loss(trainer: transformers.Trainer | None) -> tuple[torch.Tensor | None, int]:
    """Sum of the steps' training losses since the Trainer last logged one, on its device, and the step of that row.

    ``_tr_loss`` and ``_globalstep_last_logged``; in transformers 5.0 the former is the local variable ``tr_loss`` of
    the loop. None if unknown.
    """
    total, logged_at = getattr(trainer, "_tr_loss", None), getattr(trainer, "_globalstep_last_logged", None)
    if total is None:
        total = local(transformers.Trainer, "tr_loss")
    if total is None or logged_at is None:
        if trainer is not None:
            _lost("Trainer._tr_loss", "snapshots have no training loss")
        return None, 0
    return total, int(logged_at)


def event_file(reporter: Any) -> Callable[[Any, int], object] | None:
    """Adds a summary to the event file of a TensorBoard reporter (``tb_writer``, torch's ``_get_file_writer``).

    None while the reporter has none open.
    """
    writer = getattr(reporter, "tb_writer", None)
    if writer is None:
        return None
    find = getattr(writer, "_get_file_writer", None)
    if find is None:
        _lost("_get_file_writer of the TensorBoard writer", "TensorBoard does not get our values")
        return lambda summary, step: None
    return find().add_summary


def trackio_row(reporter: Any) -> tuple[Callable[..., object], int] | None:
    """Trackio's ``log`` and the step of the last row in its run (``_trackio`` of the reporter, ``_next_step``).

    None while the run has no row.
    """
    trackio = getattr(reporter, "_trackio", None)
    if trackio is None or (run := trackio.context_vars.current_run.get()) is None:
        return None
    following = getattr(run, "_next_step", None)
    if following is None:
        _lost("_next_step of the Trackio run", "Trackio does not get our values")
        return None
    return (trackio.log, following - 1) if following else None
