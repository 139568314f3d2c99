"""The domains: real data and the small network that learns it."""

from __future__ import annotations

import gzip
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from torch import nn

CONTEXT = 32
"""Characters that the transformer reads at a time."""

WINDOW = 10
"""Characters that the window model reads before the one it predicts."""


@dataclass(frozen=True)
class Domain:
    """One kind of data with one kind of network.

    Attributes:
        load: ``(train_size, rng) -> (train_x, train_y, test_x, test_y)``.
        network: ``(width, dropout) -> module`` whose output's last axis holds the class scores.
        classes: number of classes.
        sizes: training-set sizes (lower, upper) of ordinary runs.
        tiny: training-set sizes (lower, upper) of the runs on a tiny subset.
        widths: hidden widths to draw from.
        epochs: numbers of epochs to draw from.
        noise_epochs: numbers of epochs for runs that are to overtrain.
        noise_sizes: training-set sizes of runs with label noise.
    """

    load: Callable[[int, np.random.Generator], tuple[torch.Tensor, ...]]
    network: Callable[[int, float], nn.Module]
    classes: int
    sizes: tuple[int, int]
    tiny: tuple[int, int]
    widths: tuple[int, ...]
    epochs: tuple[int, ...]
    noise_epochs: tuple[int, ...]
    noise_sizes: tuple[int, int]


def _data_folder() -> Path:
    folder = os.environ.get("WW_CALLBACKS_DATA", "")
    if not folder or not Path(folder).is_dir():
        raise FileNotFoundError(
            "The MNIST and Moby-Dick domains read the folder that the environment variable WW_CALLBACKS_DATA names "
            "(mnist/*.gz in the IDX format, text/moby-dick.txt.gz); it is not set or does not exist."
        )
    return Path(folder)


@lru_cache(maxsize=1)
def _mnist() -> tuple[np.ndarray, ...]:
    folder = _data_folder() / "mnist"

    def read(name: str, header: int) -> np.ndarray:
        with gzip.open(folder / name) as file:
            return np.frombuffer(file.read(), np.uint8)[header:]

    train_x = read("train-images-idx3-ubyte.gz", 16).reshape(-1, 28, 28)
    test_x = read("t10k-images-idx3-ubyte.gz", 16).reshape(-1, 28, 28)
    return train_x, read("train-labels-idx1-ubyte.gz", 8), test_x, read("t10k-labels-idx1-ubyte.gz", 8)


def _tensors(
    train_x: np.ndarray, train_y: np.ndarray, test_x: np.ndarray, test_y: np.ndarray
) -> tuple[torch.Tensor, ...]:
    return (
        torch.from_numpy(np.ascontiguousarray(train_x, dtype=np.float32)),
        torch.from_numpy(train_y.astype(np.int64)),
        torch.from_numpy(np.ascontiguousarray(test_x, dtype=np.float32)),
        torch.from_numpy(test_y.astype(np.int64)),
    )


def load_digits(size: int, rng: np.random.Generator) -> tuple[torch.Tensor, ...]:
    """scikit-learn's 1797 images of 8×8."""
    from sklearn import datasets

    x, y = datasets.load_digits(return_X_y=True)
    order = rng.permutation(len(x))
    x, y = (x[order] / 16 - 0.305) / 0.376, y[order]
    return _tensors(x[:size], y[:size], x[1197:], y[1197:])


def load_mnist(size: int, rng: np.random.Generator) -> tuple[torch.Tensor, ...]:
    """A subset of MNIST, flat 28×28 images, 2,000 to test on."""
    train_x, train_y, test_x, test_y = _mnist()
    i, j = rng.permutation(len(train_x))[:size], rng.permutation(len(test_x))[:2000]
    scale = lambda x: (x.reshape(len(x), -1) / 255 - 0.1307) / 0.3081  # noqa: E731
    return _tensors(scale(train_x[i]), train_y[i], scale(test_x[j]), test_y[j])


def load_mnist_images(size: int, rng: np.random.Generator) -> tuple[torch.Tensor, ...]:
    """The same as 14×14 images (means of 2×2 pixels) with a channel axis."""
    out = list(load_mnist(size, rng))
    for k in (0, 2):
        out[k] = out[k].reshape(-1, 1, 14, 2, 14, 2).mean(dim=(3, 5)).contiguous()
    return tuple(out)


@lru_cache(maxsize=2)
def _text(name: str) -> tuple[np.ndarray, int]:
    """Characters as numbers: the 63 most common ones, everything else as one more."""
    if name == "pydoc":
        from pydoc_data.topics import topics

        text = "\n".join(topics[key] for key in sorted(topics))
    else:
        with gzip.open(_data_folder() / "text" / "moby-dick.txt.gz", "rt", encoding="utf-8") as file:
            text = file.read()
    codes = np.frombuffer(text.encode("utf-32-le"), np.uint32)
    values, inverse, counts = np.unique(codes, return_inverse=True, return_counts=True)
    rank = np.full(len(values), 63)
    rank[np.argsort(-counts)[:63]] = np.arange(min(63, len(values)))
    return rank[inverse], 64


def _pieces(
    name: str, rng: np.random.Generator, size: int, length: int, tested: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """``size`` training and ``tested`` test pieces of ``length`` + 1 characters from separate parts of the text."""
    text, _ = _text(name)
    split = int(0.8 * len(text))
    block = size * length if length > WINDOW else size
    start = int(rng.integers(0, max(1, split - block - length - 1)))
    stride = length if length > WINDOW else 1
    train = np.stack([text[start + k * stride : start + k * stride + length + 1] for k in range(size)])
    at = split + rng.permutation(len(text) - split - length - 1)[:tested]
    test = np.stack([text[k : k + length + 1] for k in at])
    return torch.from_numpy(train.astype(np.int64)), torch.from_numpy(test.astype(np.int64))


def load_pydoc(size: int, rng: np.random.Generator) -> tuple[torch.Tensor, ...]:
    """Pieces of CPython's own documentation, every next character to be predicted."""
    train, test = _pieces("pydoc", rng, size, CONTEXT, 300)
    return train[:, :-1], train[:, 1:], test[:, :-1], test[:, 1:]


def load_moby(size: int, rng: np.random.Generator) -> tuple[torch.Tensor, ...]:
    """Windows of Moby-Dick, the character after them to be predicted."""
    train, test = _pieces("moby", rng, size, WINDOW, 3000)
    return train[:, :-1], train[:, -1], test[:, :-1], test[:, -1]


def perceptron(inputs: int) -> Callable[[int, float], nn.Module]:
    """inputs-width-width-10, ReLU."""

    def build(width: int, dropout: float) -> nn.Module:
        return nn.Sequential(
            nn.Linear(inputs, width), nn.ReLU(), nn.Dropout(dropout),
            nn.Linear(width, width), nn.ReLU(), nn.Dropout(dropout),
            nn.Linear(width, 10),
        )  # fmt: skip

    return build


def convolutional(width: int, dropout: float) -> nn.Module:
    """Two convolutions, two dense layers."""
    return nn.Sequential(
        nn.Conv2d(1, width // 4, 3, stride=2, padding=1), nn.ReLU(),
        nn.Conv2d(width // 4, width // 2, 3, stride=2, padding=1), nn.ReLU(), nn.Flatten(), nn.Dropout(dropout),
        nn.Linear(width // 2 * 16, width), nn.ReLU(), nn.Dropout(dropout), nn.Linear(width, 10),
    )  # fmt: skip


class Transformer(nn.Module):
    """Two pre-norm blocks of causal attention and a perceptron."""

    def __init__(self, width: int, dropout: float):
        super().__init__()
        self.embedding = nn.Embedding(64, width)
        self.position = nn.Parameter(torch.randn(CONTEXT, width) * 0.02)
        self.blocks = nn.ModuleList(Block(width, dropout) for _ in range(2))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, 64)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Scores of the next character at every place: (batch, length) → (batch, length, 64)."""
        h = self.embedding(x) + self.position[: x.shape[1]]
        for block in self.blocks:
            h = block(h)
        return self.head(self.norm(h))


class Block(nn.Module):
    """One block of the transformer."""

    def __init__(self, width: int, dropout: float, heads: int = 4):
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.query, self.key, self.value, self.out = (nn.Linear(width, width) for _ in range(4))
        self.up, self.down = nn.Linear(width, 3 * width), nn.Linear(3 * width, width)
        self.drop = nn.Dropout(dropout)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(batch, length, width) → the same."""
        h = self.norm1(x)
        q, k, v = (f(h).unflatten(-1, (self.heads, -1)).transpose(1, 2) for f in (self.query, self.key, self.value))
        a = nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.drop(self.out(a.transpose(1, 2).flatten(2)))
        return x + self.drop(self.down(torch.relu(self.up(self.norm2(x)))))


def tied_transformer(width: int, dropout: float) -> nn.Module:
    """The transformer with one matrix for its embedding and its output."""
    model = Transformer(width, dropout)
    nn.init.normal_(model.embedding.weight, std=0.02)
    model.head.weight = model.embedding.weight
    return model


def window_model(width: int, dropout: float) -> nn.Module:
    """A neural language model over a window of characters (Bengio et al. 2003)."""
    return nn.Sequential(
        nn.Embedding(64, 20), nn.Flatten(), nn.Linear(20 * WINDOW, width), nn.Tanh(), nn.Dropout(dropout),
        nn.Linear(width, width), nn.Tanh(), nn.Dropout(dropout), nn.Linear(width, 64),
    )  # fmt: skip


DOMAINS = {
    "digits": Domain(
        load_digits, perceptron(64), 10, (700, 1197), (100, 250), (64, 100, 128), (30, 40, 60), (40, 60), (700, 1197)
    ),
    "mnist": Domain(
        load_mnist, perceptron(784), 10, (1500, 4000), (150, 400), (64, 100, 128), (20, 30, 40), (30, 40), (1200, 2500)
    ),
    "pydoc": Domain(
        load_pydoc, Transformer, 64, (1000, 1800), (60, 120), (48, 64), (16, 24), (40, 60), (150, 300)
    ),
    "tied": Domain(
        load_pydoc, tied_transformer, 64, (1000, 1800), (60, 120), (48, 64), (16, 24), (40, 60), (150, 300)
    ),
    "cnn": Domain(
        load_mnist_images, convolutional, 10, (1500, 3500), (150, 400), (64, 96), (20, 30), (30, 40), (1200, 2500)
    ),
    "moby": Domain(
        load_moby, window_model, 64, (30000, 60000), (1500, 3000), (96, 128), (15, 20), (30, 50), (3000, 6000)
    ),
}  # fmt: skip
"""`digits`, `mnist` and `pydoc` were used to tune; `cnn` and `moby` were not touched by any tuning, and `tied` is there
to see what becomes of a language model whose output layer is its embedding."""
