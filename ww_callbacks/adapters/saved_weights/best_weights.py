"""The weights of the best epoch in memory, to be restored into the model."""

from __future__ import annotations

from typing import Any

from ww_callbacks.adapters.saved_weights.weight_average import Copies, WeightAverage


class BestWeights:
    """Copies in host memory of the weights that may turn out to be the best, to be restored at the end.

    Args:
        average: the weights and their average.
    """

    def __init__(self, average: WeightAverage) -> None:
        self._average = average
        self._kept: dict[int, Copies] = {}

    def look(self, step: int, wanted: frozenset[int], averaged: bool) -> None:
        """Keep the current weights if they may turn out to be the best, and drop those that no longer may.

        Args:
            step: steps done.
            wanted: the steps whose weights may turn out to be the best.
            averaged: whether to keep the average, otherwise the trained weights.
        """
        if step in wanted and step not in self._kept:
            averaged = averaged and self._average.begun
            self._kept[step] = self._average.copies() if averaged else self._average.weights.now()
        if wanted & self._kept.keys():
            self._kept = {s: copies for s, copies in self._kept.items() if s in wanted}

    def put(self, best_step: int | None) -> bool:
        """Write the best weights into the model; returns whether there were any."""
        if best_step not in self._kept:
            return False
        self._average.put(self._kept[best_step])
        return True

    def agree(self) -> None:
        """Copy per-process state, such as running statistics, from the first process; a collective."""
        self._average.weights.agree()

    def copies(self) -> dict[str, Any]:
        """The kept weights, named ``<step>#<name>``; a collective if they are sharded."""
        whole = {step: self._average.weights.whole(copies) for step, copies in sorted(self._kept.items())}
        return {f"{step}#{name}": value for step, copies in whole.items() for name, value in copies.items()}

    def restore(self, copies: Copies) -> None:
        """Restore what :meth:`copies` returned."""
        kept: dict[int, dict[str, Any]] = {}
        for key, value in copies.items():
            step, _, name = key.partition("#")
            kept.setdefault(int(step), {})[name] = value
        self._kept = {step: self._average.weights.part(whole) for step, whole in kept.items()}
