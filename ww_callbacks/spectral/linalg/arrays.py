"""Array operations for NumPy arrays and for torch tensors on an accelerator.

Everything is computed in float64, block of rows by block of rows, so that no float64 copy of a large matrix is made.
This module never imports torch: it only gets a tensor if the caller has imported torch.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from math import isnan
from typing import Any, TypeGuard

import numpy as np
from numpy.typing import ArrayLike

from ww_callbacks.spectral.layers.spec import Array

BLOCK = 1 << 14
"""Elements per block of rows: 128 KiB as float64. A few fit into a core's cache, and larger blocks, for which the C
library maps new memory each time, take three times as long."""

_BLOCK_ON_ACCELERATOR = 1 << 22
"""Elements per block on an accelerator, where each operation has a fixed cost."""


def on_accelerator(array: Array) -> TypeGuard[Any]:
    """Whether ``array`` is a torch tensor on a device that computes in float64 (all but the CPU and Apple's MPS)."""
    if type(array) is np.ndarray:
        return False
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(array, torch.Tensor) and array.device.type not in ("cpu", "mps")


def is_small(array: object) -> bool:
    """Whether ``array`` is a NumPy array in C order and at most one block of rows."""
    return isinstance(array, np.ndarray) and array.size <= BLOCK and array.flags.c_contiguous


def as_array(array: Array | ArrayLike) -> Array:
    """``array`` as a NumPy array; a tensor on an accelerator is returned unchanged."""
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(array, torch.Tensor):
        tensor: Any = array.detach()
        if on_accelerator(tensor):
            return tensor
        tensor = tensor.cpu()
        # NumPy has no bfloat16 (nor float8); float32 holds every one of its values exactly.
        known = tensor.dtype in (torch.float64, torch.float32, torch.float16)
        return tensor.numpy() if known else tensor.float().numpy()
    return np.asarray(array)


def float64(array: Array) -> Array:
    """A float64 copy (or the array itself if it is float64 already), on the device of ``array``."""
    if on_accelerator(array):
        return array.to(sys.modules["torch"].float64)
    return np.asarray(array).astype(np.float64, copy=False)


def as_native(array: Array) -> Array:
    """A matrix, or its transpose where NumPy holds it column by column: going through it then takes a quarter.

    >>> as_native(np.zeros((3, 2)).T).shape
    (3, 2)
    """
    return array.T if isinstance(array, np.ndarray) and array.strides[0] < array.strides[1] else array


def row_blocks(first: Array, *others: Array | None, rows: int | None = None) -> Iterator[tuple[Any, ...]]:
    """Iterate over arrays of one shape by blocks of rows, each block in float64 on the device of the first array.

    Without ``rows``, where the first is in memory column by column, the blocks are those of the transposes.

    Args:
        first: the array that determines the device.
        others: further arrays of its shape; None gives None in every block.
        rows: rows per block; by default about :data:`BLOCK` elements, or more on an accelerator.
    """
    first = as_array(first)
    beside_it = [None if a is None else as_array(a) for a in others]
    if rows is None and isinstance(first, np.ndarray) and first.size <= BLOCK:
        yield float64(first), *(None if a is None else float64(to_device_of(a, first)) for a in beside_it)
        return
    if rows is None and as_native(first) is not first:
        first, beside_it = first.T, [None if a is None else a.T for a in beside_it]
    elements = _BLOCK_ON_ACCELERATOR if on_accelerator(first) else BLOCK
    rows = rows or max(1, elements // max(1, first.shape[1]))
    for start in range(0, first.shape[0], rows):
        block = first[start : start + rows]
        yield (
            float64(block),
            *(None if a is None else float64(to_device_of(a[start : start + rows], block)) for a in beside_it),
        )


def to_device_of(array: Array, reference: Array) -> Array:
    """``array`` on the device of ``reference`` (a baseline may be kept on the host)."""
    if on_accelerator(reference):
        return sys.modules["torch"].as_tensor(array, device=reference.device)
    return array.cpu().numpy() if on_accelerator(array) else array


def difference(array: Array, other: Array) -> Array:
    """``array − other`` in float64, on the device of ``array``."""
    first, second = as_array(array), as_array(other)
    return float64(first) - float64(to_device_of(second, first))


def frobenius(array: Array) -> float:
    """‖A‖_F of a float64 array."""
    return float(dot(array, array)) ** 0.5


def dot(a: Any, b: Any) -> Any:
    """⟨a, b⟩, the sum of the elementwise product; on an accelerator a 0-d tensor, without synchronisation."""
    if on_accelerator(a):
        return (a * b).sum()
    return np.dot(a.ravel(order="K"), b.ravel(order="K")) if _same_layout(a, b) else float(np.sum(a * b))


def _same_layout(a: np.ndarray, b: np.ndarray) -> bool:
    """Whether both are in memory in the same order, so that ``ravel(order="K")`` pairs the right elements."""
    return (a.flags.c_contiguous and b.flags.c_contiguous) or (a.flags.f_contiguous and b.flags.f_contiguous)


def largest_magnitude(array: Array) -> float:
    """Largest |a_ij|; NaN if an element is NaN, inf if one is infinite, 0.0 for an empty array.

    >>> largest_magnitude(np.array([[1.0, -3.0], [2.0, 0.0]]))
    3.0
    """
    values: Any = as_array(array)
    if 0 in values.shape:
        return 0.0
    with np.errstate(invalid="ignore"):  # NumPy warns of a NaN among bfloat16, though not among its own floats.
        highest = float(values.max())
        return highest if isnan(highest) else max(highest, -float(values.min()))
