"""The adapter for Keras 3 on TensorFlow, torch and jax; it imports none of them but the one in use."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from ww_callbacks.keras.backends import what_is_missing

try:
    import keras
except ImportError as missing:
    raise ImportError(what_is_missing(missing), name=missing.name) from missing

from ww_callbacks.adapters.averages import keras_specs
from ww_callbacks.adapters.base import Watcher, default_directory, shows_settings
from ww_callbacks.adapters.call_stack import caller
from ww_callbacks.adapters.model_structure import Structure
from ww_callbacks.adapters.training_metrics import values_of
from ww_callbacks.integrations.record import free_directory
from ww_callbacks.keras.sidecars import Sidecars
from ww_callbacks.probes.representation import RepresentationProbe
from ww_callbacks.publishing.sinks_by_default import default_sinks
from ww_callbacks.run import Run
from ww_callbacks.scheduling.cadence import Plan
from ww_callbacks.scheduling.loop_metrics import LoopMetrics
from ww_callbacks.spectral.layers import inspect
from ww_callbacks.spectral.layers.spec import LayerSpec


@shows_settings
class SpectralCallback(Watcher, keras.callbacks.Callback):
    """Watches the spectra of the weights while ``model.fit`` trains.

    Writes the model-level values into the epoch's ``logs``, so that ``History``, ``EarlyStopping`` and
    ``ModelCheckpoint`` see ``spectral/<quantity>/<statistic>``, whatever the order of the callbacks; they and all else
    go to TensorBoard event files in ``log_dir`` and to the W&B run that is open. Stops through
    ``model.stop_training``.

    Args:
        probe: a :class:`~ww_callbacks.probes.representation.RepresentationProbe`, run at its own cadence.
        settings: see :class:`ww_callbacks.settings.Settings`; with no argument it measures every eligible layer after
            each epoch, writes to ``spectral_runs/<time>`` and stops nothing.

    Raises:
        TypeError: for an argument that does not exist.
        ValueError: if a value is invalid.
    """

    def __init__(self, *, probe: RepresentationProbe | None = None, **settings: Any) -> None:
        keras.callbacks.Callback.__init__(self)
        Watcher.__init__(self, probe=probe, **settings)
        self._begun = False
        self._measured_step = -1
        self._steps = 0
        self._epoch = 0
        self._batch = 0
        if self.settings.every_n_steps or self.settings.cheap_every_n_steps:
            self.on_train_batch_end = self._after_batch

    def on_train_begin(self, logs: Mapping[str, float] | None = None) -> None:
        """Refuse what cannot work before anything is trained, and take a place before the callbacks that monitor."""
        log_dir = self.settings.log_dir
        folder = free_directory(Path(log_dir)) if log_dir else default_directory()
        self._begun = False
        self._measured_step = -1
        self._best_checkpoint = None
        structure = Structure(self.model, self._look)
        self._queue = caller(keras.callbacks.CallbackList)
        if self._queue is not None:
            if sum(isinstance(c, SpectralCallback) for c in self._queue.callbacks) > 1:
                raise ValueError("`fit` has two SpectralCallbacks: give it one, with the settings of both.")
            self._queue.callbacks = _in_order(self._queue.callbacks, self)
        self.run = Run(
            self.settings,
            structure.specs,
            "keras",
            folder,
            default_sinks(self.settings),
            refresh=structure.refresh,
            probing=self._probing(self.model),
        )

    def _look(self) -> Sequence[LayerSpec]:
        look = partial(inspect, convolution=self.settings.convolution)
        return keras_specs(self.model, look) if self.settings.weights == "average" else look(self.model)

    def on_epoch_begin(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
        """Take W_0 before the first step of the first epoch."""
        self._epoch, self._batch = epoch, 0
        if self._begun:
            return
        self._begun = True
        run = self._watched()
        self._steps = self._iterations()
        self._sidecars = Sidecars(self._queue.callbacks if self._queue is not None else ())
        saved = self._sidecars.find(self.settings.log_dir, epoch, self._steps)
        run.begin(self._plan(), self._steps, float(epoch), saved)
        if saved is not None and run.resumed:
            self._measured_step = int(saved.state.adapter["measured"])
        if run.cadence.every_n_steps or run.cadence.cheap_every_n_steps:
            self.on_train_batch_end = self._after_batch
            if self._queue is not None:
                # Keras decided when it made the list whether batches are reported at once; a count of steps needs it.
                self._queue._async_train = False

    def _after_batch(self, batch: int, logs: Mapping[str, float] | None = None) -> None:
        run = self._watched()
        before, self._batch = self._batch, batch + 1
        self._steps += self._batch - before
        kind = run.cadence.due_between((self._steps - (self._batch - before), 0.0), (self._steps, 0.0))
        if kind is not None:
            per_epoch = (self.params or {}).get("steps")
            fraction = self._batch / per_epoch if per_epoch else 0.0
            self._snapshot(kind, self._steps, self._epoch + fraction, logs)

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Take the epoch's snapshot if one is due, and write its values into ``logs``."""
        run = self._watched()
        kind = run.cadence.due_at_epoch(epoch + 1)
        if kind is not None:
            self._snapshot(kind, self._iterations(), float(epoch + 1), logs)
        if logs is not None:
            logs.update(run.scalars())
        run.poll()
        self._act()
        with run.meter.running():
            saved = run.saved({"measured": self._measured_step, "steps": self._iterations()})
            if saved is not None:
                self._sidecars.write(run.directory, epoch + 1, saved)

    def on_train_end(self, logs: Mapping[str, float] | None = None) -> None:
        """Take the last snapshot if the run ended between two, and close."""
        run = self._watched()
        if self._begun:
            step = self._iterations()
            if run.missed(step) or self._measured_step != step:
                self._snapshot("full", step, float(self._epoch + 1), logs)
        run.finish()

    def _snapshot(self, kind: Any, step: int, epoch: float, logs: Mapping[str, float] | None) -> None:
        run = self._watched()
        with run.guarded("a snapshot"):
            _ = self.model  # on jax this brings the weights of the running epoch into the model's variables
            if kind == "full":
                self._measured_step = step
            run.snapshot(kind, step, epoch, self._metrics(logs or {}))
            self._act()
            validated = any(name.startswith("val_") for name in logs or {})
            self._keep_best(".weights.h5", self.model.save_weights, validated)

    def _act(self) -> None:
        if self._watched().should_stop:
            self.model.stop_training = True

    def _metrics(self, logs: Mapping[str, float]) -> LoopMetrics:
        metrics = LoopMetrics(values_of(logs, self.settings.metrics))
        if "loss" in logs:
            metrics["train_loss"] = float(logs["loss"])
        optimizer = getattr(self.model, "optimizer", None)
        if optimizer is not None:
            metrics["learning_rate"] = float(keras.ops.convert_to_numpy(optimizer.learning_rate))
        return metrics

    def _iterations(self) -> int:
        return int(keras.ops.convert_to_numpy(self.model.optimizer.iterations))

    def _plan(self) -> Plan:
        params = self.params or {}
        return Plan(
            epochs=float(params["epochs"]) if params.get("epochs") else None, steps_per_epoch=params.get("steps")
        )


def _in_order(callbacks: list[Any], ours: SpectralCallback) -> list[Any]:
    """The progress bar first, so that it does not print our values; then ours, before all that may monitor them."""
    first = [c for c in callbacks if isinstance(c, keras.callbacks.ProgbarLogger)]
    rest = [c for c in callbacks if c is not ours and c not in first]
    return [*first, ours, *rest]
