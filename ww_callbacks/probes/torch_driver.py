"""Running a torch model for its layers' features, outputs and Jacobians."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ww_callbacks.probes.double_precision import (
    check_double,
    check_runs_in_double,
    check_tensor,
    double_copy,
    evaluate,
    refusal,
)
from ww_callbacks.probes.jacobian import Patch, forward_grams, groups, reverse_grams, to_numpy
from ww_callbacks.probes.state import undisturbed
from ww_callbacks.spectral.layers import inspect
from ww_callbacks.spectral.layers.frameworks.torch_modules import Place, places
from ww_callbacks.spectral.layers.selection import select
from ww_callbacks.spectral.representation import FLOAT32_EPS, jacobian_rank


@dataclass(frozen=True)
class Tap:
    """Where the features of a layer are read: the output of the module that owns its weights.

    Attributes:
        layer: the layer's name, as in the record.
        module: the module.
        channels: the axis of the output that holds the features' dimension; the others count as samples.
    """

    layer: str
    module: torch.nn.Module
    channels: int

    def matrix(self, features: torch.Tensor) -> np.ndarray:
        """Samples and positions × channels, float64."""
        moved = features.detach().movedim(self.channels, -1) if features.ndim > 1 else features.detach()[:, None]
        return moved.reshape(-1, moved.shape[-1]).double().cpu().numpy()


def taps(model: torch.nn.Module, layers: Sequence[str] = ()) -> list[Tap]:
    """A tap for every layer that has a matrix, or for those that ``layers`` (shell patterns) names.

    Raises:
        ValueError: if a pattern matches nothing, or only parameters without a matrix.
    """
    specs = inspect(model)
    if layers:
        for pattern in layers:
            _refuse_without_matrix(specs, pattern)
        chosen = {s.name for s in select(specs, include=tuple(layers))}
    else:
        chosen = {s.name for s in specs if not s.skipped}
    found: dict[int, Tap] = {}
    by_path = {place.path: place for place in places(model)}
    for spec in specs:
        place = _owner(spec.name, by_path) if spec.name in chosen else None
        if place is not None:
            # A packed parameter gives several layers with one output, which is assigned to the last of them.
            found[id(place.module)] = Tap(spec.name, place.module, _channels(place.module))
    return sorted(found.values(), key=lambda tap: [s.name for s in specs].index(tap.layer))


def _refuse_without_matrix(specs: Sequence[Any], pattern: str) -> None:
    from fnmatch import fnmatchcase

    matched = [s for s in specs if fnmatchcase(s.name, pattern)]
    if matched and all(s.skipped for s in matched):
        why = "; ".join(f"`{s.name}` is {s.skipped}" for s in matched[:3])
        raise ValueError(
            f"Expected `layers` of the probe to name layers with a matrix, but {pattern!r} has none: {why}."
        )


def _owner(name: str, by_path: Mapping[str, Place]) -> Place | None:
    path = name.partition("[")[0].rpartition(".")[0]
    while path not in by_path and path:
        path = path.rpartition(".")[0]
    place = by_path.get(path)
    if place is None:
        return None
    parent = by_path.get(path.rpartition(".")[0])
    if parent is not None and isinstance(parent.module, torch.nn.MultiheadAttention):
        return parent  # its out_proj is read, not called
    # q, k and v of nn.MultiheadAttention stay inside it; its output is that of out_proj.
    return None if isinstance(place.module, torch.nn.MultiheadAttention) else place


def _channels(module: torch.nn.Module) -> int:
    return 1 if isinstance(module, torch.nn.modules.conv._ConvNd) else -1


@contextmanager
def tapped(chosen: Sequence[Tap]) -> Iterator[dict[str, torch.Tensor]]:
    """A dict that holds each tap's output after the model has run; the hooks are removed at the end.

    A module that is called several times is read at its last call; of a tuple (attention, LSTM) the first tensor.
    """
    caught: dict[str, torch.Tensor] = {}

    def hook(tap: Tap) -> Callable[..., None]:
        def catch(_module: torch.nn.Module, _inputs: Any, output: Any) -> None:
            first = output[0] if isinstance(output, tuple) else output
            if isinstance(first, torch.Tensor):
                caught[tap.layer] = first

        return catch

    handles = [tap.module.register_forward_hook(hook(tap)) for tap in chosen]
    try:
        yield caught
    finally:
        for handle in handles:
            handle.remove()


class TorchDriver:
    """Runs one torch model for the probes. Every method leaves the model as it was (see ``undisturbed``).

    Args:
        model: the model; wrappers such as DDP and ``torch.compile`` are looked through.
        layers: shell patterns of layers; none means all with a matrix.
        output: takes the tensor out of what the model returns; None where it returns one.

    Raises:
        ValueError: if ``layers`` names what has no matrix.
    """

    def __init__(
        self, model: torch.nn.Module, layers: Sequence[str] = (), output: Callable[[Any], Any] | None = None
    ) -> None:
        self.model = next(iter(places(model))).module
        self.taps = taps(model, layers)
        self._output = output or (lambda out: out)

    def move(self, batch: Any) -> Any:
        """``batch`` as tensors where the model is, in its precision; a dict of them for models that take keywords."""
        parameter = next((p for p in self.model.parameters() if p.is_floating_point()), None)
        if isinstance(batch, Mapping):
            return {name: self.move(value) for name, value in batch.items()}
        tensor = torch.as_tensor(batch)
        if parameter is None:
            return tensor
        return tensor.to(parameter.device, parameter.dtype if tensor.is_floating_point() else None)

    def run(self, batch: Any) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Output and every tap's features, in the model's own precision.

        Raises:
            ValueError: if the output is not a tensor, or ``output`` fails on it.
        """
        batch = self.move(batch)
        with undisturbed(self.model), torch.no_grad(), tapped(self.taps) as caught:
            out = self.model(**batch) if isinstance(batch, dict) else self.model(batch)
        return check_tensor(self.model, self._taken(out)).detach(), caught

    def _taken(self, out: Any) -> Any:
        try:
            return self._output(out)
        except Exception as error:  # the user's own function may raise anything
            what = type(out).__name__ + (f" with the keys {list(out)}" if isinstance(out, Mapping) else "")
            raise ValueError(
                f"Expected the probe's `output` to take a tensor out of what `{type(self.model).__name__}` returns "
                f"({what}), but it fails: {type(error).__name__}: {error}. Fix that function: the forward pass runs."
            ) from error

    def features(self, batch: Any) -> dict[str, np.ndarray]:
        """Each layer's features as a matrix: samples and positions × channels, float64."""
        _, caught = self.run(batch)
        return {tap.layer: tap.matrix(caught[tap.layer]) for tap in self.taps if tap.layer in caught}

    def head(self, batch: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray | None, np.ndarray]:
        """Final features, weight and bias of the linear head, and the output (samples × classes), in float64.

        Raises:
            ValueError: if the output is not what one ``nn.Linear`` makes of its input, for whole samples.
        """
        inputs: dict[torch.nn.Module, tuple[torch.Tensor, torch.Tensor]] = {}

        def catch(module: torch.nn.Module, args: Any, output: Any) -> None:
            inputs[module] = (args[0], output)

        linear = [m for m in self.model.modules() if isinstance(m, torch.nn.Linear)]
        handles = [m.register_forward_hook(catch) for m in linear]
        try:
            out, _ = self.run(batch)
        finally:
            for handle in handles:
                handle.remove()
        for module, (features, own) in inputs.items():
            if features.ndim == 2 and _same(own, out):
                assert isinstance(module, torch.nn.Linear)
                bias = None if module.bias is None else to_numpy(module.bias)
                return to_numpy(features), to_numpy(module.weight), bias, to_numpy(out)
        raise ValueError(
            f"Expected the output of `{type(self.model).__name__}` to be that of an nn.Linear on one feature vector a "
            f"sample (its classification head), but no such layer gives it; the output has the shape "
            f"{tuple(out.shape)}."
        )

    # -- double precision ---------------------------------------------------------------------------------------------

    def _double_inputs(self, batch: Any) -> torch.Tensor:
        moved = self.move(batch)
        if not isinstance(moved, torch.Tensor) or not moved.is_floating_point():
            what = type(moved).__name__ if not isinstance(moved, torch.Tensor) else str(moved.dtype)
            raise ValueError(
                f"Expected a floating-point tensor as the probe batch, to be varied or differentiated, but got {what}."
            )
        return moved.double()

    def _function(self) -> Callable[[torch.Tensor], tuple[torch.Tensor, ...]]:
        """Batch → features of every tap (in order), in float64, as a function that ``torch.func`` can transform."""
        tensors = double_copy(self.model)
        buffers = [name for name, _ in self.model.named_buffers()]

        def call(x: torch.Tensor) -> tuple[torch.Tensor, ...]:
            # A transform forbids writing to what comes from outside, so a module that writes its buffers gets new ones.
            own = {name: tensors[name].clone() for name in buffers}
            with tapped(self.taps) as caught:
                evaluate(self.model, {**tensors, **own}, x)
            return tuple(check_double(self.model, caught[tap.layer]) for tap in self.taps if tap.layer in caught)

        return call

    def check_double(self, batch: Any) -> dict[str, int]:
        """Run one sample in float64; number of features a sample for every tap that the model calls.

        Raises:
            TypeError: if the model refuses float64.
            ValueError: if the batch cannot be differentiated, or no tap is reached.
        """
        x = self._double_inputs(batch)[:1]
        with undisturbed(self.model), torch.no_grad(), tapped(self.taps) as caught:
            check_runs_in_double(self.model, x)
            for layer, value in caught.items():
                if value.dtype != torch.float64:
                    raise refusal(self.model, f"float64 went in and `{layer}` gives {value.dtype}")
        if not caught:
            raise ValueError("Expected the model to call at least one of the probed layers, but it calls none.")
        return {tap.layer: caught[tap.layer].numel() for tap in self.taps if tap.layer in caught}

    def check_patch(self, batch: Any, patch: Patch) -> None:
        """See that the patch is in the input.

        Raises:
            ValueError: if it does not.
        """
        patch.mask(self._double_inputs(batch)[0])

    @staticmethod
    def check_memory(sizes: Mapping[str, int], n: int, memory: float) -> None:
        """See that n perturbed features of every layer fit.

        Raises:
            ValueError: if they do not.
        """
        needed = 8.0 * n * sum(sizes.values())
        if needed > memory:
            raise ValueError(
                f"Expected the perturbed features to fit in `memory`, {_size(memory)}, but {n} of them take "
                f"{_size(needed)}: allow more memory, name fewer layers, those with few features, or fewer "
                "perturbations."
            )

    def jacobian_ranks(
        self, batch: Any, patch: Patch, memory: float = 2e9, chunk: int = 32, eps: float | None = None
    ) -> dict[str, np.ndarray]:
        """Numerical rank of ∂features/∂patch, one an input sample, for every tap.

        Reverse mode where all features together are fewer than the patch's elements, else forward mode, in which one
        pass serves every layer.

        Args:
            batch: input samples.
            patch: the part of the input that is varied, the rest held fixed.
            memory: bytes that the Jacobians of one pass may take; more layers than fit are done in several passes.
            chunk: directions differentiated at a time.
            eps: relative threshold; see :func:`ww_callbacks.spectral.representation.jacobian_rank`.

        Returns:
            Layer → ranks, one a sample.

        Raises:
            TypeError: if the model refuses float64.
            ValueError: if the batch cannot be differentiated, or one layer alone exceeds ``memory``.
        """
        sizes = self.check_double(batch)
        x = self._double_inputs(batch)
        names = [tap.layer for tap in self.taps if tap.layer in sizes]
        side = len(patch.mask(x[0]))
        ranks: dict[str, list[float]] = {name: [] for name in names}
        with undisturbed(self.model), torch.no_grad():
            call = self._function()
            for sample in x:
                index = patch.mask(sample)

                def local(
                    part: torch.Tensor, sample: torch.Tensor = sample, index: torch.Tensor = index
                ) -> tuple[torch.Tensor, ...]:
                    whole = sample.reshape(-1).index_put((index,), part).reshape(sample.shape)
                    return tuple(f.reshape(-1) for f in call(whole[None]))

                at = sample.reshape(-1)[index]
                if sum(sizes.values()) < side:
                    grams = reverse_grams(local, at, chunk)
                    for name, gram in zip(names, grams, strict=True):
                        ranks[name].append(jacobian_rank(gram, eps))
                    continue
                for group in groups(names, sizes, memory / (8 * side)):
                    wanted = [names.index(name) for name in group]
                    grams = forward_grams(local, at, wanted, [sizes[n] for n in group], chunk)
                    for name, gram in zip(group, grams, strict=True):
                        # JᵀJ has the side of the patch; J has no more singular values than features.
                        few = FLOAT32_EPS * min(side, sizes[name]) if eps is None else eps
                        ranks[name].append(jacobian_rank(gram, few))
        return {name: np.array(values) for name, values in ranks.items()}

    def perturbed_features(
        self, batch: Any, n: int, delta: float, seed: int, memory: float = 2e9, chunk: int = 128
    ) -> Iterator[dict[str, np.ndarray]]:
        """For each sample x: layer → features at x + N(0, δ²I), n × features, float64.

        Raises:
            TypeError: if the model refuses float64.
            ValueError: if the batch cannot be perturbed, or the features of all layers together exceed ``memory``.
        """
        sizes = self.check_double(batch)
        self.check_memory(sizes, n, memory)
        x = self._double_inputs(batch)
        generator = torch.Generator().manual_seed(seed)
        for sample in x:
            rows: dict[str, list[np.ndarray]] = {}
            for start in range(0, n, chunk):
                count = min(chunk, n - start)
                noise = torch.randn(count, *sample.shape, dtype=torch.float64, generator=generator).to(sample.device)
                with undisturbed(self.model), torch.no_grad():
                    found = self._function()(sample + delta * noise)
                for name, value in zip(sizes, found, strict=True):
                    rows.setdefault(name, []).append(to_numpy(value.reshape(count, -1)))
            yield {name: np.concatenate(parts) for name, parts in rows.items()}


def _size(count: float) -> str:
    """``count`` bytes in the largest unit of which there is one."""
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("KB", 1e3)):
        if count >= factor:
            return f"{count / factor:.1f} {unit}"
    return f"{count:g} bytes"


def _same(a: torch.Tensor, b: torch.Tensor) -> bool:
    """Whether both hold the same values, NaN included."""
    return a.shape == b.shape and torch.allclose(a, b, rtol=0, atol=0, equal_nan=True)
