"""Real and generated data: every loader gives training and test arrays of a wanted size."""

from __future__ import annotations

import gzip
import os
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch

Tensors = tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]
"""Training inputs and targets, test inputs and targets."""

CONTEXT = 24
"""Characters that the language models read at a time."""
ALPHABET = 48


def _folder() -> Path:
    folder = os.environ.get("WW_CALLBACKS_DATA", "")
    if not folder or not Path(folder).is_dir():
        raise FileNotFoundError(
            "Set the environment variable WW_CALLBACKS_DATA to a folder that holds mnist/*.gz (IDX format) and "
            "text/moby-dick.txt.gz; it is not set or does not exist."
        )
    return Path(folder)


def _tensors(x: np.ndarray, y: np.ndarray, tx: np.ndarray, ty: np.ndarray) -> Tensors:
    def target(a: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(a.astype(np.float32 if a.dtype.kind == "f" else np.int64))

    def inputs(a: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(np.ascontiguousarray(a, dtype=np.int64 if a.dtype.kind in "iu" else np.float32))

    return inputs(x), target(y), inputs(tx), target(ty)


def digits(size: int, rng: np.random.Generator) -> Tensors:
    """scikit-learn's 1797 images of 8×8."""
    from sklearn import datasets

    x, y = datasets.load_digits(return_X_y=True)
    order = rng.permutation(len(x))
    x, y = (x[order] / 16 - 0.305) / 0.376, y[order]
    return _tensors(x[: min(size, 1197)], y[: min(size, 1197)], x[1197:], y[1197:])


@lru_cache(maxsize=1)
def _mnist() -> tuple[np.ndarray, ...]:
    def read(name: str, header: int) -> np.ndarray:
        with gzip.open(_folder() / "mnist" / name) as file:
            return np.frombuffer(file.read(), np.uint8)[header:]

    images = [read(f"{n}-images-idx3-ubyte.gz", 16).reshape(-1, 28, 28) for n in ("train", "t10k")]
    small = [i.reshape(-1, 14, 2, 14, 2).mean(axis=(2, 4)) for i in images]
    labels = [read(f"{n}-labels-idx1-ubyte.gz", 8) for n in ("train", "t10k")]
    return small[0], labels[0], small[1], labels[1]


def mnist(size: int, rng: np.random.Generator, classes: tuple[int, ...] = tuple(range(10))) -> Tensors:
    """MNIST at 14×14 with a channel axis; 1,500 images to test on."""
    x, y, tx, ty = _mnist()

    def some(images: np.ndarray, labels: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
        chosen = rng.permutation(np.flatnonzero(np.isin(labels, classes)))[:count]
        return ((images[chosen] / 255 - 0.1307) / 0.3)[:, None], np.searchsorted(classes, labels[chosen])

    return _tensors(*some(x, y, size), *some(tx, ty, 1500))


def flat(tensors: Tensors) -> Tensors:
    """The same with flat inputs."""
    x, y, tx, ty = tensors
    return x.flatten(1), y, tx.flatten(1), ty


@lru_cache(maxsize=2)
def text(name: str) -> np.ndarray:
    """Characters as numbers: the most common ones, everything else as one more."""
    if name == "pydoc":
        from pydoc_data.topics import topics

        whole = "\n".join(topics[key] for key in sorted(topics))
    else:
        with gzip.open(_folder() / "text" / "moby-dick.txt.gz", "rt", encoding="utf-8") as file:
            whole = file.read()
    common = " etaoinshrdlucmfwygpbvk,.\nxqjzTISAWHBCMNE'-\"_():`"[: ALPHABET - 1]
    table = {ord(c): i for i, c in enumerate(common)}
    return np.array([table.get(ord(c), ALPHABET - 1) for c in whole], dtype=np.int64)


def language(size: int, rng: np.random.Generator, name: str = "pydoc") -> Tensors:
    """Pieces of a text, every next character to be predicted; the last fifth of the text is the test's."""
    source = text(name)
    split = int(0.8 * len(source))
    start = int(rng.integers(0, max(1, split - size * CONTEXT - 1)))
    train = np.stack([source[start + k * CONTEXT : start + (k + 1) * CONTEXT + 1] for k in range(size)])
    at = split + rng.permutation(len(source) - split - CONTEXT - 1)[:250]
    test = np.stack([source[k : k + CONTEXT + 1] for k in at])
    return _tensors(train[:, :-1], train[:, 1:], test[:, :-1], test[:, 1:])


def passages(size: int, rng: np.random.Generator) -> Tensors:
    """Which of four stretches of two books a passage comes from."""
    books = [text("moby"), text("pydoc")]
    stretches = [b[int(len(b) * k / 2) : int(len(b) * (k + 1) / 2)] for b in books for k in range(2)]

    def draw(count: int, low: float, high: float) -> tuple[np.ndarray, np.ndarray]:
        y = rng.integers(0, 4, count)
        at = [int(rng.uniform(low, high) * (len(stretches[c]) - CONTEXT - 1)) for c in y]
        return np.stack([stretches[c][a : a + CONTEXT] for c, a in zip(y, at, strict=True)]), y

    return _tensors(*draw(size, 0, 0.7), *draw(1500, 0.75, 1))


def signals(size: int, rng: np.random.Generator) -> Tensors:
    """Noisy 1-D signals of 64 samples: sines, squares, saws, chirps and bursts of random phase and period."""
    t = np.arange(64)

    def draw(count: int) -> tuple[np.ndarray, np.ndarray]:
        y = rng.integers(0, 5, count)
        period, phase = rng.uniform(8, 24, (count, 1)), rng.uniform(0, 1, (count, 1))
        turn = t / period + phase
        shapes = np.stack(
            [
                np.sin(2 * np.pi * turn),
                np.sign(np.sin(2 * np.pi * turn)),
                2 * (turn % 1) - 1,
                np.sin(2 * np.pi * turn * (1 + t / 64)),
                np.sin(2 * np.pi * turn) * np.exp(-(((t - 64 * phase) / 10) ** 2)),
            ]
        )
        x = shapes[y, np.arange(count)] * rng.uniform(0.5, 1.5, (count, 1)) + rng.normal(0, 0.8, (count, 64))
        return x[:, None], y

    return _tensors(*draw(size), *draw(1500))


def tabular(size: int, rng: np.random.Generator) -> Tensors:
    """Three classes in 20 features, 75 : 20 : 5, on curved boundaries."""
    mixing = rng.normal(size=(20, 20)) / np.sqrt(20)
    bend = rng.normal(size=(20, 12)) / np.sqrt(20)

    def draw(count: int) -> tuple[np.ndarray, np.ndarray]:
        x = rng.normal(size=(count, 20)) @ mixing
        score = np.tanh(2 * x @ bend).sum(axis=1) + rng.normal(0, 0.6, count)
        return x, np.digitize(score, [1.3, 3.2])

    return _tensors(*draw(size), *draw(1500))


def multilabel(size: int, rng: np.random.Generator) -> Tensors:
    """Six labels at once in 24 features, each a noisy half-space or product."""
    ways = rng.normal(size=(24, 12)) / np.sqrt(24)

    def draw(count: int) -> tuple[np.ndarray, np.ndarray]:
        x = rng.normal(size=(count, 24))
        p = x @ ways
        return x, ((p[:, :6] + p[:, 6:] * p[:, :6] + rng.normal(0, 0.3, (count, 6))) > 0.3).astype(np.float64)

    return _tensors(*draw(size), *draw(1500))


def regression(size: int, rng: np.random.Generator) -> Tensors:
    """Friedman's first function with seven useless inputs, or the diabetes data set of scikit-learn."""
    if rng.random() < 0.3 and size <= 300:
        from sklearn import datasets

        x, y = datasets.load_diabetes(return_X_y=True)
        order = rng.permutation(len(x))
        x = np.pad(x[order] * 21, ((0, 0), (0, 2)))
        y = ((y[order] - 152) / 77)[:, None]
        return _tensors(x[:size], y[:size], x[300:], y[300:])

    def draw(count: int) -> tuple[np.ndarray, np.ndarray]:
        x = rng.random((count, 12))
        y = 10 * np.sin(np.pi * x[:, 0] * x[:, 1]) + 20 * (x[:, 2] - 0.5) ** 2 + 10 * x[:, 3] + 5 * x[:, 4]
        return 3.46 * (x - 0.5), ((y + rng.normal(0, 1.5, count) - 14.4) / 5)[:, None]

    return _tensors(*draw(size), *draw(1500))


def sequences(size: int, rng: np.random.Generator) -> Tensors:
    """MNIST read as 14 rows of 14 pixels."""
    x, y, tx, ty = mnist(size, rng)
    return x[:, 0], y, tx[:, 0], ty


def modular(size: int, rng: np.random.Generator) -> Tensors:
    """A + b modulo 31 from a and b: all pairs, a share of them to train on."""
    pairs = rng.permutation(31 * 31)
    x = np.stack([pairs // 31, 31 + pairs % 31], axis=1)
    y = (pairs // 31 + pairs % 31) % 31
    return _tensors(x[:size], y[:size], x[size:], y[size:])
