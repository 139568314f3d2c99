"""The trained weights of a torch module, each with its average."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ww_callbacks.adapters.saved_weights.weight_average import Copies, save_in_place


class TorchWeights:
    """See :class:`ww_callbacks.adapters.saved_weights.weight_average.Weights`.

    Averages of half-precision weights are kept in single precision: in half precision a small step towards the current
    weights would be lost in rounding.

    Args:
        model: the module, on its device.

    Raises:
        ValueError: if FSDP 1 or DeepSpeed ZeRO-3 manages the parameters, which are then only complete during
            computation.
    """

    def __init__(self, model: torch.nn.Module) -> None:
        self._model = model
        wrapped = any(type(module).__name__ == "FullyShardedDataParallel" for module in model.modules())
        if wrapped or any(hasattr(p, "ds_id") or hasattr(p, "_is_flat_param") for p in model.parameters()):
            raise ValueError("under FSDP 1 and DeepSpeed ZeRO-3 its parameters are only complete during computation")
        self.sharded = any(hasattr(p, "to_local") for p in model.parameters())
        self._parameters: list[torch.nn.Parameter] = []
        self._sources: dict[str, torch.Tensor] = {}
        self._values: dict[str, torch.Tensor] = {}
        self._trained = -1
        self.follow()

    @torch.no_grad()
    def follow(self) -> None:
        """Average the weights that are currently trained. Weights frozen so far have been constant, so they equal their
        average.
        """
        self._parameters = list(self._model.parameters())
        self._trained = sum(p.requires_grad for p in self._parameters)
        self._sources = dict(_averaged(self._model))
        if self._values:
            self._make_room()

    def _make_room(self) -> None:
        before, self._values = self._values, {}
        for name, source in self._sources.items():
            now, kept = _plain(source), before.get(name)
            fits = kept is not None and kept.shape == now.shape and kept.device == now.device
            self._values[name] = kept if kept is not None and fits else now.to(_wide(now), copy=True)

    @torch.no_grad()
    def blend(self, share: float) -> None:
        """Move the average by this fraction of the distance to the current weights."""
        if sum(p.requires_grad for p in self._parameters) != self._trained:
            self.follow()
        if not self._values:
            self.follow()
            self._make_room()
        now = [_plain(self._sources[name]).to(value.dtype) for name, value in self._values.items()]
        torch._foreach_lerp_(list(self._values.values()), now, share)

    @torch.no_grad()
    def average(self) -> dict[str, torch.Tensor]:
        """Copies of the average."""
        return {name: value.detach().to("cpu", copy=True) for name, value in self._values.items()}

    @torch.no_grad()
    def now(self) -> dict[str, torch.Tensor]:
        """Exact copies of the current weights."""
        return {name: _plain(source).detach().to("cpu", copy=True) for name, source in self._sources.items()}

    @torch.no_grad()
    def put(self, copies: Copies) -> None:
        """Write copies into the model."""
        for name, source in self._sources.items():
            if name in copies:
                _plain(source).copy_(torch.as_tensor(copies[name]))

    @torch.no_grad()
    def agree(self) -> None:
        """Copy the buffers of the first process, because each process has updated its own from its batches; a
        collective.
        """
        if self.sharded:
            return
        for source in self._sources.values():
            if not isinstance(source, torch.nn.Parameter):
                torch.distributed.broadcast(source, 0)

    def save_average(self, save: Callable[[Path], object], path: Path) -> None:
        """Write the average to a file; the model holds it temporarily, and its exact weights afterwards."""
        save_in_place(self, save, path)

    @torch.no_grad()
    def put_average(self, copies: Copies) -> None:
        """Set the average from copies; names that the model does not have are ignored."""
        self._make_room()
        for name, value in self._values.items():
            if name in copies:
                value.copy_(torch.as_tensor(copies[name]))

    @torch.no_grad()
    def whole(self, copies: Copies) -> dict[str, torch.Tensor]:
        """The whole of each of this process's ``copies``, on the first process; a collective if they are sharded.

        Other processes get none, because the first one writes the checkpoint.
        """
        gathered = {}
        for name, value in copies.items():
            whole = self._whole(name, torch.as_tensor(value))
            if not self.sharded or torch.distributed.get_rank() == 0:
                gathered[name] = whole.to("cpu", copy=True)
        return gathered

    def _whole(self, name: str, value: torch.Tensor) -> torch.Tensor:
        source: Any = self._sources.get(name)
        if not hasattr(source, "to_local"):
            return value
        from torch.distributed.tensor import DTensor

        local = torch.view_as_complex(value) if source.is_complex() else value
        shape = {"shape": source.shape, "stride": source.stride()}
        return _plain(
            DTensor.from_local(local.to(source.device), source.device_mesh, source.placements, **shape).full_tensor()
        )

    @torch.no_grad()
    def part(self, copies: Copies) -> dict[str, torch.Tensor]:
        """This process's part of what :meth:`whole` returned; names that the model does not have are omitted."""
        found = {n: (self._sources[n], torch.as_tensor(value)) for n, value in copies.items() if n in self._sources}
        return {name: self._part(source, value) for name, (source, value) in found.items()}

    @staticmethod
    def _part(source: Any, value: torch.Tensor) -> torch.Tensor:
        if not hasattr(source, "to_local"):
            return value
        from torch.distributed.tensor import DTensor, Replicate

        mesh = source.device_mesh
        full = torch.view_as_complex(value) if source.is_complex() else value
        copied = DTensor.from_local(full.to(source.device), mesh, [Replicate()] * mesh.ndim, run_check=False)
        return _plain(copied.redistribute(placements=source.placements)).to("cpu", copy=True)


def as_numpy(tensor: torch.Tensor) -> np.ndarray:
    """A copy as an array; half precision as single precision, with the same values."""
    plain = _plain(tensor.detach())
    return plain.to("cpu", _wide(plain)).numpy()


def _averaged(model: torch.nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    """Parameters that get gradients, and the floating-point buffers in the state dict."""
    yield from ((name, p) for name, p in model.named_parameters() if p.requires_grad)
    unsaved = {
        f"{prefix}.{name}" if prefix else name
        for prefix, module in model.named_modules()
        for name in module._non_persistent_buffers_set
    }
    yield from ((n, b) for n, b in model.named_buffers() if n not in unsaved and b.is_floating_point())


def _plain(tensor: torch.Tensor) -> torch.Tensor:
    """The local part as real numbers; shares memory."""
    local = tensor.to_local() if hasattr(tensor, "to_local") else tensor
    return torch.view_as_real(local) if local.is_complex() else local


def _wide(tensor: torch.Tensor) -> torch.dtype:
    return tensor.dtype if tensor.dtype.itemsize >= 4 else torch.float32
