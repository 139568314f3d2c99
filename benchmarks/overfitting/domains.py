"""The domains and their families: which data meets which network."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import nn

from benchmarks.overfitting import data, networks

Load = Callable[[int, np.random.Generator], data.Tensors]


@dataclass(frozen=True)
class Domain:
    """One kind of data with one kind of network.

    Attributes:
        family: what is left out together when thresholds are tested.
        load: the data, by size.
        build: ``(width, dropout, seed) -> network``.
        task: ``classification``, ``multilabel``, ``language`` or ``regression``.
        sizes: training-set sizes of ordinary runs (lowest, highest).
        tiny: the same of tiny runs.
        widths: hidden widths.
        steps: most optimiser steps of a run, so that all domains cost about the same.
        classes: number of classes, for label noise.
    """

    family: str
    load: Load
    build: Callable[[int, float, int], nn.Module]
    task: str = "classification"
    sizes: tuple[int, int] = (600, 2500)
    tiny: tuple[int, int] = (60, 250)
    widths: tuple[int, ...] = (32, 64, 96)
    steps: int = 2500
    classes: int = 10
    augment: bool = False
    pretrained: bool = False


def _mlp(inputs: int, outputs: int, depth: int = 2) -> Callable[[int, float, int], nn.Module]:
    return lambda width, dropout, seed: networks.perceptron(inputs, outputs, width, dropout, depth)


def _cnn(norm: bool) -> Callable[[int, float, int], nn.Module]:
    return lambda width, dropout, seed: networks.convolutional(10, width, dropout, norm)


def _pretrain(model: nn.Module, tensors: data.Tensors, steps: int, seed: int) -> dict[str, torch.Tensor]:
    x, y, *_ = tensors
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    generator = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        batch = torch.randint(0, len(x), (48,), generator=generator)
        loss = nn.functional.cross_entropy(model(x[batch]).flatten(0, -2), y[batch].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return {k: v.clone() for k, v in model.state_dict().items()}


@lru_cache(maxsize=32)
def _image_weights(width: int, seed: int) -> dict[str, torch.Tensor]:
    torch.manual_seed(seed)
    tensors = data.mnist(4000, np.random.default_rng(seed), classes=(0, 1, 2, 3, 4))
    return _pretrain(networks.convolutional(10, width, 0.0, norm=False), tensors, 500, seed)


@lru_cache(maxsize=32)
def _text_weights(width: int, seed: int) -> dict[str, torch.Tensor]:
    torch.manual_seed(seed)
    tensors = data.language(6000, np.random.default_rng(seed), name="moby")
    return _pretrain(networks.Transformer(width, 0.0), tensors, 700, seed)


def _finetuned_image(width: int, dropout: float, seed: int) -> nn.Module:
    model = networks.convolutional(10, width, dropout, norm=False)
    state = _image_weights(width, seed % 2)
    head = max(int(k.split(".")[0]) for k in state)
    model.load_state_dict({k: v for k, v in state.items() if not k.startswith(f"{head}.")}, strict=False)
    return model


def _finetuned_text(width: int, dropout: float, seed: int) -> nn.Module:
    model = networks.Transformer(width, dropout, outputs=4, classify=True)
    state = _text_weights(width, seed % 2)
    model.load_state_dict({k: v for k, v in state.items() if not k.startswith("head")}, strict=False)
    return model


def _finetuned_language(width: int, dropout: float, seed: int) -> nn.Module:
    model = networks.Transformer(width, dropout)
    model.load_state_dict(_text_weights(width, seed % 2))
    return model


def _flat_mnist(size: int, rng: np.random.Generator) -> data.Tensors:
    return data.flat(data.mnist(size, rng))


def _other_digits(size: int, rng: np.random.Generator) -> data.Tensors:
    return data.mnist(size, rng, classes=(5, 6, 7, 8, 9))


DOMAINS = {
    "digits": Domain("image perceptrons", data.digits, _mlp(64, 10), sizes=(500, 1197)),
    "mnist": Domain("image perceptrons", _flat_mnist, _mlp(196, 10)),
    "cnn": Domain("convolutional", data.mnist, _cnn(False), steps=1200),
    "cnn batchnorm": Domain("convolutional", data.mnist, _cnn(True), steps=1000),
    "augmented": Domain("augmented", data.mnist, _cnn(False), steps=1200, augment=True),
    "fine-tuned images": Domain("fine-tuned images", _other_digits, _finetuned_image, steps=900,
                                tiny=(40, 150), classes=5, pretrained=True),
    "fine-tuned text": Domain("fine-tuned text", data.passages, _finetuned_text, steps=700, widths=(32, 48),
                              tiny=(60, 200), classes=4, pretrained=True),
    "language": Domain("language", data.language, lambda w, d, s: networks.Transformer(w, d, small=s % 2 == 1),
                       "language", sizes=(600, 1500), tiny=(40, 150), widths=(32, 48), steps=700,
                       classes=data.ALPHABET),
    "fine-tuned language": Domain("fine-tuned language", data.language, _finetuned_language, "language",
                                  sizes=(500, 1500), tiny=(40, 150), widths=(32, 48), steps=700,
                                  classes=data.ALPHABET, pretrained=True),
    "signals": Domain("signals", data.signals, lambda w, d, s: networks.convolutional_1d(5, w, d), steps=1200,
                      widths=(16, 32), classes=5),
    "tabular": Domain("tabular", data.tabular, _mlp(20, 3), classes=3),
    "multi-label": Domain("multi-label", data.multilabel, _mlp(24, 6), "multilabel", classes=2),
    "regression": Domain("regression", data.regression, _mlp(12, 1), "regression", tiny=(50, 200), classes=0),
    "lstm": Domain("recurrent", data.sequences, lambda w, d, s: networks.Recurrent(14, 10, w, d), steps=900,
                   widths=(32, 48)),
    "long dropout": Domain("long dropout", data.digits, _mlp(64, 10), sizes=(300, 1000), steps=4000),
    "grokking": Domain("grokking", data.modular, lambda w, d, s: networks.Pair(w), sizes=(500, 800),
                       tiny=(150, 300), widths=(64, 96), steps=4000, classes=31),
}  # fmt: skip


def build(name: str, width: int, dropout: float, seed: int) -> nn.Module:
    """The network of a run, its weights drawn from ``seed``."""
    return DOMAINS[name].build(width, dropout, seed)
