"""The adapter for plain loops."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ww_callbacks.adapters.averages import keras_owner
from ww_callbacks.adapters.base import Watcher, default_directory, shows_settings
from ww_callbacks.adapters.current_arrays import CurrentArrays
from ww_callbacks.adapters.model_structure import Structure
from ww_callbacks.adapters.saved_weights.any_weights import weights_of
from ww_callbacks.adapters.saved_weights.best_checkpoint import saver
from ww_callbacks.adapters.stalled_training import why_no_gradient
from ww_callbacks.adapters.traced_output import traced_output
from ww_callbacks.adapters.training_metrics import (
    StepLosses,
    in_words,
    misspelt,
    recognised,
    train_loss_name,
    values_of,
)
from ww_callbacks.integrations.record import free_directory
from ww_callbacks.integrations.schema import Snapshot
from ww_callbacks.probes.representation import RepresentationProbe
from ww_callbacks.publishing.sinks_by_default import default_sinks
from ww_callbacks.run import Run
from ww_callbacks.scheduling.cadence import Cadence, Plan
from ww_callbacks.scheduling.distributed import is_sharded, processes
from ww_callbacks.scheduling.loop_metrics import LoopMetrics
from ww_callbacks.spectral.layers import inspect


@shows_settings
class SpectralMonitor(Watcher):
    """Watches the spectra of the weights of a model in any training loop.

    The monitor reads the initial weights W_0 when you create it. Call :meth:`observe` after every epoch (or every step,
    with ``every_n_steps``), check :attr:`should_stop`, and call :meth:`close` at the end, or use the monitor as a
    context manager::

        with SpectralMonitor(model) as monitor:
            for epoch in range(epochs):
                for batch in loader:
                    monitor.step(loss=train_step(model, batch))
                monitor.observe(step=step, epoch=epoch + 1, val_loss=evaluate(model))
                if monitor.should_stop:
                    break

    If the weights are sharded over several processes (DTensor, DeepSpeed ZeRO-3), create a monitor in every process and
    make the same calls in each, because the processes gather each layer together; one process writes. If every process
    has all weights, as under DDP, create the monitor in one process only.

    Args:
        model: a torch module, a Keras model, a pytree of arrays (a module of Flax NNX or Equinox, a dictionary, nested
            lists, …), or a function without arguments that returns one. JAX creates new arrays at each update: unless
            the pytree is updated in place, as an NNX module is, pass a function that returns the current weights,
            ``SpectralMonitor(lambda: params)``, or pass them to :meth:`observe` as ``weights``.
        probe: a :class:`~ww_callbacks.probes.representation.RepresentationProbe`, run at its own cadence.
        settings: see :class:`ww_callbacks.settings.Settings`.

    Raises:
        TypeError: if an argument does not exist.
        ValueError: if a value is invalid, a filter matches nothing, the model has no matrix, or ``keep_best`` is set
            with sharded weights; save your own checkpoints there.
        OSError: if the folder of the record is not writable.

    Examples:
        >>> import tempfile
        >>> import numpy as np
        >>> weights = {"fc.weight": np.eye(4)}
        >>> with SpectralMonitor(weights, log_dir=tempfile.mkdtemp(), verbose=0) as monitor:
        ...     weights["fc.weight"] *= 2  # an update
        ...     snapshot = monitor.observe(step=1, epoch=1, train_loss=0.5)
        >>> snapshot.rows[0].values["frobenius_norm"]
        4.0
    """

    def __init__(self, model: Any, *, probe: RepresentationProbe | None = None, **settings: Any) -> None:
        super().__init__(probe=probe, **settings)
        log_dir = self.settings.log_dir
        directory = free_directory(Path(log_dir)) if log_dir else default_directory()
        self._arrays = CurrentArrays.of(model)
        self._model = model = model if self._arrays is None else self._arrays
        self._sharded = is_sharded(model)
        if self._sharded and (self.settings.keep_best or self.settings.restore == "best"):
            raise ValueError(
                "Use neither `keep_best` nor `restore`, because the weights are sharded over processes. Save "
                "checkpoints yourself, and take the one at `verdict.best_step`."
            )
        structure = Structure(model, lambda: inspect(model, convolution=self.settings.convolution))
        self.run: Run = Run(
            self.settings,
            structure.specs,
            "plain",
            directory,
            default_sinks(self.settings),
            group=processes() if self._sharded else None,
            refresh=structure.refresh,
            probing=self._probing(model),
        )
        self.run.begin(Plan())
        if not self._sharded:
            self._average_weights(lambda: weights_of(model), None, keras_owner(model))
        self._cadence = self._configured_cadence()
        self._seen = (0, 0.0)
        self._losses = StepLosses()
        self._metrics_now: LoopMetrics | None = None
        self._stepped = self._explained = False
        self._epoch = 0

    def step(self, loss: Any) -> None:
        """Report the training loss of one step, computed before the update. Call it after the update.

        The overtraining detector uses the losses within an epoch. They stay on the device until the next
        :meth:`observe`, so no step waits for one. The updated weights enter the average that is kept with
        ``early_stopping``.

        Args:
            loss: a number, or an array of one element; None for a step without a loss.

        Raises:
            TypeError: if ``loss`` is not a number.
            ValueError: if ``loss`` has more than one element.
        """
        _check_loss(loss)
        self._losses.add(loss)
        if not self._stepped:
            self._stepped = True
            with self.run.guarded("reading the graph of the loss"):
                self.run.diagnosis.set_no_change_reason(why_no_gradient(loss, self._model))
                self.run.diagnosis.name_output(self._output_of(loss))
        self._average_step()

    def _output_of(self, loss: Any) -> str | None:
        """The layer that produces the output, if the graph of a torch loss shows it."""
        if self._arrays is not None or not hasattr(loss, "grad_fn"):
            return None
        return traced_output(loss, self._model, self.run.specs)

    def _configured_cadence(self) -> Cadence:
        settings = self.settings
        by_epochs = settings.every_n_epochs
        if settings.cheap_every_n_steps and by_epochs is None and settings.every_n_steps is None:
            by_epochs = 1
        return Cadence(by_epochs, settings.every_n_steps, settings.cheap_every_n_steps)

    def observe(
        self,
        step: int,
        epoch: float | None = None,
        metrics: Mapping[str, float] | None = None,
        *,
        weights: Any = None,
        **more: float,
    ) -> Snapshot | None:
        """Report the progress of the loop, and take a snapshot if one is due (without a cadence, at every call).

        Args:
            step: number of completed optimiser steps.
            epoch: number of completed epochs, fractional inside an epoch; omit it if there are no epochs.
            metrics: metrics of the loop: ``train_loss`` or ``loss`` (if you do not use :meth:`step`),
                ``train_accuracy``, ``learning_rate``, ``val_loss``, ``val_accuracy``, under these or other common
                names, each a number or an array of one element; None for one that is not known at this call.
            weights: the current pytree, if the monitor was created with one that is not updated in place.
            more: metrics as keyword arguments.

        Returns:
            The snapshot, or None if none was due.

        Raises:
            TypeError: if a step, an epoch or a metric is not a number, or if ``weights`` is passed for a model that is
                not a pytree.
            ValueError: if ``step`` is smaller than at the last call, or a metric has more than one element.
        """
        if self.run.progress.finished:
            self.run.faults.warn_once("`observe` was called after `close`, so nothing more is recorded", "closed")
            return None
        if weights is not None:
            self._take(weights)
        _check_number("step", step)
        _check_number("epoch", epoch or 0.0)
        given = {}
        for name, value in {**(metrics or {}), **more}.items():
            if value is not None:
                _check_number(name, value)
                given[name] = value.detach() if hasattr(value, "detach") else value
        now = (int(step), float(epoch or 0.0))
        if now[0] < self._seen[0]:
            raise ValueError(f"Expected `step` to go on from {self._seen[0]} but got {step}: it counts all steps done.")
        if now == (0, 0.0):
            return self.run.last  # W_0 was measured when the monitor was created
        kind = "full" if self._cadence == Cadence() else self._cadence.due_between(self._seen, now)
        self._seen = now
        if kind is None:
            return None
        metrics_now = LoopMetrics(values_of(given, self.settings.metrics))
        metrics_now |= {name: float(value) for name, value in given.items()}
        if (mean := self._losses.mean()) is not None:
            metrics_now.setdefault("train_loss", mean)
        if (loss := train_loss_name(given, self.settings.metrics)) is not None:
            metrics_now.setdefault("train_loss", metrics_now[loss])
        if self._losses.first is not None:
            metrics_now["first_loss"] = self._losses.first
        if ended := int(now[1]) > self._epoch:
            metrics_now.epoch_losses = self._losses.parts()
            self._losses.reset()
            self._epoch = int(now[1])
        self._metrics_now = metrics_now
        self._explain(given, ended or not epoch)
        snapshot = self.run.snapshot(kind, *now, metrics_now)
        if self._arrays is not None and self._arrays.unchanged_arrays:
            self.run.faults.warn_once(
                "the weights are the same arrays as at the start, and JAX never changes an array in place. "
                "Pass a function that returns the current ones, `SpectralMonitor(lambda: params)`, or use "
                "`observe(weights=…)`",
                "unchanged arrays",
            )
        if not self._sharded:
            with self.run.guarded("keeping the best weights"):
                self._keep_best(*saver(self._model), now[0])
        if ended:
            self._average_epoch()
        return snapshot

    def _explain(self, given: Mapping[str, Any], ended: bool) -> None:
        """Log once which metrics are recognised, when an epoch ends or validation values arrive, and likely
        misspellings.
        """
        given_names = self.settings.metrics
        for name, meant in misspelt(given, given_names).items():
            self.run.faults.warn_once(f"`{name}` was not recognised (did you mean `{meant}`?)", name, ending="")
        found = recognised(given, given_names)
        if self._explained or not given or not (ended or "val_loss" in found or "val_accuracy" in found):
            return
        self._explained = True
        loss = "step()" if self._losses.first is not None else train_loss_name(given, given_names)
        trained = {"train_loss": loss} if loss is not None else {}
        self.run.console.note(in_words(trained | found))

    def _take(self, weights: Any) -> None:
        if self._arrays is None:
            raise TypeError("Expected no `weights`: those of a module are read from the module itself.")
        self._arrays.look(weights)
        self._average = None  # the weights between two calls are not visible

    @property
    def should_stop(self) -> bool:
        """Whether to stop the loop; :attr:`stop_reason` gives the reason."""
        return self.run.should_stop

    @property
    def stop_reason(self) -> str:
        """Why to stop the loop; empty if :attr:`should_stop` is False."""
        return self.run.stop_reason

    def close(self) -> None:
        """Compute the verdict, load the best weights with ``restore="best"``, and close every sink.

        You can call it more than once. If the background queue had no room for the last snapshot, it is taken now.
        """
        if self._metrics_now is not None and not self.run.progress.finished and self.run.missed(self._seen[0]):
            self.run.snapshot("full", *self._seen, self._metrics_now, needed=True)
        self._put_best()
        self.run.finish()

    def __enter__(self) -> SpectralMonitor:
        return self

    def __exit__(self, *error: object) -> None:
        if error[0] is not None:
            self._best_weights = None  # the weights stay as they were when the user's code raised
            self._metrics_now = None  # nor are the weights those of the last call
        self.close()


def _check_loss(loss: Any) -> None:
    """Raise if ``value`` is not the loss of one step, without waiting for a device."""
    if loss is not None:
        _check_number("loss", loss)


def _check_number(name: str, value: Any) -> None:
    """Raise if ``value`` is neither a number nor an array of one element, without waiting for a device."""
    if isinstance(value, str) or not hasattr(value, "__float__"):
        raise TypeError(f"Expected `{name}` to be a number but got {value!r:.80}.")
    shape = tuple(getattr(value, "shape", ()))
    if math.prod(shape) != 1:
        raise ValueError(f"Expected `{name}` to be a number or an array of one element but got one of shape {shape}.")
