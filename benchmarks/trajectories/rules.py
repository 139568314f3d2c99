"""Stopping rules to compare: ours, the published ones, and what sees validation data.

Each takes a run with its trajectory and returns the epoch of its stop (None for no stop) and the epoch whose weights it
would restore.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np

from benchmarks.trajectories.scenarios import Run
from benchmarks.trajectories.series import effective_rank, norms, observations, shapes, spectrum
from benchmarks.trajectories.train import names_of
from benchmarks.trajectories.truth import Arrays
from ww_callbacks.spectral.detectors import Observation, Overtraining
from ww_callbacks.spectral.fits.clauset import clauset_fit
from ww_callbacks.spectral.random_matrix.tracy_widom import z_score

Outcome = tuple[int | None, int | None]
Rule = Callable[[Run, Arrays], Outcome]


def first_run(holds: np.ndarray, length: int = 3) -> int | None:
    """The first snapshot that completes ``length`` in a row on which ``holds``."""
    count = 0
    for i, yes in enumerate(holds):
        count = count + 1 if yes else 0
        if count >= length:
            return i
    return None


def log_slope(x: np.ndarray, start: int = 4) -> np.ndarray:
    """(x(t) − x(h))/ln(t/h) over epochs t ≥ ``start``, h the first snapshot at t/2 or later; NaN before."""
    out = np.full(len(x), np.nan)
    for t in range(start, len(x)):
        h = (t + 1) // 2
        out[t] = (x[t] - x[h]) / np.log(t / h)
    return out


def _stop(holds: np.ndarray) -> Outcome:
    stop = first_run(holds)
    return stop, stop


def _gate(arrays: Arrays) -> np.ndarray:
    """Gate P: training accuracy gained less than .05 over the last doubling (latched), and error is above 2 %."""
    accuracy = arrays["accuracy"]
    slow = [t >= 5 and accuracy[t] - accuracy[(t + 1) // 2] < 0.05 for t in range(len(accuracy))]
    return np.logical_or.accumulate(slow) & (1 - accuracy > 0.02)


def _slopes(arrays: Arrays) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """s[m], s[q], s[a] of the published search."""
    layers = list(names_of(arrays))
    m = np.mean([np.log(np.median(spectrum(arrays, n, "w"), axis=1)) for n in layers[:-1]], axis=0)
    moved = [spectrum(arrays, n, "d") ** 2 for n in layers[:-1]]
    with np.errstate(divide="ignore", invalid="ignore"):
        q = np.mean([d[:, :10].sum(axis=1) / d.sum(axis=1) for d in moved], axis=0)
        last = layers[-1]
        before = np.concatenate([[np.nan], norms(arrays, last, "d")[:-1]])
        a = arrays[f"{last}|ud"] / (norms(arrays, last, "u") * before)
    return log_slope(m), log_slope(q), log_slope(a)


def rule_a(run: Run, arrays: Arrays) -> Outcome:
    """A: s[a] > .13 and gate P."""
    return _stop((_slopes(arrays)[2] > 0.13) & _gate(arrays))


def weights_only_published(run: Run, arrays: Arrays) -> Outcome:
    """s[m] > .0335 and s[q] < −.0145."""
    m, q, _ = _slopes(arrays)
    return _stop((m > 0.0335) & (q < -0.0145))


def rule_g(run: Run, arrays: Arrays) -> Outcome:
    """G: the published weights-only rule and gate P."""
    m, q, _ = _slopes(arrays)
    return _stop((m > 0.0335) & (q < -0.0145) & _gate(arrays))


def gate_p(run: Run, arrays: Arrays) -> Outcome:
    """Gate P alone."""
    return _stop(_gate(arrays))


def accuracy_99(run: Run, arrays: Arrays) -> Outcome:
    """Training accuracy ≥ 99 %."""
    stop = first_run(arrays["accuracy"] >= 0.99, 1)
    return stop, stop


def validation_patience(run: Run, arrays: Arrays, patience: int = 10) -> Outcome:
    """Validation loss has not improved for ten epochs (a tenth held out, same noise); its best weights restored."""
    loss, best = arrays["val_loss"], 1
    for t in range(1, len(loss)):
        if loss[t] < loss[best]:
            best = t
        if t - best >= patience:
            return t, best
    return None, None


def validation_patience_unrestored(run: Run, arrays: Arrays) -> Outcome:
    """The same without restoring."""
    stop, _ = validation_patience(run, arrays)
    return stop, stop


def rank_fall(run: Run, arrays: Arrays) -> Outcome:
    """Mean effective rank a quarter below its first value."""
    rank = np.mean([effective_rank(spectrum(arrays, n, "w")) for n in names_of(arrays)], axis=0)
    return _stop(rank < 0.75 * rank[0])


def alpha_below_2(run: Run, arrays: Arrays) -> Outcome:
    """α < 2 in any layer of 20 eigenvalues or more (exact Clauset fit)."""
    return _stop(_lowest_alpha(run, _Hashed(run.name, arrays)) < 2)


class _Hashed:
    """Arrays that can be a cache's key by the run's name."""

    def __init__(self, name: str, arrays: Arrays):
        self.name, self.arrays = name, arrays

    def __hash__(self) -> int:
        return hash(self.name)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Hashed) and other.name == self.name


@cache
def _lowest_alpha(run: Run, held: _Hashed) -> np.ndarray:
    columns = []
    for layer in names_of(held.arrays):
        values = spectrum(held.arrays, layer, "w")
        if values.shape[1] >= 20:
            columns.append([clauset_fit(s**2).alpha if np.all(np.isfinite(s)) else np.nan for s in values])
    return np.nanmin(np.array(columns), axis=0)


def shuffle_trap(run: Run, arrays: Arrays) -> Outcome:
    """A hidden layer's shuffled W beyond the 99 % point of Tracy–Widom."""
    size, found = shapes(run), []
    for layer in list(names_of(arrays))[:-1]:
        rows, columns = size[layer]
        weight, top = norms(arrays, layer, "w"), arrays[f"{layer}|shuffled_max"]
        variance = weight**2 / (rows * columns)
        z = [z_score(t**2, (rows, columns), v) for t, v in zip(top, variance, strict=True)]
        found.append(np.array(z) > 2.0234)
    return _stop(np.any(found, axis=0))


_SEEN: dict[str, list[Observation]] = {}


def detector(untold: tuple[str, ...] = (), **settings: Any) -> Rule:
    """Our detector with these settings, replayed as the callbacks run it; ``untold`` metrics are kept from it."""

    def rule(run: Run, arrays: Arrays) -> Outcome:
        watching = Overtraining(**settings)
        if run.name not in _SEEN:
            _SEEN[run.name] = list(observations(run, arrays))
        for whole in _SEEN[run.name]:
            observation = replace(whole, metrics={k: v for k, v in whole.metrics.items() if k not in untold})
            if watching.update(observation):
                assert watching.best_epoch is not None
                return round(observation.epoch), round(watching.best_epoch)
        return None, None

    return rule


def never(run: Run, arrays: Arrays) -> Outcome:
    """Train to the end."""
    return None, None
