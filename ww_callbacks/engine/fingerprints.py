"""A fingerprint of arrays, so that an unchanged layer is not measured again."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import xxhash

from ww_callbacks.engine.accelerator import tensor_digest
from ww_callbacks.spectral.layers.spec import Array
from ww_callbacks.spectral.linalg.arrays import on_accelerator


def fingerprint(arrays: Sequence[Array]) -> str:
    """128 bits over dtype, shape and bytes of the arrays, in hexadecimal; equal only for equal weights.

    XXH3 on the host; a tensor on an accelerator is hashed on its device (see
    :func:`~ww_callbacks.engine.accelerator.tensor_digest`), so fingerprints from host and device differ.
    """
    digest = xxhash.xxh3_128()
    for array in arrays:
        if on_accelerator(array):
            digest.update(f"{array.dtype}{tuple(array.shape)}".encode())
            digest.update(tensor_digest(array))
        else:
            digest.update(_kind(array.dtype, array.shape))
            there = np.ascontiguousarray(array)
            # Extension types (ml_dtypes) have no buffer.
            digest.update(there.data if there.dtype.isbuiltin == 1 else there.reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


@lru_cache(maxsize=1024)
def _kind(dtype: np.dtype[Any], shape: tuple[int, ...]) -> bytes:
    return f"{dtype.str}{shape}".encode()
