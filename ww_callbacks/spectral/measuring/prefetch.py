"""One layer's second decomposition on another worker than its first.

A model of few large layers keeps only as many workers busy as it has layers. A part of a quantity's work that needs
nothing of the rest (see :attr:`Quantity.prefetch`) is therefore a task of its own; the worker that
measures the layer finds its result promised in the sample's scratch and waits for it where it needs it.
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
    """The parts of some quantities that are computed ahead.

    Args:
        quantities: what is measured; none where there is one worker only, who would read each layer twice for nothing.
        seed: seed of the random nulls, as for :class:`LayerWeights`.
    """

    def __init__(self, quantities: Iterable[Quantity], seed: int) -> None:
        self._parts: Sequence[Part] = list(dict.fromkeys(q.prefetch for q in quantities if q.prefetch is not None))
        self._seed = seed
        self._futures: dict[str, dict[Part, Future[object]]] = {}

    def promised(self, spec: LayerSpec) -> Mapping[Part, Future[object]]:
        """What a layer's sample is to find in its scratch."""
        return self._futures.get(spec.name, {})

    def map(self, pool: WorkerPool, measure: Callable[[LayerSpec], Result], specs: Sequence[LayerSpec]) -> list[Result]:
        """``[measure(spec) for spec in specs]`` over the workers of ``pool``, each layer's parts as another task."""
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

        # The costliest are started first: with this added all parts have begun before anyone can wait for them.
        before_all = max(spec.cost for spec in specs)
        tasks = [(spec, ahead) for spec in specs for ahead in (True, False)]
        pool.map(perform, tasks, cost=lambda task: task[0].cost + before_all * task[1])
        return [results[spec.name] for spec in specs]

    def _keep_promises(self, spec: LayerSpec) -> None:
        """Compute a layer's parts; what one raises is raised where its result is needed."""
        sample: LayerWeights | None = None
        for part, promise in self._futures[spec.name].items():
            try:
                sample = sample or LayerWeights(spec.matrices(), seed=spec.null_seed(self._seed))
                with np.errstate(all="ignore"):  # as in `measure`
                    promise.set_result(part(sample))
            except BaseException as error:  # nobody may be left waiting
                promise.set_exception(error)
