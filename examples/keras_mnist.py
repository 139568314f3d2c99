"""Keras: an MLP on images, watched by one callback; on the torch or the jax backend.

KERAS_BACKEND=torch python -m examples.keras_mnist                 the digits that scikit-learn carries
KERAS_BACKEND=jax python -m examples.keras_mnist --data FOLDER     full MNIST from FOLDER/mnist
"""

from __future__ import annotations

import argparse
import os

os.environ.setdefault("KERAS_BACKEND", "torch")

import keras

from examples.data import digits, mnist
from ww_callbacks.keras import SpectralCallback


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="folder that holds mnist/; without it scikit-learn's digits")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--width", type=int, default=300)
    parser.add_argument("--log-dir", default="runs/keras")
    args = parser.parse_args()

    keras.utils.set_random_seed(0)
    train, test = mnist(args.data) if args.data else digits()
    model = keras.Sequential(
        [
            keras.Input(train[0].shape[1:]),
            keras.layers.Flatten(),
            keras.layers.Dense(args.width, activation="relu"),
            keras.layers.Dense(args.width, activation="relu"),
            keras.layers.Dense(10),
        ]
    )
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"])
    callback = SpectralCallback(log_dir=args.log_dir)
    model.fit(*train, batch_size=64, epochs=args.epochs, validation_data=test, callbacks=[callback])
    print(callback.history.query("epoch == epoch.max()")[["layer", "alpha", "alpha_evidence", "effective_rank"]])
    print("Verdict:", callback.verdict)


if __name__ == "__main__":
    main()
