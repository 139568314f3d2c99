"""The incremental engine: weights → rows, measuring only what changed."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from integrations.schema import LayerRow
from spectral.density import spectral_density
from spectral.layers.spec import LayerSpec
from spectral.registry import Quantity, Value
from spectral.sample import LayerSample, measure
from spectral.workers import WorkerPool
from ww_callbacks.baseline import Baseline
from ww_callbacks.cadence import Kind
from ww_callbacks.fingerprint import fingerprint


@dataclass
class LayerState:
    """What the engine remembers of one layer between snapshots.

    Attributes:
        fingerprint: of the weights at the last snapshot; empty before the first.
        values: what is known of those weights: quantity → value.
        status: the status of those values.
        reference: the quantities' values at W_0.
        previous: the weights of the last snapshot, where a quantity compares with them.
    """

    fingerprint: str = ""
    values: dict[str, Value] = field(default_factory=dict)
    status: str = "ok"
    reference: dict[str, float] | None = None
    previous: list[np.ndarray] | None = None


@dataclass(frozen=True)
class Capture:
    """The weights of one moment: layer → arrays in the framework's layout, or the exception that reading raised."""

    arrays: Mapping[str, list[np.ndarray] | Exception]


class Engine:
    """Measures layers, each only if its weights changed since its last snapshot.

    Args:
        specs: the layers, in depth order.
        quantities: the quantities of a full snapshot.
        workers: layers measured at a time.
        seed: seed of the random nulls.
        densities: whether a full snapshot keeps the spectral densities.
    """

    def __init__(
        self,
        specs: Sequence[LayerSpec],
        quantities: Sequence[Quantity],
        workers: int = 1,
        seed: int = 0,
        densities: bool = True,
    ) -> None:
        self.specs = list(specs)
        self.quantities = list(quantities)
        self.densities = densities
        self.seed = seed
        self.states: dict[str, LayerState] = {spec.name: LayerState() for spec in specs}
        self.baseline: Baseline | None = None
        self._pool = WorkerPool(workers)
        self._keep_previous = any(q.needs == "previous" for q in quantities)

    def capture(self, copy: bool = False) -> Capture:
        """Read every layer's weights; ``copy`` keeps them from the optimiser's next step."""
        arrays: dict[str, list[np.ndarray] | Exception] = {}
        for spec in self.specs:
            try:
                assert spec.read is not None
                read = [np.asarray(a) for a in spec.read()]
                arrays[spec.name] = [a.copy() for a in read] if copy else read
            except Exception as error:  # a layer that cannot be read is reported, not raised into training
                arrays[spec.name] = error
        return Capture(arrays)

    def measure(self, capture: Capture, kind: Kind = "full") -> list[LayerRow]:
        """One row a layer, in depth order; never raises for what is in the weights."""
        order = sorted(range(len(self.specs)), key=lambda i: -self.specs[i].cost)
        rows = self._pool.map(lambda i: self._measure_layer(i, capture.arrays[self.specs[i].name], kind), order)
        return sorted(rows, key=lambda row: row.index)

    def _measure_layer(self, index: int, arrays: list[np.ndarray] | Exception, kind: Kind) -> LayerRow:
        spec = self.specs[index]
        state = self.states[spec.name]
        wanted = [q for q in self.quantities if kind == "full" or q.cost == "cheap"]
        if isinstance(arrays, Exception):
            return _failed(spec, index, wanted, arrays)
        try:
            now = fingerprint(arrays)
            changed = now != state.fingerprint
            if changed:
                state.values, state.status = {}, "ok"
            else:
                state.values.update({q.name: q.unchanged for q in wanted if q.needs == "previous"})
            missing = [q for q in wanted if q.name not in state.values]
            density = self._measure_missing(spec, state, arrays, missing, kind)
            state.fingerprint = now
            if changed and self._keep_previous:
                state.previous = _copy_into(state.previous, arrays)
        except Exception as error:  # the same promise for a fault of ours
            state.fingerprint = ""
            return _failed(spec, index, wanted, error)
        values = {q.name: state.values[q.name] for q in wanted}
        return LayerRow(
            layer=spec.name,
            index=index,
            values=values,
            status=state.status,
            changed=changed,
            density=density,
        )

    def _measure_missing(
        self, spec: LayerSpec, state: LayerState, arrays: list[np.ndarray], missing: Sequence[Quantity], kind: Kind
    ) -> Mapping[str, Any] | None:
        """Measure ``missing`` into ``state.values``; return the spectral density where a spectrum was computed."""
        if not missing:
            return None
        assert spec.arrange is not None
        initial = self.baseline.get(spec.name) if self.baseline is not None else None
        sample = LayerSample(
            matrices=spec.arrange(arrays),
            initial=None if initial is None else spec.arrange(initial),
            previous=None if state.previous is None else spec.arrange(state.previous),
            seed=zlib.crc32(spec.name.encode()) ^ self.seed,
        )
        values, state.status = measure(sample, [q for q in missing if q.needs != "reference"])
        state.values.update(values)
        if state.reference is None and kind == "full" and state.status == "ok":
            state.reference = {k: v for k, v in values.items() if isinstance(v, float)}
        sample.reference = state.reference
        referring = [q for q in missing if q.needs == "reference"]
        if referring:
            state.values.update(measure(sample, referring)[0])
        new_spectrum = any(q.cost != "cheap" for q in missing)
        return spectral_density(sample) if new_spectrum and self.densities and state.status == "ok" else None

    def measure_reference(self, baseline: Baseline) -> None:
        """Take W_0 from ``baseline`` and measure it, so that quantities can refer to its values."""
        self.baseline = baseline
        wanted = [q for q in self.quantities if not q.needs]

        def one(spec: LayerSpec) -> None:
            initial = baseline.get(spec.name)
            if initial is not None and spec.arrange is not None:
                values, status = measure(LayerSample(matrices=spec.arrange(initial)), wanted)
                if status == "ok":
                    self.states[spec.name].reference = {k: v for k, v in values.items() if isinstance(v, float)}

        self._pool.map(one, self.specs)


def _copy_into(kept: list[np.ndarray] | None, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Copy ``arrays``, into the memory of ``kept`` where it fits."""
    if kept is None or [(a.shape, a.dtype) for a in kept] != [(a.shape, a.dtype) for a in arrays]:
        return [np.array(a) for a in arrays]
    for old, new in zip(kept, arrays, strict=True):
        np.copyto(old, new)
    return kept


def _failed(spec: LayerSpec, index: int, wanted: Sequence[Quantity], error: Exception) -> LayerRow:
    values: dict[str, Value] = {q.name: "" if q.text else float("nan") for q in wanted}
    return LayerRow(spec.name, index, values, status=f"failed: {type(error).__name__}: {error}", changed=True)
