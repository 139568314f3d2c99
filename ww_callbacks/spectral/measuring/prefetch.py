"""Runs a layer's second decomposition on another worker than its first.

A model of few large layers keeps only as many workers busy as it has layers. Independent parts of a quantity's work
(see :attr:`Quantity.prefetch`) are therefore separate tasks; the worker that measures the layer finds a future for the
result in the sample's scratch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from ww_callbacks.spectral.measuring.layer_weights import LayerWeights

if TYPE_CHECKING:
    from ww_callbacks.spectral.layers.spec import LayerSpec
    from ww_callbacks.spectral.linalg.workers import WorkerPool
    from ww_callbacks.spectral.measuring.registry import Quantity

Result = TypeVar("Result")
Part = Callable[[LayerWeights], object]


class Prefetch:
    """The parts of quantities that are computed in advance.

    Args:
        quantities: the measured quantities; empty with a single worker, which would read each layer twice without
            benefit.
        seed: seed of the random nulls, as for :class:`LayerWeights`.
    """

    def __init__(self, quantities: Iterable[Quantity], seed: int) -> None:
        self._parts: Sequence[Part] = list(dict.fromkeys(q.prefetch for q in quantities if q.prefetch is not None))
        self._seed = seed
        self._futures: dict[str, dict[Part, Future[object]]] = {}

    def promised(self, spec: LayerSpec) -> Mapping[Part, Future[object]]:
        """Futures for the scratch of a layer's sample."""
        return self._futures.get(spec.name, {})

    def map(self, pool: WorkerPool, measure: Callable[[LayerSpec], Result], specs: Sequence[LayerSpec]) -> list[Result]:
        """``[measure(spec) for spec in specs]`` over the workers of ``pool``, with each layer's parts as separate
        tasks.
        """
        if not self._parts:
            return pool.map(measure, specs, cost=lambda spec: spec.cost)
        self._futures = {spec.name: {part: Future() for part in self._parts} for spec in specs}
        results: dict[str, Result] = {}

        def perform(task: tuple[LayerSpec, bool]) -> None:
            spec, ahead = task
            if ahead:
                self._keep_promises(spec)
            else:
                results[spec.name] = measure(spec)

        # The most expensive layers start first; this order ensures that all parts have started before a worker waits
        # for them.
        before_all = max(spec.cost for spec in specs)
        tasks = [(spec, ahead) for spec in specs for ahead in (True, False)]
        pool.map(perform, tasks, cost=lambda task: task[0].cost + before_all * task[1])
        return [results[spec.name] for spec in specs]

    def _keep_promises(self, spec: LayerSpec) -> None:
        """Compute a layer's parts; an exception is raised again where the result is used."""
        sample: LayerWeights | None = None
        for part, promise in self._futures[spec.name].items():
            try:
                sample = sample or LayerWeights(spec.matrices(), seed=spec.null_seed(self._seed))
                with np.errstate(all="ignore"):  # as in `measure`
                    promise.set_result(part(sample))
            except BaseException as error:  # no worker may wait forever
                promise.set_exception(error)
