"""The base class of all callbacks: their arguments and their results."""

from __future__ import annotations

import inspect
import re
import textwrap
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, get_type_hints

from ww_callbacks.adapters.child_record import ChildRecord
from ww_callbacks.adapters.saved_weights.best_checkpoint import BestCheckpoint
from ww_callbacks.adapters.saved_weights.best_weights import BestWeights
from ww_callbacks.adapters.saved_weights.weight_average import WeightAverage, Weights
from ww_callbacks.diagnosis.alerts import AlertList
from ww_callbacks.integrations.record import free_directory
from ww_callbacks.integrations.schema import Verdict
from ww_callbacks.integrations.sinks.console import near
from ww_callbacks.probes.probe_runner import Probing
from ww_callbacks.probes.representation import RepresentationProbe
from ww_callbacks.run import Run
from ww_callbacks.settings import GROUPS, Settings
from ww_callbacks.spectral.detectors.base import epoch_text

if TYPE_CHECKING:
    import pandas as pd

    from ww_callbacks.integrations.record import RunRecord

T = TypeVar("T")


def shows_settings(cls: type[T]) -> type[T]:
    """Show every argument of :class:`~ww_callbacks.settings.Settings` as an argument of ``cls``.

    ``cls.__init__`` takes ``**settings``. Its signature lists all of them, for completion in editors and YAML in
    LightningCLI, and ``help(cls)`` describes each, in groups.
    """
    init: Any = cls.__init__
    own = [p for p in inspect.signature(init).parameters.values() if p.kind is not inspect.Parameter.VAR_KEYWORD]
    hints = get_type_hints(Settings)
    parameters = inspect.signature(Settings).parameters
    arguments = [
        p.replace(kind=inspect.Parameter.KEYWORD_ONLY, annotation=hints[p.name], default=getattr(Settings(), p.name))
        for p in parameters.values()
    ]
    init.__signature__ = inspect.Signature([*own, *arguments])
    sentences = described_arguments()
    lines = ["", "Keyword arguments:"]
    for group, names in GROUPS.items():
        lines += ["", f"  {group}"]
        for name in names:
            default = getattr(Settings(), name)
            lines += textwrap.wrap(
                f"{name}={default!r}: {sentences[name]}", 100, initial_indent="    ", subsequent_indent="        "
            )
    cls.__doc__ = inspect.cleandoc(cls.__doc__ or "") + "\n" + "\n".join(lines) + "\n"
    return cls


def described_arguments() -> dict[str, str]:
    """Each argument's sentence, from the docstring of :class:`~ww_callbacks.settings.Settings`."""
    text = inspect.cleandoc(Settings.__doc__ or "").partition("Attributes:\n")[2].partition("\nRaises:")[0]
    entries = re.split(r"^ {4}(\w+): ", text, flags=re.MULTILINE)[1:]
    return {name: " ".join(sentence.split()) for name, sentence in zip(entries[::2], entries[1::2], strict=True)}


_OF_A_RUN = (
    "run",
    "_best_checkpoint",
    "_average",
    "_best_weights",
    "_children_directory",
    "_trainer",
    "_queue",
    "_sidecars",
    "_loaded",
    "_model",
    "_consumers",
    "_steps",
    "_values",
)
"""Attributes of a run, which are neither copied nor pickled."""


class Watcher:
    """The arguments of a callback, and the results of its current or last run.

    Args:
        probe: a representation probe, run at its own cadence.
        settings: see :class:`ww_callbacks.settings.Settings`.

    Raises:
        TypeError: if an argument does not exist.
        ValueError: if a value is invalid.
    """

    run: Run | None = None
    _best_checkpoint: BestCheckpoint | None = None
    _average: WeightAverage | None = None
    _best_weights: BestWeights | None = None
    _children_directory: Path | None = None

    def __init__(self, *, probe: RepresentationProbe | None = None, **settings: Any) -> None:
        self.settings = Settings.of(settings)
        if probe is not None and not isinstance(probe, RepresentationProbe):
            what = "the class itself" if probe is RepresentationProbe else f"{probe!r:.80}"
            raise ValueError(
                "Expected `probe` to be a RepresentationProbe, as `probe=RepresentationProbe(batch)` from "
                f"`ww_callbacks.probes.representation`, but got {what}."
            )
        self.probe = probe
        self._child_record = ChildRecord()

    def _record(self) -> RunRecord:
        from ww_callbacks.integrations.record import read_run

        if (directory := self.directory) is None:
            raise RuntimeError("There is no history yet: no training has been watched.")
        return read_run(directory)

    @property
    def history(self) -> pd.DataFrame:
        """A table with one row per layer and snapshot: step, epoch, layer, status and every quantity."""
        return self._record().layers

    @property
    def summary(self) -> pd.DataFrame:
        """A table with one row per snapshot: model-level statistics, metrics of the loop, and the cost."""
        return self._record().model

    @property
    def alerts(self) -> AlertList:
        """The alerts so far."""
        if self._of_children() is not None:
            return AlertList(self._record().alerts)
        return self.run.alerts if self.run is not None else AlertList()

    @property
    def verdict(self) -> Verdict | None:
        """The verdict on the run so far; None before its first snapshot."""
        if self._of_children() is not None:
            return self._record().verdict
        return self.run.verdict if self.run is not None else None

    @property
    def directory(self) -> Path | None:
        """The folder of the run's record; None before training."""
        if (directory := self._of_children()) is not None:
            return directory
        return self.run.directory if self.run is not None else None

    def _of_children(self) -> Path | None:
        """The folder of the record, if the last training ran in child processes."""
        if (directory := self._child_record.take()) is not None:
            self.run, self._children_directory = None, directory
        return self._children_directory if self.run is None else None

    def _tell_parent(self) -> None:
        """Report the record's folder to the parent process, if this is a child of the process that created the
        callback.
        """
        run = self._watched()
        if run.leads:
            with run.guarded("reporting the record's folder to the parent process"):
                self._child_record.leave(run.directory)

    @property
    def best_checkpoint(self) -> Path | None:
        """Path of the checkpoint of the best snapshot so far; None if none is kept."""
        return self._best_checkpoint.path if self._best_checkpoint is not None else None

    @property
    def best_average(self) -> Path | None:
        """Path of the checkpoint with the averaged weights of the best epoch; None if there is none."""
        return self._best_checkpoint.average if self._best_checkpoint is not None else None

    def _forget_best(self) -> None:
        """Reset the state of an earlier training."""
        self._best_checkpoint = self._average = self._best_weights = None

    def _average_weights(self, weights: Callable[[], Weights], steps_per_epoch: int | None, owner: str = "") -> None:
        """Start to average the weights, if requested.

        Args:
            weights: function that creates the model's :class:`Weights`.
            steps_per_epoch: optimiser steps per epoch, if known.
            owner: description of what already averages them; then no second average is kept.

        Raises:
            ValueError: if the best weights are to be restored and cannot be.
        """
        asked, run = self.settings, self._watched()
        self._average = self._best_weights = None
        averaged, restored = asked.keeps_best and asked.keep_average and not owner, asked.restore == "best"
        if restored and owner:
            raise ValueError(
                f"Use either `restore='best'` or {owner}: both put weights into the model when training ends."
            )
        if not (averaged or restored):
            return
        with run.meter.running():
            try:
                average = WeightAverage(weights(), steps_per_epoch)
            except ValueError as error:
                if restored:
                    raise ValueError(f"`restore='best'` is not available for this model: {error}.") from error
                run.faults.warn_once(f"no average of the weights is kept ({error})", "average")
                return
        self._average = average if averaged else None
        self._best_weights = BestWeights(average) if restored else None

    def _average_step(self, steps: int = 1) -> None:
        """Update the average after ``steps`` more steps; if that fails, averaging stops."""
        average, self._average = self._average, None
        if average is not None:
            with self._watched().guarded("averaging the weights"):
                average.step(steps)
                self._average = average

    def _average_epoch(self) -> None:
        """Record the end of an epoch."""
        if self._average is not None:
            with self._watched().guarded("averaging the weights"):
                self._average.end_epoch()

    def _keep_best(self, suffix: str, save: Callable[[Path], object], step: int) -> None:
        """Save the current weights, after ``step`` steps, if they are the best so far or may turn out to be."""
        run = self._watched()
        if not self.settings.keeps_best or run.step != step:
            return
        best, wanted = run.diagnosis.best_step, run.diagnosis.steps_to_keep
        if self._best_checkpoint is None:
            self._best_checkpoint = BestCheckpoint(run.directory, suffix, save, run.leads)
        self._best_checkpoint.look(step, best, wanted, self._average)
        if self._best_weights is not None:
            self._best_weights.look(step, wanted, self._average is not None)

    def _put_best(self) -> None:
        """Load the best weights into the model at the end, with ``restore="best"``."""
        if self._best_weights is None:
            return
        run = self._watched()
        with run.guarded("loading the best weights into the model"):
            if not self._best_weights.put(run.diagnosis.best_step):
                said = "the model keeps its last weights, because no epoch was found to be the best"
                run.faults.warn_once(said, "restore", ending="")
            else:
                if run.processes > 1:
                    self._best_weights.agree()
                if run.leads:
                    run.console.note(self._put_in_words())
        self._best_weights = None

    def _put_in_words(self) -> str:
        """Report which weights the model has now, and where the files are."""
        diagnosis = self._watched().diagnosis
        step, epoch = f"step {diagnosis.best_step}", diagnosis.best_epoch
        when = step if epoch is None else f"epoch {epoch_text(epoch)} ({step})"
        raw, average = self.best_checkpoint, self.best_average
        held = f"the average of the weights over {when}" if average else f"the trained weights of {when}, not averaged"
        files = [f"{what} in {near(path)}" for what, path in (("average", average), ("trained", raw)) if path]
        return f"the model now has {held}" + (f"; {', '.join(files)}" if files else "")

    def _kept_state(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """The state of the best weights: plain values, and arrays by name."""
        plain: dict[str, Any] = {}
        arrays: dict[str, Any] = {}
        run, average = self._watched(), self._average
        with run.guarded("saving the average of the weights"):
            if self._best_checkpoint is not None:
                plain["checkpoint"] = self._best_checkpoint.state()
            if average is not None and average.begun:
                plain["average"] = average.state()
                arrays |= {f"average/{name}": value for name, value in average.saved().items()}
            if self._best_weights is not None:
                arrays |= {f"best/{name}": value for name, value in self._best_weights.copies().items()}
        return plain, arrays

    def _restore_kept(
        self, plain: Mapping[str, Any], arrays: Mapping[str, Any], suffix: str, save: Callable[[Path], object]
    ) -> None:
        """Restore what :meth:`_kept_state` returned."""
        run = self._watched()
        with run.guarded("restoring the average of the weights"):
            if "checkpoint" in plain and self.settings.keeps_best:
                self._best_checkpoint = BestCheckpoint(run.directory, suffix, save, run.leads)
                self._best_checkpoint.restore(plain["checkpoint"])
            if "average" in plain and self._average is not None:
                self._average.restore(plain["average"], _under("average/", arrays))
            if self._best_weights is not None:
                self._best_weights.restore(_under("best/", arrays))

    def _probing(self, model: Any) -> Probing | None:
        """The probe on ``model``; raises if the model cannot be probed."""
        return None if self.probe is None else Probing(self.probe, model)

    def __getstate__(self) -> dict[str, Any]:
        """The arguments without the run: a copy watches its own run."""
        return {name: None if name in _OF_A_RUN else value for name, value in self.__dict__.items()}

    def _watched(self) -> Run:
        if self.run is None:
            raise RuntimeError("There is no history yet: no training has been watched.")
        return self.run

    def _repr_html_(self) -> str:
        if self._of_children() is not None:
            return self._record()._repr_html_()
        if self.run is None:
            return "<p>SpectralCallback: no training watched yet</p>"
        return self.run.html()


def _under(prefix: str, arrays: Mapping[str, Any]) -> dict[str, Any]:
    return {name.removeprefix(prefix): value for name, value in arrays.items() if name.startswith(prefix)}


def default_directory() -> Path:
    """A new folder ``spectral_runs/<time>`` in the working directory, for a run without a log folder."""
    from datetime import datetime

    return free_directory(Path("spectral_runs") / datetime.now().strftime("%Y-%m-%d_%H-%M-%S"))
