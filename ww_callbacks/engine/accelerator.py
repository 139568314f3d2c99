"""Weights on an accelerator: fingerprints, copies, and where a layer is decomposed.

This module never imports torch: it only gets a tensor if the caller has imported torch.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import numpy as np

from ww_callbacks.spectral.layers.spec import Array
from ww_callbacks.spectral.linalg.arrays import on_accelerator
from ww_callbacks.spectral.linalg.half_precision import Narrowed, copied

SMALL = 256
"""Matrices with a smaller side below this are decomposed on the host: an accelerator's eigensolver processes small
matrices column by column and is slower than LAPACK."""

_CHUNK = 1 << 22
_MULTIPLIERS = (0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F)


def to_host(array: Array) -> np.ndarray:
    """``array`` as a NumPy array; a tensor is copied to the host."""
    if type(array) is np.ndarray:
        return array
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(array, torch.Tensor):
        return array.detach().cpu().numpy()
    return np.asarray(array)


def placed(arrays: Sequence[Array]) -> list[Array]:
    """``arrays`` on the device that decomposes them fastest: small ones on the host, large ones where they are."""
    return [a if type(a) is np.ndarray or _stays(a) else to_host(a) for a in arrays]


def _stays(array: Array) -> bool:
    return on_accelerator(array) and _smaller_side(array) >= SMALL


def _smaller_side(array: Array) -> int:
    rows, *rest = array.shape
    return min(rows, int(np.prod(rest))) if rest else 0


def tensor_digest(tensor: Any) -> bytes:
    """A 128-bit hash of a tensor's bits, computed on its device; only the result is copied to the host.

    Two multilinear hashes over the ring of 64-bit integers: Σ c_i·x_i with c_i an odd, mixed function of i, so two
    tensors that differ in one element never have the same hash, and any others with a probability of about 2^-64 each.
    """
    torch = sys.modules["torch"]
    flat = tensor.detach().contiguous().reshape(-1)
    integers = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
    bits = flat.view(integers[flat.element_size()])
    sums = torch.zeros(len(_MULTIPLIERS), dtype=torch.int64, device=tensor.device)
    for start in range(0, bits.numel(), _CHUNK):
        block = bits[start : start + _CHUNK].to(torch.int64)
        index = torch.arange(start + 1, start + 1 + block.numel(), dtype=torch.int64, device=tensor.device)
        for i, multiplier in enumerate(_MULTIPLIERS):
            mixed = index * _signed(multiplier)
            mixed = (mixed ^ (mixed >> 29)) * _signed(0xBF58476D1CE4E5B9)
            sums[i] += (block * ((mixed ^ (mixed >> 32)) | 1)).sum()
    return sums.cpu().numpy().tobytes()


def _signed(value: int) -> int:
    """``value`` as a signed 64-bit integer, the type that torch multiplies; products wrap around."""
    return value - (1 << 64) if value >> 63 else value


class HostCopies:
    """Copies of arrays that the optimiser's next step cannot change, in reused buffers.

    From CUDA the copies go to pinned memory on a separate stream: the training thread only queues them, and
    :meth:`wait`, called on the thread that needs them, waits for that stream only.
    """

    def __init__(self) -> None:
        self._buffers: dict[tuple[str, int], Any] = {}
        self._streams: dict[Any, Any] = {}
        self._events: list[Any] = []

    def take(self, name: str, arrays: Sequence[Array]) -> list[Narrowed]:
        """Copies of ``arrays``, valid until the next call with the same ``name`` (after :meth:`wait`).

        Those of arrays on the host are in 16 bits where these are exact.
        """
        return [self._copy((name, i), array) for i, array in enumerate(arrays)]

    def _copy(self, key: tuple[str, int], array: Array) -> Narrowed:
        if not on_accelerator(array):
            copy = copied(to_host(array), self._buffers.pop(key, None))
            if not copy.kind:
                self._buffers[key] = copy
            return copy
        torch = sys.modules["torch"]
        pinned = self._buffers.get(key)
        if pinned is None or pinned.shape != array.shape or pinned.dtype != array.dtype:
            pinned = self._buffers[key] = torch.empty(array.shape, dtype=array.dtype, pin_memory=True)
        if array.device.type != "cuda":
            pinned.copy_(array)
            return Narrowed("", pinned.numpy())
        current = torch.cuda.current_stream(array.device)
        side = self._streams.setdefault(array.device, torch.cuda.Stream(array.device))
        side.wait_stream(current)
        with torch.cuda.stream(side):
            pinned.copy_(array, non_blocking=True)
            self._events.append(side.record_event())
        array.record_stream(side)
        # The optimiser's next step must not overwrite data that is still being read; the device waits, not the host.
        current.wait_stream(side)
        return Narrowed("", pinned.numpy())

    def wait(self) -> None:
        """Wait until the copies are complete."""
        for event in self._events:
            event.synchronize()
        self._events.clear()
