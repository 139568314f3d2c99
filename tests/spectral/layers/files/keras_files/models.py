"""Saves Keras models in every format on the backend of this process, with what the live models give.

Run as ``python models.py FOLDER`` with ``KERAS_BACKEND`` set. Each model has an optimiser, whose state is next to
the weights.
"""

import json
import sys
from pathlib import Path

import numpy as np

from ww_callbacks.spectral.layers import inspect


def models():
    """Name → a model of one way of building them."""
    import keras

    L = keras.layers
    image, words = keras.Input((8, 8, 4), name="image"), keras.Input((6,), dtype="int32", name="words")
    x = L.Conv2D(6, 3, groups=2, padding="same")(image)
    x = L.BatchNormalization()(x)
    x = L.SeparableConv2D(4, 3)(L.DepthwiseConv2D(3, depth_multiplier=2)(x))
    x = L.Flatten()(L.Conv2DTranspose(3, 2)(x))
    y = L.Embedding(11, 8)(words)
    y = L.Bidirectional(L.LSTM(4, return_sequences=True))(y)
    y = L.MultiHeadAttention(2, 3)(y, y)
    y = L.TimeDistributed(L.Dense(5, name="step"))(y)
    y = L.Conv1D(6, 3)(L.GRU(7, return_sequences=True)(y))
    y = L.EinsumDense("btc,cde->btde", (None, 2, 3))(y)
    y = L.SimpleRNN(3)(L.Reshape((4, 6))(y))
    inner = keras.Input((3,))
    y = keras.Model(inner, L.Dense(4, name="inside")(inner), name="nested")(y)
    y = keras.Sequential([keras.Input((4,)), L.Dense(3, name="row")], name="rows")(y)
    z = L.Dense(2, dtype="mixed_bfloat16")(L.Concatenate()([x, y]))
    yield "functional", keras.Model([image, words], L.Dense(2, name="out")(z), name="everything")

    class Own(keras.Model):
        """A model of a class of the user's own, with layers in a list."""

        def __init__(self):
            super().__init__()
            self.first = L.Dense(4)
            self.others = [L.Dense(3), L.Dense(2)]

        def call(self, inputs):
            inputs = self.first(inputs)
            for layer in self.others:
                inputs = layer(inputs)
            return inputs

    yield "subclass", Own()
    yield "sequential", keras.Sequential([L.Dense(5), L.Dense(2)])
    half = L.Dense(4, dtype="bfloat16", name="half")
    yield "half", keras.Sequential([keras.Input((5,)), half, L.Dense(2, dtype="float16", name="other")])


def row(spec):
    """What the tests compare."""
    return [spec.name, spec.kind, spec.type, list(spec.matrix_shapes), bool(spec.skipped)]


def main(folder):
    """Save each model as ``NAME.keras`` and so on, and what is inspected of it as ``NAME.npz``."""
    import keras

    folder = Path(folder)
    keras.utils.set_random_seed(0)
    for name, model in models():
        if name != "functional":
            model(np.zeros((2, 5), "float32"))
        model.compile("adam", "mse")
        model.optimizer.build(model.trainable_variables)
        write(model, folder, name)
        model.save_weights(folder / f"{name}.weights.json", max_shard_size=2e-6)
        if name == "functional":
            model.save(folder / f"{name}.h5")
    quantised = keras.Sequential(
        [keras.Input((6,), dtype="int32"), keras.layers.Embedding(11, 6), keras.layers.Dense(5),
         keras.layers.EinsumDense("abc,cde->abde", (None, 2, 3)), keras.layers.EinsumDense("abcd,cde->abe", (None, 4))]
    )  # fmt: skip
    quantised.quantize("int8")
    write(quantised, folder, "quantised")


def write(model, folder, name):
    """Save one model, and what the live one gives."""
    model.save(folder / f"{name}.keras")
    model.save_weights(folder / f"{name}.weights.h5")
    specs = inspect(model)
    arrays = {f"{s.name}|{i}": m for s in specs if not s.skipped for i, m in enumerate(s.matrices())}
    np.savez(folder / f"{name}.npz", info=json.dumps([row(spec) for spec in specs]), **arrays)


if __name__ == "__main__":
    main(*sys.argv[1:])
