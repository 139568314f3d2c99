"""Signals of every run, epoch by epoch, and what stopping there would have gained."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from benchmarks.overfitting.domains import DOMAINS
from benchmarks.overfitting.replay import observations
from benchmarks.overfitting.runs import Run, all_runs
from benchmarks.overfitting.training import Arrays, kept, trajectory
from benchmarks.overfitting.truth import SHORT, TEST_ACCURACY, TEST_LOSS, Truth, truth
from ww_callbacks.spectral.detectors.signals.judgement import SIGNALS
from ww_callbacks.spectral.detectors.signals.training_signals import TrainingSignals

FAILED = 0.97
"""A run whose training loss ends above this share of its first loss has failed, and is left out."""


@dataclass(frozen=True)
class Judged:
    """A run, trained on all its data and with a tenth held out, and what really happened.

    Attributes:
        run: its settings.
        full: its trajectory on all the data.
        held: the same with a tenth of the data held out.
        truth: how the full run went.
        signals: (epochs, signals) of the full run.
        held_signals: the same of the run with held-out data.
    """

    run: Run
    full: Arrays
    held: Arrays
    truth: Truth
    signals: np.ndarray
    held_signals: np.ndarray

    @property
    def scored(self) -> bool:
        """Whether its accuracy means something: for a language model and a regression the loss is what counts."""
        return DOMAINS[self.run.domain].task in ("classification", "multilabel")

    def regret(self, arrays: Arrays, epoch: int, which: int) -> tuple[float, float]:
        """Accuracy points below the best, and per cent of test loss above the lowest, of the weights of an epoch."""
        cell = arrays["truth"][epoch, which]
        points = 100 * (self.truth.best_accuracy - float(cell[TEST_ACCURACY])) if self.scored else math.nan
        return points, min(300.0, 100 * (float(cell[TEST_LOSS]) / self.truth.best_loss - 1))


def signals_of(run: Run, arrays: Arrays) -> np.ndarray:
    """(epochs, signals), NaN where a signal is not known."""
    signals = TrainingSignals()
    found = [signals.update(o) for o in observations(run, arrays)]
    return np.array([[row.get(name, math.nan) for name in SIGNALS] for row in found if row is not None])


def load(seeds: int, cached_only: bool = False) -> list[Judged]:
    """Every run that trained, with both trajectories."""
    out = []
    for run in all_runs(seeds):
        held = replace(run, held_out=True)
        if cached_only and not (kept(run).exists() and kept(held).exists()):
            continue
        a, b = trajectory(run), trajectory(held)
        if not a["loss"][-1] <= FAILED * a["scalars"][0] or len(a["loss"]) != len(b["loss"]):
            continue
        out.append(Judged(run, a, b, truth(run, a), signals_of(run, a), signals_of(held, b)))
    return out


def gain_of_stopping(judged: Judged) -> np.ndarray:
    """For each epoch, what keeping its averaged weights gains over training to the end.

    In points of accuracy plus a tenth of a per cent of test loss; both are capped, so that no run weighs all.
    """

    def cost(epoch: int) -> float:
        points, loss = judged.regret(judged.full, epoch, SHORT)
        return (min(15.0, max(0.0, points)) if judged.scored else 0.0) + 0.1 * min(150.0, max(0.0, loss))

    end = cost(len(judged.full["loss"]) - 1)
    return np.array([end - cost(e) for e in range(1, len(judged.signals) + 1)])


def stack(judged: Sequence[Judged]) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Signals, gain of stopping, number of the run, and its epochs, over all epochs of all runs."""
    signals = np.concatenate([j.signals for j in judged])
    gain = np.concatenate([gain_of_stopping(j) for j in judged])
    number = np.concatenate([np.full(len(j.signals), k) for k, j in enumerate(judged)])
    length = np.concatenate([np.full(len(j.signals), len(j.signals)) for j in judged])
    return signals, gain, number, length


def families(judged: Iterable[Judged]) -> list[str]:
    """The families, sorted."""
    return sorted({j.run.family for j in judged})
