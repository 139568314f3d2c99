"""All use of Keras's undocumented interface.

What other floors read too is in ``ww_callbacks.spectral.layers.frameworks.keras_private``, and the same holds for it.

Each function names the attributes that it reads; all were there in the versions that ``keras_private.TRIED``
lists. If a later version lacks one, training continues, and one warning says what no longer works.
``tests/keras/test_private.py`` fails on the first version that lacks one.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import keras

from ww_callbacks.adapters.call_stack import caller, local
from ww_callbacks.spectral.layers.frameworks.keras_private import children, lost


def running_list() -> Any:
    """The ``CallbackList`` whose hook is running, found on the call stack; None outside of one."""
    return caller(keras.callbacks.CallbackList)


def report_batches_at_once(callbacks: Any) -> None:
    """Make Keras call the hooks of batches in the training thread (``CallbackList._async_train``).

    Keras decides this when it creates the list, before it is known that the run is so short that steps are counted.
    """
    if not hasattr(callbacks, "_async_train"):
        lost("CallbackList._async_train", "snapshots within an epoch may be some batches late")
        return
    callbacks._async_train = False


def accumulation(optimizer: Any) -> tuple[int, int]:
    """Number of batches accumulated into one update, and how many of them are collected already.

    Reads ``gradient_accumulation_steps`` and ``_iterations``, which counts batches; a loss scale's optimizer has them
    in its ``inner_optimizer``.
    """
    inner = getattr(optimizer, "inner_optimizer", optimizer)
    steps = getattr(inner, "gradient_accumulation_steps", None) or 1
    if steps == 1:
        return 1, 0
    batches = getattr(inner, "_iterations", None)
    if batches is None:
        lost("Optimizer._iterations", "a second `fit` may count its first accumulated step some batches late")
        return steps, 0
    return steps, int(keras.ops.convert_to_numpy(batches)) % steps


def is_built(model: Any) -> bool:
    """Whether all layers of ``model`` have their weights."""
    return bool(model.built) and all(is_built(layer) for layer in children(model))


def build(model: Any) -> None:
    """Create the weights of a model that TensorFlow would only create while tracing the first batch.

    Reads the shapes of a batch from ``epoch_iterator._distributed_dataset``, a local variable of ``fit``, so that no
    batch is taken, and calls the model on them with ``backend.compute_output_spec``, as ``fit`` itself does on the
    other backends. The optimizer and the metrics are left to the first batch.

    Raises:
        Exception: whatever the model raises on symbolic inputs; what was built by then stays built.
    """
    dataset = getattr(local(keras.Model, "epoch_iterator"), "_distributed_dataset", None)
    spec = getattr(dataset, "element_spec", None)
    call = getattr(getattr(getattr(keras, "src", None), "backend", None), "compute_output_spec", None)
    if spec is None or call is None:
        lost(
            "`epoch_iterator._distributed_dataset.element_spec` or `backend.compute_output_spec`",
            "a model without an input shape is watched from its first batch on",
        )
        return
    x, _, _ = keras.utils.unpack_x_y_sample_weight(keras.tree.map_structure(_symbolic, spec))
    call(model, x, training=False)


def _symbolic(spec: Any) -> Any:
    if not hasattr(spec, "shape") or not hasattr(spec, "dtype"):
        return None  # an optional input that the data leave out
    return keras.KerasTensor(tuple(spec.shape), keras.backend.standardize_dtype(spec.dtype))


def averages(optimizer: Any) -> Iterator[tuple[Any, Any]]:
    """Each trainable variable with its moving average (``_trainable_variables``, ``_model_variables_moving_average``).

    Raises:
        ValueError: if this Keras version has none of them.
    """
    inner = getattr(optimizer, "inner_optimizer", optimizer)
    variables = getattr(inner, "_trainable_variables", None)
    moving = getattr(inner, "_model_variables_moving_average", None)
    if variables is None or moving is None:
        raise ValueError(
            f"Keras {keras.__version__} keeps the averages of `use_ema=True` where they cannot be read. Leave "
            "`weights='trained'`."
        )
    return zip(variables, moving, strict=True)
