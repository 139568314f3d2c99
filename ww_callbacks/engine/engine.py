"""The incremental engine: weights → rows, measuring only what changed."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from ww_callbacks.engine.accelerator import HostCopies, placed, to_host
from ww_callbacks.engine.baseline_store import Baseline
from ww_callbacks.engine.fingerprints import fingerprint
from ww_callbacks.engine.layer_memory import LayerMemory
from ww_callbacks.engine.snapshot_kind import Kind
from ww_callbacks.integrations.schema import LayerRow
from ww_callbacks.spectral.layers.spec import Array, LayerSpec
from ww_callbacks.spectral.linalg.arrays import BLOCK, largest_magnitude
from ww_callbacks.spectral.linalg.density import spectral_density
from ww_callbacks.spectral.linalg.half_precision import Narrowed, copied
from ww_callbacks.spectral.linalg.workers import WorkerPool
from ww_callbacks.spectral.measuring.accuracy import measure_within, merged, plan
from ww_callbacks.spectral.measuring.batched import STACK, stackable, together
from ww_callbacks.spectral.measuring.layer_weights import LayerWeights
from ww_callbacks.spectral.measuring.registry import REFERRED, Quantity, Value, resolve
from ww_callbacks.spectral.measuring.reuse import KnownSpectrum
from ww_callbacks.spectral.measuring.values import is_measured


@dataclass
class LayerState:
    """What the engine keeps of one layer between snapshots.

    Attributes:
        fingerprint: fingerprint of the weights at the last snapshot; empty before the first.
        values: the measured values of those weights: quantity → value.
        status: the status of those values.
        reference: the values at W_0; None until they are measured.
        previous: the weights of the last snapshot, if a quantity compares with them; in 16 bits where these are exact.
        changed: whether the weights had changed at the last snapshot.
        seconds: the time that its last spectrum took; None before the first.
        errors: the errors of the values that are not exact.
        reference_errors: the errors of the reference values.
        known: the part of its last exact spectrum that is kept if a tolerance is set.
    """

    fingerprint: str = ""
    values: dict[str, Value] = field(default_factory=dict)
    status: str = "ok"
    reference: Mapping[str, Value] | None = None
    previous: list[Narrowed] | None = None
    changed: bool = True
    seconds: float | None = None
    errors: dict[str, float] = field(default_factory=dict)
    reference_errors: Mapping[str, float] = field(default_factory=dict)
    known: KnownSpectrum | None = None

    def memory(self) -> LayerMemory:
        """The part that is saved with a checkpoint."""
        return LayerMemory(
            self.fingerprint,
            dict(self.values),
            self.status,
            self.reference,
            self.seconds,
            dict(self.errors),
            self.reference_errors,
            self.known,
        )

    def restore(self, memory: LayerMemory) -> None:
        """Restore a saved state."""
        self.fingerprint, self.values, self.status = memory.fingerprint, dict(memory.values), memory.status
        self.reference, self.seconds = memory.reference, memory.seconds
        self.errors, self.reference_errors, self.known = dict(memory.errors), memory.reference_errors, memory.known


def _nothing() -> None:
    return None


@dataclass(frozen=True)
class Capture:
    """The weights at one time: layer → arrays in the framework's layout, or the exception that reading raised.

    Attributes:
        arrays: the layers that were read; copies are in 16 bits where these are exact.
        non_finite: layers that were checked but not kept, and contain NaN or infinity.
        wait: call this before using the arrays.
    """

    arrays: Mapping[str, Sequence[Array | Narrowed] | Exception]
    non_finite: tuple[str, ...] = ()
    wait: Callable[[], None] = _nothing

    def read(self, layer: str) -> list[Array] | Exception:
        """The arrays of a layer; copies in 16 bits become float32."""
        found = self.arrays[layer]
        if isinstance(found, Exception):
            return found
        return [a.widened() if isinstance(a, Narrowed) else a for a in found]


class _Computed(NamedTuple):
    """The values of a layer that were computed in a batch: see :mod:`ww_callbacks.spectral.measuring.batched`."""

    fingerprint: str
    matrix: Array | None = None
    attributes: Mapping[str, object] = MappingProxyType({})
    seconds: float = 0.0


class Engine:
    """Measures layers, each one only if its weights changed since its last snapshot.

    Args:
        specs: the layers, in depth order.
        quantities: the quantities of a full snapshot.
        workers: number of layers measured in parallel.
        seed: seed of the random nulls.
        densities: whether a full snapshot includes the spectral densities.
        tolerance: the allowed relative error; None for exact values.
    """

    def __init__(
        self,
        specs: Sequence[LayerSpec],
        quantities: Sequence[Quantity],
        workers: int = 1,
        seed: int = 0,
        densities: bool = True,
        tolerance: float | None = None,
    ) -> None:
        self.specs = list(specs)
        self.quantities = list(quantities)
        self._names = {q.name for q in self.quantities}
        self._cheap = [q for q in self.quantities if q.cost == "cheap"]
        self._if_unchanged = {q.name: q.unchanged for q in self.quantities if q.needs == "previous"}
        self.densities = densities
        self.seed = seed
        self.tolerance = tolerance
        self.states: dict[str, LayerState] = {spec.name: LayerState() for spec in specs}
        self.baseline: Baseline | None = None
        refers = any(q.needs == "reference" for q in quantities)
        # Quantities that others compare with at W_0 are measured there, requested or not.
        self._referred = resolve(REFERRED) if refers else ()
        self._pool = WorkerPool(workers)
        # How far a layer has moved decides which of its values are still valid.
        self._keep_previous = tolerance is not None or any(q.needs == "previous" for q in quantities)
        self._all_groups: list[list[int]] | None = None
        self.spectral_seconds = 0.0
        """Seconds that the last call of :meth:`measure` spent on spectra, summed over workers."""
        # Reading may run the user's parametrisations: one at a time, as in the model's forward pass.
        self._reading = threading.Lock()

    def replace(self, specs: Sequence[LayerSpec]) -> tuple[list[str], list[str]]:
        """Watch ``specs`` from now on; the state of layers that remain is kept.

        Returns:
            The names of layers that are new or have a new shape, and of layers that no longer exist.
        """
        before = {spec.name: spec.matrix_shapes for spec in self.specs}
        names = [spec.name for spec in specs]
        removed = [name for name in before if name not in set(names)]
        new = [spec.name for spec in specs if before.get(spec.name) != spec.matrix_shapes]
        self.specs, self._all_groups = list(specs), None
        self.states = {name: LayerState() if name in new else self.states[name] for name in names}
        return new, removed

    def without_baseline(self, names: Collection[str]) -> list[str]:
        """The layers among ``names`` without a W_0 of their current shape."""
        found = []
        for spec in self.specs:
            if spec.name in names and self.baseline is not None and spec.arrange is not None:
                initial = self.baseline.get(spec.name)
                try:
                    shapes = None if initial is None else tuple(tuple(w.shape) for w in spec.arrange(initial))
                except (ValueError, IndexError):  # a W_0 of another shape cannot be split into this layer's matrices
                    shapes = None
                if shapes != spec.matrix_shapes:
                    found.append(spec.name)
        return found

    def capture(
        self,
        copies: HostCopies | None = None,
        keep: Collection[str] | None = None,
        only: Collection[str] | None = None,
    ) -> Capture:
        """Read the layers' weights, in depth order, one after another.

        Args:
            copies: buffers to copy them into, so that the optimiser's next step does not change them.
            keep: the layers to keep; the others are also read (with sharded weights, all processes must read) but only
                checked for NaN and infinity. None keeps all.
            only: the layers to read; None reads all.
        """
        arrays: dict[str, Sequence[Array | Narrowed] | Exception] = {}
        non_finite: list[str] = []
        for spec, read in self._each(only):
            if keep is not None and spec.name not in keep:
                if not isinstance(read, Exception) and not all(np.isfinite(largest_magnitude(a)) for a in read):
                    non_finite.append(spec.name)
            elif copies is not None and not isinstance(read, Exception):
                arrays[spec.name] = copies.take(spec.name, read)
            else:
                arrays[spec.name] = read
        return Capture(arrays, tuple(non_finite), _nothing if copies is None else copies.wait)

    def initial(
        self, keep: Collection[str] | None = None, only: Collection[str] | None = None
    ) -> Iterator[tuple[str, list[Array]]]:
        """The weights of each readable layer, one after another, read as in :meth:`capture`."""
        for spec, read in self._each(only):
            if not isinstance(read, Exception) and (keep is None or spec.name in keep):
                yield spec.name, read
            del read  # before the next one is made

    def _each(self, only: Collection[str] | None) -> Iterator[tuple[LayerSpec, list[Array] | Exception]]:
        for spec in self.specs:
            if only is None or spec.name in only:
                yield spec, self._read(spec)

    def _read(self, spec: LayerSpec) -> list[Array] | Exception:
        try:
            assert spec.read is not None
            with self._reading:
                return placed(spec.read())
        except Exception as error:  # a layer that cannot be read is reported; training gets no exception
            return error

    def measure(
        self, capture: Capture | None = None, kind: Kind = "full", spectra: Collection[str] | None = None
    ) -> list[LayerRow]:
        """One row per layer, in depth order; never raises because of the values of the weights.

        Args:
            capture: the weights; None reads each layer when it is measured and keeps none.
            kind: ``full``, or ``cheap`` for only the quantities that need no spectrum.
            spectra: the layers whose spectra a full snapshot measures; None for all. The others get the cheap
                quantities.
        """
        if capture is not None:
            capture.wait()

        def is_full(index: int) -> bool:
            return kind == "full" and (spectra is None or self.specs[index].name in spectra)

        def several(indices: Sequence[int]) -> list[LayerRow]:
            read = {}
            for index in indices:
                spec = self.specs[index]
                read[index] = self._read(spec) if capture is None else capture.read(spec.name)
            computed: dict[int, _Computed] = {}
            if len(read) > 1:
                computed = self._together({i: arrays for i, arrays in read.items() if is_full(i)})
            return [self._measure_layer(i, read.pop(i), is_full(i), computed.pop(i, None)) for i in indices]

        self.spectral_seconds = 0.0
        if capture is None or all(spec.name in capture.arrays for spec in self.specs):
            groups = self._all_groups = self._all_groups or self._groups(range(len(self.specs)))
        else:
            groups = self._groups([i for i, s in enumerate(self.specs) if s.name in capture.arrays])
        found = self._pool.map(several, groups, cost=lambda group: len(group) * self.specs[group[0]].cost)
        return sorted((row for rows in found for row in rows), key=lambda row: row.index)

    @contextmanager
    def trial(self) -> Iterator[None]:
        """Measure inside without effect on later snapshots, whose updates are relative to the last real one."""
        kept = self.states
        self.states = {
            name: replace(
                state,
                values=dict(state.values),
                errors=dict(state.errors),
                previous=None if state.previous is None else [p._replace(array=p.array.copy()) for p in state.previous],
            )
            for name, state in kept.items()
        }
        try:
            yield
        finally:
            self.states = kept

    def _groups(self, places: Iterable[int]) -> list[list[int]]:
        """The groups of layers that are measured together: small layers of the same shape; all others one by one."""
        groups: list[list[int]] = []
        open_: dict[tuple[tuple[int, int], ...], list[int]] = {}
        for index in places:
            shapes = self.specs[index].matrix_shapes
            small = len(shapes) == 1 and shapes[0][0] * shapes[0][1] <= BLOCK
            group = open_.get(shapes) if small else None
            if group is None or len(group) == STACK:
                groups.append(group := [])
                if small:
                    open_[shapes] = group
            group.append(index)
        return groups

    def _together(self, read: Mapping[int, list[Array] | Exception]) -> dict[int, _Computed]:
        """The values that can be computed for several changed layers at once."""
        computed: dict[int, _Computed] = {}
        stacked: list[tuple[int, Array]] = []
        try:
            for index, arrays in read.items():
                spec = self.specs[index]
                if isinstance(arrays, Exception) or spec.arrange is None:
                    continue
                now = fingerprint(arrays)
                computed[index] = _Computed(now)
                matrices = spec.arrange(arrays) if now != self.states[spec.name].fingerprint else []
                if len(matrices) == 1 and stackable(matrices[0]):
                    stacked.append((index, matrices[0]))
            began = time.perf_counter()
            if len(stacked) > 1 and len({(m.shape, m.dtype) for _, m in stacked}) == 1:
                found = together([m for _, m in stacked], self.densities, self.quantities)
                seconds = (time.perf_counter() - began) / len(stacked)
                for (index, matrix), attributes in zip(stacked, found, strict=True):
                    computed[index] = _Computed(computed[index].fingerprint, matrix, attributes, seconds)
        except Exception:  # each layer is then measured separately, and reports its own error
            return {}
        return computed

    def _measure_layer(
        self, index: int, arrays: list[Array] | Exception, full: bool, computed: _Computed | None = None
    ) -> LayerRow:
        spec = self.specs[index]
        state = self.states[spec.name]
        wanted = self.quantities if full else self._cheap
        if isinstance(arrays, Exception):
            return _failed(spec, index, wanted, arrays)
        try:
            now = fingerprint(arrays) if computed is None else computed.fingerprint
            state.changed = now != state.fingerprint
            if state.changed:
                state.values, state.status, state.errors = {}, "ok", {}
            else:
                state.values.update(
                    self._if_unchanged if full else {q.name: q.unchanged for q in wanted if q.needs == "previous"}
                )
            complete = full and state.values.keys() == self._names
            missing = [] if complete else [q for q in wanted if q.name not in state.values]
            density = self._measure_missing(spec, state, arrays, missing, full, computed) if missing else None
            if self._keep_previous and (state.changed or state.previous is None):
                state.previous = _copy_into(state.previous, arrays)
            state.fingerprint = now
        except Exception as error:  # the same guarantee for internal errors
            state.fingerprint = ""
            return _failed(spec, index, wanted, error)
        if complete:
            values = dict(state.values)
        else:
            values = {q.name: state.values[q.name] for q in wanted if q.name in state.values}
            if full:  # in this order the next row has them too, if nothing changes
                state.values = dict(values)
        return LayerRow(
            layer=spec.name,
            index=index,
            values=values,
            status=state.status,
            changed=state.changed,
            density=density,
            frozen=spec.frozen,
            errors={name: error for name, error in state.errors.items() if name in values} if state.errors else {},
        )

    def _measure_missing(
        self,
        spec: LayerSpec,
        state: LayerState,
        arrays: list[Array],
        missing: Sequence[Quantity],
        full: bool,
        computed: _Computed | None,
    ) -> Mapping[str, Any] | None:
        """Measure ``missing`` into ``state.values``; return the spectral density if a spectrum was computed."""
        assert spec.arrange is not None
        began = time.perf_counter()
        initial = self._initial(spec)
        matrix = None if computed is None else computed.matrix
        sample = LayerWeights(
            matrices=spec.arrange(arrays) if matrix is None else [matrix],
            initial=initial,
            previous=None if state.previous is None else spec.arrange([a.widened() for a in state.previous]),
            seed=spec.null_seed(self.seed),
        )
        if computed is not None:
            sample.__dict__.update(computed.attributes)
            began -= computed.seconds
        if state.known is not None and state.changed:
            moved = sample.from_previous.distance
            state.known = state.known.after(moved) if np.isfinite(moved) else None
        sample.reference, sample.reference_errors = state.reference, state.reference_errors
        compares = state.reference is None and full and initial is not None
        at_baseline = compares and _equal(sample.matrices, initial)
        del initial
        referring = [q for q in missing if q.needs == "reference"] if compares else []
        chosen = plan(sample, [q for q in missing if q not in referring], self.tolerance, state.known)
        values, state.status, errors = merged(sample, chosen.quantities, chosen.found or {})
        state.values.update(values)
        state.errors.update(errors)
        allowed = self.tolerance if chosen.found else None
        if compares:
            if at_baseline:
                more = measure_within(sample, [q for q in self._referred if q.name not in state.values], allowed)
                state.reference = state.values | more.values
                state.reference_errors = state.errors | more.errors
            else:
                state.reference, state.reference_errors = self._reference(spec, self._initial(spec) or [])
            sample.reference, sample.reference_errors = state.reference, state.reference_errors
            measured = measure_within(sample, referring, allowed)
            state.values.update(measured.values)
            state.errors.update(measured.errors)
        new_spectrum = chosen.found is None
        if new_spectrum and self.tolerance is not None and is_measured(state.status):
            state.known = self._known(sample, state, chosen.vain)
        elif chosen.vain and state.known is not None:
            state.known = state.known.tried_in_vain(chosen.vain, state.known)
        density = spectral_density(sample) if new_spectrum and self.densities and is_measured(state.status) else None
        if any(q.cost != "cheap" for q in missing):
            state.seconds = time.perf_counter() - began
            self.spectral_seconds += state.seconds
        return density

    def _known(self, sample: LayerWeights, state: LayerState, vain: tuple[str, ...]) -> KnownSpectrum | None:
        """What to keep of a spectrum that was just computed."""
        assert self.tolerance is not None
        exact = {name: value for name, value in state.values.items() if name not in state.errors}
        moved = sample.from_previous.distance if state.known is not None else 0.0
        known = KnownSpectrum.of(sample, self.quantities, exact, self.tolerance, moved)
        return known and known.tried_in_vain(vain, state.known)

    def _initial(self, spec: LayerSpec) -> list[Array] | None:
        """The matrices of W_0, if the layer existed then."""
        arrays = None if self.baseline is None else self.baseline.get(spec.name)
        return None if arrays is None or spec.arrange is None else spec.arrange(arrays)

    def _reference(self, spec: LayerSpec, matrices: Sequence[Array]) -> tuple[Mapping[str, Value], Mapping[str, float]]:
        """The values at W_0 and their errors; with a tolerance, only those that can be estimated."""
        wanted = [q for q in self.quantities if not q.needs and q.cost != "request"]
        wanted += [q for q in self._referred if q not in wanted]
        if self.tolerance is not None:
            wanted = [q for q in wanted if q.cost == "cheap" or q.estimate is not None]
        sample = LayerWeights(matrices=matrices, seed=spec.null_seed(self.seed))
        values, _, errors = measure_within(sample, wanted, self.tolerance)
        return values, errors

    def measure_reference(self, baseline: Baseline) -> None:
        """Read W_0 from ``baseline`` and measure it, so that quantities can refer to its values."""
        self.baseline = baseline

        def one(spec: LayerSpec) -> None:
            initial = baseline.get(spec.name)
            if initial is not None and spec.arrange is not None:
                state = self.states[spec.name]
                state.reference, state.reference_errors = self._reference(spec, spec.arrange(initial))

        self._pool.map(one, self.specs)

    def stale(self, together: bool = False) -> Iterator[tuple[str, list[np.ndarray]]]:
        """The weights of the last snapshot, for the layers that this process measures and that changed since.

        For all others the current weights equal those of the last snapshot, so a checkpoint contains them already.

        Args:
            together: whether to read the layers that other processes measure too, because all processes must read
                sharded weights together.
        """
        for spec in self.specs:
            previous = self.states[spec.name].previous
            if previous is None:
                if together:
                    self._read(spec)
            elif self._fingerprint_now(spec) != self.states[spec.name].fingerprint:
                yield spec.name, [a.widened() for a in previous]

    def restore(self, memories: Mapping[str, LayerMemory], previous: Mapping[str, Sequence[Array]]) -> None:
        """Restore the states of a saved run; the model must already have the weights of its checkpoint.

        Args:
            memories: the states, by layer.
            previous: what :meth:`stale` returned when they were saved.
        """
        for spec in self.specs:
            memory, state = memories.get(spec.name), self.states[spec.name]
            if memory is None:
                continue
            state.restore(memory)
            if not self._keep_previous:
                continue
            if spec.name in previous:
                state.previous = _copy_into(None, previous[spec.name])
                continue
            read = self._read(spec)
            if not isinstance(read, Exception) and fingerprint(read) == memory.fingerprint:
                state.previous = _copy_into(None, read)

    def _fingerprint_now(self, spec: LayerSpec) -> str:
        read = self._read(spec)
        return "" if isinstance(read, Exception) else fingerprint(read)


def _equal(arrays: Sequence[Array], others: Sequence[Array] | None) -> bool:
    return others is not None and all(
        a.dtype == b.dtype and a.shape == b.shape and all(_same(rows) for rows in zip(a, b, strict=True))
        for a, b in zip(map(to_host, arrays), map(to_host, others), strict=True)
    )


def _same(rows: tuple[np.ndarray, np.ndarray]) -> bool:
    return np.array_equal(*rows, equal_nan=True)  # row by row, because it makes copies


def _copy_into(kept: list[Narrowed] | None, arrays: Sequence[Array]) -> list[Narrowed]:
    """Copy ``arrays`` to the host, into the memory of ``kept`` if they fit, in 16 bits where these are exact."""
    old = [None] * len(arrays) if kept is None or len(kept) != len(arrays) else kept
    return [copied(to_host(array), memory) for array, memory in zip(arrays, old, strict=True)]


def _failed(spec: LayerSpec, index: int, wanted: Sequence[Quantity], error: Exception) -> LayerRow:
    values: dict[str, Value] = {q.name: "" if q.text else float("nan") for q in wanted}
    return LayerRow(spec.name, index, values, status=f"failed: {type(error).__name__}: {error}", frozen=spec.frozen)
