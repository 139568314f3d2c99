"""Runs a Keras model, on any backend, for its layers' features."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ww_callbacks.spectral.layers import inspect
from ww_callbacks.spectral.layers.selection import select


class KerasDriver:
    """Runs a functional or Sequential Keras model for the features' ranks, through a second model on the same layers.

    Args:
        model: the Keras model, built.
        layers: shell patterns of variables (``dense/kernel``); none means all with a matrix.

    Raises:
        ValueError: if the model is not functional, or if ``layers`` names variables without a matrix.
    """

    def __init__(self, model: Any, layers: Sequence[str] = ()) -> None:
        import keras

        if not isinstance(model, keras.Sequential) and not (hasattr(model, "inputs") and hasattr(model, "outputs")):
            raise ValueError(
                f"Expected a functional or Sequential Keras model for a representation probe, but "
                f"`{type(model).__name__}` is subclassed: its layers' outputs cannot be reached."
            )
        chosen = [s.name for s in select(inspect(model), include=tuple(layers))]
        owners = {v.path: layer for layer in model.layers for v in layer.weights}
        self.names: list[str] = []
        self._channels: list[int] = []
        outputs = []
        for name in chosen:
            layer = owners.get(name.partition("[")[0])
            if layer is None or isinstance(layer, keras.Model):
                continue
            self.names.append(name)
            convolution = layer.__class__.__name__.startswith("Conv")
            self._channels.append(1 if convolution and layer.data_format == "channels_first" else -1)
            output = layer.output
            outputs.append(output[0] if isinstance(output, list | tuple) else output)
        if not outputs:
            raise ValueError("Expected layers of the model itself to probe, but all of them are in nested models.")
        # An explicit name: an automatic one would change those of the user's later models.
        self._model = keras.Model(model.inputs, outputs, name="representation_probe")

    def features(self, batch: Any) -> dict[str, np.ndarray]:
        """Each layer's features as a matrix: samples and positions × channels, float64."""
        import keras

        found = self._model(keras.ops.convert_to_tensor(batch), training=False)
        result = {}
        for name, axis, value in zip(self.names, self._channels, found, strict=True):
            array = np.moveaxis(np.asarray(keras.ops.convert_to_numpy(value), dtype=np.float64), axis, -1)
            result[name] = array.reshape(-1, array.shape[-1])
        return result
