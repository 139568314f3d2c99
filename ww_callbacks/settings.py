"""All arguments of the callbacks, validated before training starts."""

from __future__ import annotations

import difflib
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from ww_callbacks.integrations.schema import Alert
from ww_callbacks.integrations.sinks.sink import Sink
from ww_callbacks.spectral.detectors.base import Detector
from ww_callbacks.spectral.detectors.catalogue import CANNOT_STOP, KINDS
from ww_callbacks.spectral.detectors.presets import default_detectors
from ww_callbacks.spectral.layers.matrix_layouts import CONVENTIONS
from ww_callbacks.spectral.measuring.accuracy import check_accuracy
from ww_callbacks.spectral.measuring.registry import resolve

Policy = str | Callable[[Alert], object]

ALERT_KINDS = (*KINDS, "internal error")
POLICIES = ("ignore", "log", "warn", "stop")
EARLY_STOPPING = ("off", "cautious", "eager")
WEIGHTS = ("trained", "average")
RESTORE = ("last", "best")
METRICS = ("train_loss", "train_accuracy", "val_loss", "val_accuracy")

GROUPS = {
    "What is measured": ("quantities", "layers", "exclude", "types", "min_eigenvalues", "baseline", "weights",
                         "convolution", "fine_tuning", "accuracy", "seed"),
    "When": ("every_n_epochs", "every_n_steps", "cheap_every_n_steps"),
    "Where it goes": ("log_dir", "sinks", "per_layer", "histograms", "densities", "verbose"),
    "Alerts and stopping": ("early_stopping", "metrics", "keep_best", "keep_average", "restore", "policies",
                            "cooldown", "overtraining", "detectors"),
    "Cost and errors": ("max_overhead", "background", "workers", "strict"),
}  # fmt: skip
"""The arguments in groups, for ``help()``."""


@dataclass(frozen=True)
class Settings:
    """The arguments of every callback and of :class:`~ww_callbacks.SpectralMonitor`.

    Attributes:
        quantities: ``"default"``, ``"all"``, ``"estimable"`` or names of quantities, also mixed.
        layers: shell patterns of the layers to watch, such as ``encoder.*``; empty for every eligible layer.
        exclude: shell patterns of the layers to leave out.
        types: class names of modules (``Linear``) or kinds of layers (``conv``) to watch; empty for all.
        min_eigenvalues: leave out layers with fewer eigenvalues.
        baseline: the weights W_0 from which distances are measured: ``"initial"`` (the weights at the start of
            training; in fine-tuning the pretrained ones), or the path of a file or folder of weights (safetensors,
            torch, ONNX, Keras, Hugging Face).
        weights: ``"trained"`` for the weights that the optimizer updates; ``"average"`` for the averages that a
            callback or optimizer keeps (EMA, SWA, Keras ``use_ema``).
        convolution: how a convolution becomes matrices: ``"matrix"`` (out, in·kernel), ``"slices"`` (the slices of the
            kernel, pooled), ``"separate"`` (one row per slice) or ``"weightwatcher"`` (slices times √½).
        fine_tuning: whether training starts from trained weights; changes the recommendations of alerts.
        accuracy: ``"exact"``, or the allowed relative error, from 0.0001 to 0.1. Layers with a smaller side of at least
            512 are then estimated, values are reused while the weights have changed too little to affect them, and α is
            measured again once the weights have changed by this share of their norm. Values that are not exact have an
            error (``<quantity>_error``).
        seed: seed of the random null models and of the estimates; the global random state does not change.
        every_n_epochs: number of epochs between full snapshots. If neither this nor ``every_n_steps`` is set, every
            epoch, or about twenty times over the planned steps if a run has fewer than five epochs.
        every_n_steps: number of optimizer steps between full snapshots.
        cheap_every_n_steps: number of steps between measurements of norms, distances and updates, which need no
            spectrum.
        log_dir: folder of the record; None for the run's own log folder, or ``spectral_runs/<time>`` if it has none.
        sinks: further destinations for snapshots, alerts and the verdict; see
            ``ww_callbacks.integrations.sinks.sink.Sink``.
        per_layer: whether to also log every quantity of every layer as a scalar (many tags).
        histograms: whether to also log one histogram of log10 λ per layer.
        densities: whether to keep the binned spectral density of each layer in the record, for the views.
        verbose: 0 prints nothing (the logger ``ww_callbacks`` still reports a stop), 1 prints one line per snapshot.
        early_stopping: ``"off"`` only reports; ``"cautious"`` and ``"eager"`` stop the run on overtraining, collapse,
            explosion and non-finite weights.
        metrics: your names of metrics that are not recognised automatically: ``{"train_accuracy": "my_acc"}``. The keys
            are ``train_loss``, ``train_accuracy``, ``val_loss`` and ``val_accuracy``.
        keep_best: whether to keep a checkpoint of the best epoch in the folder of the record; None for yes if
            ``early_stopping`` or ``restore="best"`` is set, unless ``background`` is.
        keep_average: whether to keep, next to the best checkpoint, the average of the weights over the steps of the
            epoch. It takes as much memory as the trained weights, and is left out if you already average weights.
        restore: the weights in the model when training ends: ``"last"``, the trained weights, or ``"best"``, those of
            the best epoch (averaged with ``keep_average``), which are copied to host memory.
        policies: kind of alert → ``"ignore"``, ``"log"``, ``"warn"``, ``"stop"`` or a function that takes the alert.
        cooldown: minimum number of snapshots between repeats of an alert.
        overtraining: arguments of ``spectral.detectors.Overtraining`` that replace those of the preset.
        detectors: your own detectors, run before the built-in ones; see ``spectral.detectors.Detector``.
        max_overhead: maximum share of the training time that the callback may cost (0.01 is 1 %); None for no limit.
        background: whether to compute spectra in background threads during training.
        workers: number of layers measured in parallel, one thread each; None for one in the background, otherwise for
            as many as training has threads, up to four.
        strict: whether to raise errors of the callback itself instead of reporting them once.

    Raises:
        TypeError: if an argument does not exist.
        ValueError: if a value is invalid; the message says what is expected.

    Examples:
        >>> Settings(early_stopping="cautious", exclude="embedding*").exclude
        ('embedding*',)
    """

    quantities: str | Sequence[str] = "default"
    layers: str | Sequence[str] = ()
    exclude: str | Sequence[str] = ()
    types: str | Sequence[str] = ()
    min_eigenvalues: int = 1
    baseline: str = "initial"
    weights: str = "trained"
    convolution: str = "matrix"
    fine_tuning: bool = False
    accuracy: float | str = "exact"
    seed: int = 0
    every_n_epochs: int | None = None
    every_n_steps: int | None = None
    cheap_every_n_steps: int | None = None
    log_dir: str | None = None
    sinks: Sequence[Sink] = ()
    per_layer: bool = False
    histograms: bool = False
    densities: bool = True
    verbose: int = 1
    early_stopping: str = "off"
    metrics: Mapping[str, str] = field(default_factory=dict)
    keep_best: bool | None = None
    keep_average: bool = True
    restore: str = "last"
    policies: Mapping[str, Policy] = field(default_factory=dict)
    cooldown: int = 10
    overtraining: Mapping[str, Any] = field(default_factory=dict)
    detectors: Sequence[Detector] = ()
    max_overhead: float | None = None
    background: bool = False
    workers: int | None = None
    strict: bool = False

    def __post_init__(self) -> None:
        for name in ("layers", "exclude", "types"):
            object.__setattr__(self, name, _names(name, getattr(self, name)))
        if not isinstance(self.quantities, str):
            object.__setattr__(self, "quantities", _names("quantities", self.quantities))
        resolve(self.quantities)
        self._check_paths()
        flags = ("per_layer", "histograms", "densities", "fine_tuning", "background", "strict", "keep_average")
        for name in (*flags, "keep_best"):
            value = getattr(self, name)
            if not isinstance(value, bool) and not (name == "keep_best" and value is None):
                raise ValueError(f"Expected `{name}` to be True or False but got {value!r}.")
        for name, least in (("min_eigenvalues", 1), ("cooldown", 0), ("verbose", 0), ("seed", 0)):
            _check_integer(name, getattr(self, name), least)
        for name in ("every_n_epochs", "every_n_steps", "cheap_every_n_steps", "workers"):
            if getattr(self, name) is not None:
                _check_integer(name, getattr(self, name), 1)
        check_accuracy(self.accuracy)
        _check_choice("weights", self.weights, WEIGHTS)
        _check_choice("convolution", self.convolution, CONVENTIONS)
        _check_choice("early_stopping", self.early_stopping, EARLY_STOPPING)
        budget = self.max_overhead
        if budget is not None and not (isinstance(budget, int | float) and 0 < budget < 1):
            raise ValueError(f"Expected `max_overhead` between 0 and 1 (0.01 is 1 %) but got {budget!r}.")
        _check_choice("restore", self.restore, RESTORE)
        if self.keep_best is False and self.restore == "best":
            raise ValueError("Use `restore='best'` without `keep_best=False`: the best weights must be kept first.")
        if (self.keep_best or self.restore == "best") and self.background:
            name = "keep_best" if self.keep_best else "restore='best'"
            raise ValueError(
                f"Use `{name}` with `background=False`: the best weights can only be saved while the model holds them."
            )
        self._check_parts()
        self._check_policies()
        _check_mapping("metrics", self.metrics, "a metric to its name in your loop, such as {'val_loss': 'dev/nll'}")
        for metric, name in self.metrics.items():
            _check_choice("metrics", metric, METRICS, what="metric")
            if not isinstance(name, str):
                raise ValueError(f"Expected `metrics[{metric!r}]` to be the name that your loop logs but got {name!r}.")
        _check_mapping("overtraining", self.overtraining, "an argument of Overtraining to its value")
        default_detectors(self.early_stopping, overtraining=self.overtraining)

    def _check_paths(self) -> None:
        if self.log_dir is not None:
            if not isinstance(self.log_dir, str | os.PathLike):
                raise ValueError(f"Expected `log_dir` to be the path of a folder but got {self.log_dir!r}.")
            object.__setattr__(self, "log_dir", str(Path(self.log_dir).expanduser()))
        if not isinstance(self.baseline, str | os.PathLike):
            raise ValueError(
                f"Expected `baseline` to be 'initial' or the path of a checkpoint but got {self.baseline!r}."
            )
        baseline = str(self.baseline)
        object.__setattr__(self, "baseline", str(Path(baseline).expanduser()) if baseline[:1] == "~" else baseline)
        # `checkpoint.pt:teacher` chooses one of several sets of weights in a file.
        places = (self.baseline, self.baseline.rpartition(":")[0] or self.baseline)
        if self.baseline != "initial" and not any(Path(place).exists() for place in places):
            raise ValueError(
                f"`baseline` names a file that does not exist: {self.baseline}. Expected a checkpoint's path."
            )

    def _check_parts(self) -> None:
        """Sinks and detectors have the methods that are called during training."""
        for name, methods in (
            ("sinks", ("open", "snapshot", "alert", "close")),
            ("detectors", ("update", "state_dict", "load_state_dict")),
        ):
            parts = getattr(self, name)
            if not isinstance(parts, Iterable) or isinstance(parts, str):
                raise ValueError(f"Expected `{name}` to be a list but got {parts!r}.")
            object.__setattr__(self, name, tuple(parts))
            for part in getattr(self, name):
                missing = [m for m in methods if not callable(getattr(part, m, None))]
                if isinstance(part, type) or missing:
                    what = (
                        f"the class {part.__name__}; create an object of it" if isinstance(part, type) else repr(part)
                    )
                    raise ValueError(
                        f"Expected each of `{name}` to be an object with {', '.join(methods)} but got {what}."
                    )
        for detector in self.detectors:
            if isinstance(getattr(detector, "needs", ()), str):
                raise ValueError(f"Expected `needs` of {detector!r} to be names of quantities but got a single text.")
            if not isinstance(getattr(detector, "kind", None), str):
                raise ValueError(f"Expected each of `detectors` to have a text `kind` but {detector!r} has none.")

    def _check_policies(self) -> None:
        _check_mapping("policies", self.policies, "a kind of alert to a policy, such as {'explosion': 'stop'}")
        own = {detector.kind: getattr(detector, "can_stop", False) for detector in self.detectors}
        for kind, policy in self.policies.items():
            _check_choice("policies", kind, (*ALERT_KINDS, *own), what="kind of alert")
            if not callable(policy):
                _check_choice(f"policies[{kind!r}]", policy, POLICIES, what="policy")
            if policy == "stop" and (kind in CANNOT_STOP or kind == "internal error" or not own.get(kind, True)):
                raise ValueError(
                    f"`{kind}` informs and never stops a run on its own: its thresholds fire in healthy runs. Use "
                    "'log', 'warn' or a function."
                )

    @property
    def keeps_best(self) -> bool:
        """Whether the weights of the best epoch are kept."""
        if self.keep_best is not None:
            return self.keep_best
        return (self.early_stopping != "off" or self.restore == "best") and not self.background

    @classmethod
    def of(cls, arguments: Mapping[str, Any]) -> Settings:
        """Settings from keyword arguments.

        Raises:
            TypeError: if an argument does not exist; near matches are named.
            ValueError: if a value is invalid.
        """
        known = [f.name for f in fields(cls)]
        for name in arguments:
            if name not in known:
                near = difflib.get_close_matches(name, known, n=2, cutoff=0.5)
                hint = f" Did you mean {' or '.join(f'`{n}`' for n in near)}?" if near else ""
                raise TypeError(f"Unknown argument `{name}`.{hint}")
        return cls(**arguments)

    def as_dict(self) -> dict[str, Any]:
        """The settings as plain values, for a run's configuration."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        for name in ("sinks", "detectors"):
            values[name] = [type(part).__name__ for part in values[name]]
        values["policies"] = {k: p if isinstance(p, str) else repr(p) for k, p in self.policies.items()}
        return {k: list(v) if isinstance(v, tuple) else v for k, v in values.items()}


def _names(name: str, value: Any) -> tuple[str, ...]:
    """Names or patterns, one or several; a class is replaced by its name."""
    if value is not None and not isinstance(value, str | type | Iterable):
        raise ValueError(f"Expected `{name}` to be one or several names but got {value!r}.")
    several = [value] if isinstance(value, str | type) else list(value or ())
    wrong = [v for v in several if not isinstance(v, str | type)]
    if wrong:
        raise ValueError(f"Expected `{name}` to be one or several names but got {wrong[0]!r}.")
    return tuple(v.__name__ if isinstance(v, type) else v for v in several)


def _check_integer(name: str, value: object, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ValueError(f"Expected `{name}` to be an integer of at least {least} but got {value!r}.")


def _check_choice(name: str, value: object, choices: Sequence[str], what: str = "value") -> None:
    if value not in choices:
        near = difflib.get_close_matches(str(value), choices, n=1, cutoff=0.4)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"Unknown {what} {value!r} in `{name}`.{hint} Expected one of {', '.join(choices)}.")


def _check_mapping(name: str, value: object, what: str) -> None:
    if not isinstance(value, Mapping):
        raise ValueError(f"Expected `{name}` to map {what}, but got {value!r}.")
