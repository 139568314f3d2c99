"""Checks of the formulas' arguments: arrays in float64."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike


def spectrum_of(values: ArrayLike, what: str = "singular values") -> np.ndarray:
    """Singular values or eigenvalues as a flat float64 array.

    Raises:
        ValueError: if one is negative.
    """
    array = np.asarray(values, dtype=np.float64).ravel()
    if (array < 0.0).any():
        raise ValueError(f"Expected non-negative {what} but got {float(np.min(array)):g}.")
    return array


def check_larger_side(larger_side: int) -> None:
    """Refuse a side of a matrix that is none.

    Raises:
        ValueError: if it is not positive.
    """
    if larger_side < 1:
        raise ValueError(f"Expected `larger_side` to be at least 1 but got {larger_side!r}.")


def same_shape(w: ArrayLike, v: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Two weights as float64 arrays.

    Raises:
        ValueError: if their shapes differ.
    """
    a, b = np.asarray(w, dtype=np.float64), np.asarray(v, dtype=np.float64)
    if a.shape != b.shape:
        raise ValueError(f"Expected weights of one shape but got {a.shape} and {b.shape}.")
    return a, b
