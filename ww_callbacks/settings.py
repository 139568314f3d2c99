"""Every argument of the callbacks, in one place; validated before training starts."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from ww_callbacks.integrations.schema import Alert
from ww_callbacks.spectral.layers.matrix_layouts import CONVENTIONS
from ww_callbacks.spectral.measuring.registry import resolve

Policy = str | Callable[[Alert], object]

ALERT_KINDS = (
    "non-finite",
    "scale collapse",
    "explosion",
    "rank collapse",
    "dead layer",
    "alpha out of range",
    "correlation trap",
    "overtraining",
    "representation collapse",
    "internal error",
)
POLICIES = ("ignore", "log", "warn", "stop")
NEVER_STOP = ("alpha out of range", "correlation trap", "internal error")
EARLY_STOPPING = ("off", "cautious", "eager")
WEIGHTS = ("trained", "average")


@dataclass(frozen=True)
class Settings:
    """The arguments that every callback and :class:`~ww_callbacks.SpectralMonitor` take; all are plain values.

    Attributes:
        quantities: ``"default"``, ``"all"``, or names of quantities (``"default"`` may be among them).
        layers: shell patterns of the layers to watch, such as ``encoder.*``; none means every eligible layer.
        exclude: shell patterns of layers to leave out.
        types: class names of modules (``Linear``) or kinds (``conv``) to watch; none means all.
        min_eigenvalues: layers with fewer eigenvalues are left out.
        every_n_epochs: a full snapshot every so many epochs. With neither this nor ``every_n_steps``: each epoch, or
            about twenty times over the planned steps where a run has fewer than five epochs.
        every_n_steps: a full snapshot every so many optimiser steps.
        cheap_every_n_steps: norms, distances and updates, which need no spectrum, every so many optimiser steps.
        baseline: W_0: ``"initial"`` (the weights when training starts; for fine-tuning the pretrained ones), or the
            path of a checkpoint (safetensors or torch).
        weights: ``"trained"`` reads the weights the optimiser steps; ``"average"`` those that an averaging callback or
            optimiser keeps beside them (EMA, SWA, Keras ``use_ema``).
        convolution: how a convolution becomes matrices: ``"matrix"`` (out, in·kernel), ``"slices"`` (the kernel's
            slices pooled), ``"separate"`` or ``"weightwatcher"`` (slices, with its factor √½).
        log_dir: folder of the record; none means the run's own log folder, or ``spectral_runs/<time>-<id>`` where there
            is none.
        per_layer: also stream every layer's quantities as scalars of their own (many tags).
        histograms: also stream one histogram of log10 λ a layer.
        densities: keep each layer's binned spectral density in the record, for the views.
        verbose: 0 prints nothing (a stop is still said, by the logger ``ww_callbacks``), 1 one line a snapshot.
        policies: kind of alert → ``"ignore"``, ``"log"``, ``"warn"``, ``"stop"`` or a callable that takes the alert.
        cooldown: snapshots before the same alert is said again.
        early_stopping: ``"off"`` informs only; ``"cautious"`` and ``"eager"`` stop the run on overtraining, collapse,
            explosion and non-finite weights.
        keep_best: keep a checkpoint of the snapshot that the overtraining detector would keep, in the folder of the
            record; none means where early stopping is on and the run has no validation to choose one.
        overtraining: arguments of ``spectral.detectors.Overtraining`` that replace those of the preset.
        fine_tuning: the run goes on from trained weights; it changes what is recommended.
        max_overhead: share of training time that the callback may cost (0.01 is 1 %); none means unlimited.
        background: compute spectra on worker threads while training goes on.
        workers: layers measured at a time, one thread each; none means one beside the training, and inline, where the
            training waits, as many as it has threads, up to four.
        seed: seed of the random nulls; the global random state is never touched.
        strict: raise on an error of the callback's own instead of saying it once.
    """

    quantities: str | Sequence[str] = "default"
    layers: str | Sequence[str] = ()
    exclude: str | Sequence[str] = ()
    types: str | Sequence[str] = ()
    min_eigenvalues: int = 1
    every_n_epochs: int | None = None
    every_n_steps: int | None = None
    cheap_every_n_steps: int | None = None
    baseline: str = "initial"
    weights: str = "trained"
    convolution: str = "matrix"
    log_dir: str | None = None
    per_layer: bool = False
    histograms: bool = False
    densities: bool = True
    verbose: int = 1
    policies: Mapping[str, Policy] = field(default_factory=dict)
    cooldown: int = 10
    early_stopping: str = "off"
    keep_best: bool | None = None
    overtraining: Mapping[str, Any] = field(default_factory=dict)
    fine_tuning: bool = False
    max_overhead: float | None = None
    background: bool = False
    workers: int | None = None
    seed: int = 0
    strict: bool = False

    def __post_init__(self) -> None:
        for name in ("layers", "exclude", "types"):
            object.__setattr__(self, name, _names(name, getattr(self, name)))
        if not isinstance(self.quantities, str):
            object.__setattr__(self, "quantities", tuple(self.quantities))
        if self.log_dir is not None:
            object.__setattr__(self, "log_dir", str(self.log_dir))
        resolve(self.quantities)
        for name in ("per_layer", "histograms", "densities", "fine_tuning", "background", "strict", "keep_best"):
            value = getattr(self, name)
            if not isinstance(value, bool) and not (name == "keep_best" and value is None):
                raise ValueError(f"Expected `{name}` to be True or False but got {value!r}.")
        for name, least in (("min_eigenvalues", 1), ("cooldown", 0), ("verbose", 0), ("seed", 0)):
            _check_integer(name, getattr(self, name), least)
        for name in ("every_n_epochs", "every_n_steps", "cheap_every_n_steps", "workers"):
            if getattr(self, name) is not None:
                _check_integer(name, getattr(self, name), 1)
        _check_choice("weights", self.weights, WEIGHTS)
        _check_choice("convolution", self.convolution, CONVENTIONS)
        _check_choice("early_stopping", self.early_stopping, EARLY_STOPPING)
        if self.max_overhead is not None and not 0 < self.max_overhead < 1:
            raise ValueError(f"Expected `max_overhead` between 0 and 1 (0.01 is 1 %) but got {self.max_overhead!r}.")
        if self.keep_best and self.background:
            raise ValueError(
                "`keep_best` needs the judgement while the weights are still those judged: leave `background=False`."
            )
        for kind, policy in self.policies.items():
            _check_choice("policies", kind, ALERT_KINDS, what="kind of alert")
            if not callable(policy):
                _check_choice(f"policies[{kind!r}]", policy, POLICIES, what="policy")
            if policy == "stop" and kind in NEVER_STOP:
                raise ValueError(
                    f"`{kind}` informs and never stops a run by itself: thresholds on it fire in healthy runs. "
                    "Use 'log', 'warn' or a callable."
                )

    @classmethod
    def of(cls, arguments: Mapping[str, Any]) -> Settings:
        """Settings from keyword arguments.

        Raises:
            TypeError: for an argument that does not exist, with near matches.
            ValueError: for a value that cannot be.
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
        values["policies"] = {k: p if isinstance(p, str) else repr(p) for k, p in self.policies.items()}
        return {k: list(v) if isinstance(v, tuple) else v for k, v in values.items()}


def _names(name: str, value: Any) -> tuple[str, ...]:
    """Names or patterns, one or several; a class stands for its name."""
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
