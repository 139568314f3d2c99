"""Checks the batch and the labels of a probe before training."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np


def on_host(value: Any) -> np.ndarray:
    """``value``, a tensor on any device or an array-like, as an array on the host."""
    if not hasattr(value, "detach"):
        return np.asarray(value)
    tensor = value.detach().cpu()
    # NumPy has no bfloat16.
    return np.asarray(tensor.double() if tensor.is_floating_point() else tensor)


def loaded(value: Any) -> Any:
    """``value``, or the contents of the file that it names, because a YAML configuration cannot contain a tensor.

    Args:
        value: a path of a ``.npy`` file (an array), a ``.npz`` or a safetensors file (a dict of arrays), or anything
            else, which is returned unchanged.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the file has another suffix.
    """
    if not isinstance(value, str | os.PathLike) or not Path(value).suffix:
        return value  # not a file; the probe checks for a tensor
    path = Path(value)
    if path.suffix == ".safetensors":
        from safetensors.numpy import load_file

        return load_file(path)
    if path.suffix not in (".npy", ".npz"):
        raise ValueError(f"Expected the probe's file to end in .npy, .npz or .safetensors but got {str(path)!r}.")
    found = np.load(path, allow_pickle=False)
    return found if isinstance(found, np.ndarray) else {name: found[name] for name in found.files}


def check_kind(batch: Any) -> Any:
    """``batch``, checked to be a tensor or array with samples along the first axis, or a mapping of them (as a dict).

    Raises:
        TypeError: if it is anything else, for example inputs and labels in one tuple.
    """
    parts = list(batch.values()) if isinstance(batch, Mapping) else [batch]
    wrong = [type(part).__name__ for part in parts if not hasattr(part, "shape") or not hasattr(part, "dtype")]
    if wrong or not parts:
        got = f"a dict of {wrong or 'nothing'}" if isinstance(batch, Mapping) else type(batch).__name__
        raise TypeError(
            "Expected the probe batch to be a tensor or an array, or a dict of them for keyword arguments, but got "
            f"{got}. Inputs and labels are two arguments: `RepresentationProbe(inputs, labels)`."
        )
    return dict(batch) if isinstance(batch, Mapping) else batch


def check_values(batch: Any, ranked: bool) -> None:
    """Check that ``batch`` has samples and finite values, and two different samples if features are ``ranked``.

    Raises:
        ValueError: if it does not.
    """
    named = batch if isinstance(batch, dict) else {"": batch}
    arrays = {name: on_host(value) for name, value in named.items()}
    for name, array in arrays.items():
        what = f"`{name}` of the probe batch" if name else "the probe batch"
        if array.ndim == 0 or array.size == 0:
            raise ValueError(
                f"Expected {what} to have samples along its first axis, but got the shape {array.shape}. "
                "Use a few dozen samples of the training data."
            )
        if array.dtype.kind not in "fc":
            continue
        # An additive attention mask, a keyword argument, contains −inf on purpose.
        bad = ~np.isfinite(array) & ~(bool(name) & (array == -np.inf))
        if bad.any():
            samples = np.flatnonzero(bad.reshape(len(array), -1).any(axis=1))
            raise ValueError(
                f"Expected {what} to be finite, but {len(samples)} of {len(array)} samples contain NaN or infinity, "
                f"first sample {samples[0]}. Remove or fix them."
            )
    if ranked and not any((array != array[:1]).any() for array in arrays.values()):
        count = len(next(iter(arrays.values())))
        got = "one" if count == 1 else f"{count} equal ones"
        raise ValueError(
            f"Expected at least two different samples in the probe batch, but got {got}: the rank of their features "
            "would be 0 from the start. Use a few dozen samples of the training data."
        )


def class_labels(labels: Any) -> np.ndarray:
    """``labels`` as integers.

    Raises:
        ValueError: if they are not whole numbers.
    """
    array = on_host(labels)
    if array.dtype.kind not in "biuf":
        raise ValueError(
            f"Expected the probe's `labels` to be the classes as whole numbers from 0, but got {array.dtype}. "
            "Number the classes as the outputs of the model's head."
        )
    fractions = array[~np.isfinite(array) | (array != np.round(array))]
    if fractions.size:
        raise ValueError(
            f"Expected the probe's `labels` to be the classes as whole numbers from 0, but got {fractions[0]:g} among "
            "them. `classification_dimension` and `independence_deficit` are for classifiers; leave them out for a "
            "regression."
        )
    return array.astype(np.int64)
