"""The adapter for Keras 3 on TensorFlow, torch and jax; imports only the backend in use."""

from __future__ import annotations

import fnmatch
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

from ww_callbacks.keras.backends import what_is_missing

try:
    import keras
except ImportError as missing:
    raise ImportError(what_is_missing(missing), name=missing.name) from missing

from ww_callbacks.adapters.averages import keras_owner
from ww_callbacks.adapters.base import Watcher, default_directory, shows_settings
from ww_callbacks.adapters.model_structure import Structure
from ww_callbacks.adapters.saved_weights.keras_weights import KerasWeights
from ww_callbacks.engine.snapshot_kind import Kind
from ww_callbacks.faults import logger
from ww_callbacks.integrations.record import free_directory
from ww_callbacks.integrations.scalars import PREFIX, scalars
from ww_callbacks.integrations.sinks.console import for_terminal
from ww_callbacks.keras import private
from ww_callbacks.keras.averages import keras_specs
from ww_callbacks.keras.log_consumers import LogConsumers
from ww_callbacks.keras.loop_values import LoopValues, own_optimizers
from ww_callbacks.keras.sidecars import Sidecars
from ww_callbacks.probes.representation import RepresentationProbe
from ww_callbacks.publishing.sinks_by_default import default_sinks
from ww_callbacks.run import Run
from ww_callbacks.scheduling.cadence import Plan
from ww_callbacks.scheduling.loop_metrics import LoopMetrics
from ww_callbacks.spectral.layers import inspect
from ww_callbacks.spectral.layers.spec import LayerSpec

_watched: WeakKeyDictionary[Any, int] = WeakKeyDictionary()
"""How many fits of each model were watched, by any callback."""


@shows_settings
class SpectralCallback(Watcher, keras.callbacks.Callback):
    """Watches the spectra of the weights while ``model.fit`` trains.

    Adds the model-level values to the ``logs`` of each epoch, so that ``History``, ``CSVLogger``, ``EarlyStopping`` and
    ``ModelCheckpoint`` see ``spectral/<quantity>/<statistic>``, whatever the order of the callbacks. The keys are the
    same in every epoch; a value is NaN if the weights of the epoch were not measured or have no such value. If a
    callback monitors one of the values, every epoch is measured. All values also go to TensorBoard event files in
    ``log_dir`` and to the open W&B run. Stops the run through ``model.stop_training``.

    Args:
        logs: the values to add to Keras's ``logs``, as shell patterns such as ``"*/median"`` or ``"overtraining/*"``;
            an empty list for none. Values that a callback monitors are always added.
        probe: a :class:`~ww_callbacks.probes.representation.RepresentationProbe`, run at its own cadence.
        settings: see :class:`ww_callbacks.settings.Settings`. By default every eligible layer is measured after each
            epoch, the record is in ``spectral_runs/<time>``, and the run is never stopped.

    Raises:
        TypeError: if an argument does not exist.
        ValueError: if a value is invalid.

    Examples:
        >>> callback = SpectralCallback(early_stopping="cautious", logs="*/median")
        >>> model.fit(x, y, epochs=20, validation_split=0.1, callbacks=[callback])  # doctest: +SKIP
        >>> print(callback.verdict)  # doctest: +SKIP
        healthy: Validation does not get worse in 20 values of the validation loss, and no other problem was found.
    """

    def __init__(
        self, *, logs: str | Sequence[str] = "*", probe: RepresentationProbe | None = None, **settings: Any
    ) -> None:
        keras.callbacks.Callback.__init__(self)
        Watcher.__init__(self, probe=probe, **settings)
        self.logs = [logs] if isinstance(logs, str) else list(logs)
        if not all(isinstance(pattern, str) for pattern in self.logs):
            raise ValueError(
                f"Expected `logs` to be one or several shell patterns such as '*/median' but got {logs!r}."
            )
        self._by_steps = False
        self._begin_anew()

    def _begin_anew(self) -> None:
        """Forget what an earlier fit left."""
        self._values = LoopValues(self.settings.metrics)
        self._begun = False
        self._measured_step = -1
        self._counter: int | None = None
        self._counts = True
        self._keys: list[str] = []
        self._logs_of_batch: Mapping[str, float] | None = None
        self._in_epoch = self._explained = self._brief = False
        self._forget_best()
        self._by_steps = bool(self.settings.every_n_steps or self.settings.cheap_every_n_steps)

    @property
    def async_safe(self) -> bool:
        """Whether Keras may report batches from other threads; False if the weights of each step are read."""
        asked = self.settings
        averaged = asked.keeps_best and asked.keep_average
        return not (asked.every_n_steps or asked.cheap_every_n_steps or averaged)

    def on_train_begin(self, logs: Mapping[str, float] | None = None) -> None:
        """Check model and settings before training, and move in front of the callbacks that monitor values."""
        if self.run is not None:
            self.run.abandon()  # an earlier fit that ended with an error
            self.run = None
        self._begin_anew()
        self._queue = private.running_list()
        callbacks = self._queue.callbacks if self._queue is not None else []
        if sum(isinstance(c, SpectralCallback) for c in callbacks) > 1:
            raise ValueError("`fit` has two SpectralCallbacks: give it one, with the settings of both.")
        self._consumers = LogConsumers(callbacks)
        self._sidecars = Sidecars(callbacks)
        if self._queue is not None:
            self._queue.callbacks = _in_order(callbacks, self)
        if self._is_built():
            self._make_run()

    def _is_built(self) -> bool:
        """Whether the model has its weights; TensorFlow makes those of a model without an input shape only later."""
        model = self.model
        if keras.backend.backend() != "tensorflow" or private.is_built(model):
            return True
        try:
            private.build(model)
        except Exception as error:  # whatever the user's model raises on symbolic inputs
            logger.warning(
                "ww-callbacks: `%s` has no weights before its first batch, and cannot be built without one (%s). "
                "Distances start from the weights after the first batch. Give it an input shape, or call it on a "
                "batch before `fit`. Training continues.",
                type(model).__name__,
                str(error).partition("\n")[0],
            )
            return False
        return bool(model.weights)

    def _make_run(self) -> None:
        log_dir = self.settings.log_dir
        structure = Structure(self.model, self._look)
        self.run = Run(
            self.settings,
            structure.specs,
            "keras",
            free_directory(Path(log_dir)) if log_dir else default_directory(),
            default_sinks(self.settings),
            self._write,
            refresh=structure.refresh,
            probing=self._probing(self.model),
        )

    def _look(self) -> Sequence[LayerSpec]:
        look = partial(inspect, convolution=self.settings.convolution)
        return keras_specs(self.model, look) if self.settings.weights == "average" else look(self.model)

    def _write(self, line: str) -> None:
        """Print a line, after a line break if Keras's progress bar is in the middle of an epoch."""
        bars = [
            c for c in (self._queue.callbacks if self._queue else ()) if isinstance(c, keras.callbacks.ProgbarLogger)
        ]
        torn = self._in_epoch and self._values.batches and any(bar.verbose == 1 for bar in bars)
        print(f"\n{line}" if torn else line, flush=True)

    def on_epoch_begin(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
        """Store W_0 before the first step of the first epoch."""
        self._values.begin_epoch()
        if self.run is not None and not self._begun:
            self._begin(epoch)
        self._epoch = epoch
        self._in_epoch = True

    def _begin(self, epoch: int) -> None:
        self._begun = True
        run = self._watched()
        model = self.model
        self._counter = self._iterations()
        steps = self._counter or 0
        saved = self._sidecars.find(self.settings.log_dir, epoch, steps)
        plan = self._plan()
        self._brief = run.console.brief = _watched.get(model, 0) > 0 and plan.epochs == epoch + 1
        run.begin(plan, steps, float(epoch), saved)
        self._average_weights(lambda: KerasWeights(model), plan.steps_per_epoch, keras_owner(model))
        if not model.trainable_variables:
            run.diagnosis.set_no_change_reason("all layers are frozen")
        if saved is not None and run.resumed:
            self._restore_kept(saved.state.adapter.get("kept", {}), saved.kept, *self._saver())
            self._measured_step = int(saved.state.adapter["measured"])
            self._values.first_loss = saved.state.adapter.get("first_loss")
        else:
            self._measured_step = run.clock.steps
            self._say_how_to_go_on(epoch)
            self._per_step, begun = private.accumulation(model.optimizer)
            run.clock.saw_batches(begun, stepped=False)
        _watched[model] = _watched.get(model, 0) + 1
        self._consumers.check(run)
        self._per_step, _ = private.accumulation(model.optimizer)
        if run.cadence.every_n_steps or run.cadence.cheap_every_n_steps or self._average is not None:
            self._by_steps = True
            if self._queue is not None:
                private.report_batches_at_once(self._queue)

    def _say_how_to_go_on(self, epoch: int) -> None:
        if _watched.get(self.model, 0) == 1 and self.settings.verbose:
            self._write(
                "spectra: an earlier `fit` has trained this model; each has its own record, with distances from "
                "the weights that it begins with. For one record give `log_dir=` to the callback, and to the next "
                f"`fit` initial_epoch={epoch + 1}, epochs={epoch + 2}, and so on."
            )

    def on_train_batch_end(self, batch: int, logs: Mapping[str, float] | None = None) -> None:
        """Record the loss, and take a snapshot if one is due within the epoch; otherwise any thread may call this.

        A snapshot due at the epoch's last batch waits for the epoch's end, when the validation is known too; one
        that may be the last waits for the next batch.
        """
        before = self._values.batches
        self._values.saw_batch(batch, logs or {})
        if not self._begun:
            self._begin_late()
        if not self._by_steps:
            return
        run = self._watched()
        if run.holds:
            run.release()
            self._act()
        per_epoch = (self.params or {}).get("steps")
        done, steps = self._values.batches, run.clock.steps
        run.clock.saw_batches(done - before, per_step=self._per_step, fraction=done / per_epoch if per_epoch else 0.0)
        if run.clock.steps > steps:
            self._average_step(run.clock.steps - steps)
        if per_epoch and done < per_epoch:
            self._take_due(logs)
        self._logs_of_batch = logs

    def on_train_batch_begin(self, batch: int, logs: Mapping[str, float] | None = None) -> None:
        """Take a snapshot that was due at the batch before, if the epoch's length is unknown.

        On JAX and TensorFlow, Keras announces a batch before it knows whether there is one: the snapshot is held until
        the batch or the epoch ends.
        """
        if self._by_steps and self._begun and not (self.params or {}).get("steps"):
            self._take_due(self._logs_of_batch, hold=True)

    def _take_due(self, logs: Mapping[str, float] | None, hold: bool = False) -> None:
        kind = self._watched().due()
        if kind is not None:
            self._snapshot(kind, logs, hold=hold)

    def _begin_late(self) -> None:
        """Begin with the weights after the first batch, which are the first that there are."""
        self._make_run()
        self._begin(self._epoch)

    def on_test_begin(self, logs: Mapping[str, float] | None = None) -> None:
        """Read the training metrics before the validation of the epoch resets them."""
        if self._in_epoch and self._begun:
            self._ask_trackers()

    def _ask_trackers(self) -> None:
        self._in_epoch = False
        with self._watched().guarded("reading Keras's metrics"):
            self._values.saw_trackers(self.model.get_metrics_result())

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Take the snapshot of the epoch if one is due, and add its values to ``logs``."""
        if self._in_epoch and self._begun:
            self._ask_trackers()
        self._in_epoch = False
        if not self._begun:
            return
        run = self._watched()
        self._count_epoch(epoch)
        if run.holds:
            with run.guarded("a snapshot"):
                run.release(run.clock.epoch, self._metrics(logs, ended=True))
                self._act()
                self._keep_best(*self._saver(), run.clock.steps)
        kind = run.due()
        looked = bool(self._consumers)
        if (looked or kind is not None) and self._is_due(run):
            self._snapshot("full" if looked or kind is None else kind, logs, ended=True, needed=looked)
        run.poll()
        if not self._explained:
            self._explained = True
            if self.settings.verbose and not self._brief:
                self._write(for_terminal(f"spectra: {self._values.explained(logs or {})}"))
        if logs is not None:
            with run.guarded("writing into Keras's logs"):
                self._publish(logs)
        self._act()
        self._average_epoch()
        with run.meter.running():
            first, (plain, kept) = self._values.first_loss, self._kept_state()
            told = {"measured": self._measured_step, "iterations": self._counter or 0, "first_loss": first}
            saved = run.saved({**told, "kept": plain})
            if saved is not None:
                saved = replace(saved, kept=kept)
                self._sidecars.write(run.directory, epoch + 1, saved)

    def _is_due(self, run: Run) -> bool:
        """Whether the current weights have not been measured yet."""
        return run.missed(run.clock.steps) or self._measured_step != run.clock.steps

    def _count_epoch(self, epoch: int) -> None:
        """Bring the clock to the end of the epoch, and see whether the optimizer's counter counts this training."""
        run = self._watched()
        counter, before = self._iterations(), self._counter
        self._counter = counter
        moved = counter is not None and before is not None and counter > before
        self._counts = moved or self._values.batches < self._per_step
        if not self._by_steps:
            run.clock.saw_batches(self._values.batches, counter=counter, per_step=self._per_step)
        run.clock.saw_epoch(epoch + 1)

    def _publish(self, logs: dict[str, float]) -> None:
        """Add the values of the current weights to ``logs``, with the same keys in every epoch."""
        run = self._watched()
        known = run.monitorable()
        chosen = [k for k in sorted(known) if any(fnmatch.fnmatchcase(k.removeprefix(PREFIX), p) for p in self.logs)]
        self._keys = list(dict.fromkeys([*self._keys, *chosen, *sorted(self._consumers.names)]))
        now = run.last is not None and run.last.step == run.clock.steps
        values = scalars(run.last) if run.last is not None and now else {}
        for key in self._keys:
            if key in values:
                logs[key] = values[key]
            elif key in self._consumers.names:
                # Keras's own callbacks take NaN for "no improvement"; what is missing they pass over.
                logs.pop(key, None)
            else:
                logs[key] = math.nan

    def on_train_end(self, logs: Mapping[str, float] | None = None) -> None:
        """Take the last snapshot if the run ended between two snapshots, and close."""
        if self.run is None:
            return
        run = self._watched()
        if self._begun and self._is_due(run):
            self._snapshot("full", logs, ended=True)
        self._put_best()
        run.finish()

    def _snapshot(
        self,
        kind: Kind,
        logs: Mapping[str, float] | None,
        ended: bool = False,
        needed: bool = False,
        hold: bool = False,
    ) -> None:
        run = self._watched()
        with run.guarded("a snapshot"):
            metrics = self._metrics(logs, ended)
            step = run.clock.steps
            if kind == "full":
                self._measured_step = step
            run.snapshot(kind, step, run.clock.epoch, metrics, needed, hold)
            self._act()
            self._keep_best(*self._saver(), step)

    def _metrics(self, logs: Mapping[str, float] | None, ended: bool) -> LoopMetrics:
        """The metrics of a snapshot; ``ended`` tells whether an epoch has ended."""
        model = self.model  # on jax this brings the weights of the running epoch into the model's variables
        optimizer = model.optimizer if self._counts else next(iter(own_optimizers(model)), None)
        return self._values.metrics(logs or {}, optimizer, ended)

    def _saver(self) -> tuple[str, Callable[[Path], object]]:
        """The suffix of a checkpoint, and the function that saves the current weights."""
        return ".weights.h5", self.model.save_weights

    def _act(self) -> None:
        if self._watched().should_stop:
            self.model.stop_training = True

    def _iterations(self) -> int | None:
        """What the compiled optimizer counts; None without one."""
        iterations = getattr(self.model.optimizer, "iterations", None)
        return None if iterations is None else int(keras.ops.convert_to_numpy(iterations))

    def _plan(self) -> Plan:
        params = self.params or {}
        steps = params.get("steps")
        per_step, _ = private.accumulation(self.model.optimizer)
        return Plan(
            epochs=float(params["epochs"]) if params.get("epochs") else None,
            steps_per_epoch=math.ceil(steps / per_step) if steps else None,
        )


def _in_order(callbacks: list[Any], ours: SpectralCallback) -> list[Any]:
    """The progress bar first, so that it does not print our values; then ours, before all that may monitor them."""
    first = [c for c in callbacks if isinstance(c, keras.callbacks.ProgbarLogger)]
    rest = [c for c in callbacks if c is not ours and c not in first]
    return [*first, ours, *rest]
