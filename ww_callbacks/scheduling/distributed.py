"""Several processes that train one model: which layers each measures, and how they agree on one verdict."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any, Protocol

from ww_callbacks.spectral.layers.spec import LayerSpec


class Group(Protocol):
    """The processes of one training. Every method is a collective: all processes must call it, in the same order."""

    @property
    def rank(self) -> int:
        """Rank of this process, from 0."""

    @property
    def size(self) -> int:
        """Number of processes."""

    def gather(self, value: Any) -> list[Any]:
        """The values of all processes, in the order of ranks."""

    def broadcast(self, value: Any, source: int = 0) -> Any:
        """The value of the process with the rank ``source``."""


class SingleProcess:
    """A single process."""

    rank = 0
    size = 1

    def gather(self, value: Any) -> list[Any]:
        """``[value]``."""
        return [value]

    def broadcast(self, value: Any, source: int = 0) -> Any:
        """``value``."""
        return value


class Processes:
    """The processes of ``torch.distributed``'s default group."""

    def __init__(self) -> None:
        import torch.distributed

        self._torch = torch.distributed
        self.rank = self._torch.get_rank()
        self.size = self._torch.get_world_size()

    def gather(self, value: Any) -> list[Any]:
        """The values of all processes."""
        found: list[Any] = [None] * self.size
        self._torch.all_gather_object(found, value)
        return found

    def broadcast(self, value: Any, source: int = 0) -> Any:
        """The value of the process with the rank ``source``."""
        box = [value]
        self._torch.broadcast_object_list(box, src=source)
        return box[0]


def processes() -> Group:
    """The group of ``torch.distributed`` if several processes train together, otherwise this process alone."""
    torch = sys.modules.get("torch")
    if torch is None or not torch.distributed.is_available() or not torch.distributed.is_initialized():
        return SingleProcess()
    return Processes() if torch.distributed.get_world_size() > 1 else SingleProcess()


def is_sharded(model: Any) -> bool:
    """Whether processes must read the weights of ``model`` together: DTensors, or DeepSpeed ZeRO-3's partitions."""
    torch = sys.modules.get("torch")
    if torch is None or not isinstance(model, torch.nn.Module):
        return False
    return any(hasattr(p, "full_tensor") or hasattr(p, "ds_id") for p in model.parameters())


def share(specs: Sequence[LayerSpec], size: int) -> list[frozenset[str]]:
    """Which layers each of ``size`` processes measures, so that their costs Σ n·m·min(n, m) are balanced.

    Longest processing time first (LPT): the costliest layer goes to the process with the lowest cost so far. Every
    process computes the same assignment.

    >>> from ww_callbacks.spectral.layers.spec import LayerSpec
    >>> layers = [LayerSpec(f"{n}", (), "dense", "", (n, n), ((n, n),)) for n in (8, 7, 6, 2)]
    >>> [sorted(names) for names in share(layers, 2)]
    [['2', '8'], ['6', '7']]
    """
    loads = [0.0] * size
    names: list[set[str]] = [set() for _ in range(size)]
    for spec in sorted(specs, key=lambda s: -s.cost):
        least = loads.index(min(loads))
        loads[least] += spec.cost
        names[least].add(spec.name)
    return [frozenset(n) for n in names]
