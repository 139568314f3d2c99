"""Training small torch models, without a framework."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch.nn.functional import cross_entropy


def flat_digits(seed: int = 0, noise: float = 0.0) -> tuple[torch.Tensor, ...]:
    """Standardised digits as vectors: training images and labels, test images and labels."""
    from examples.data import digits

    (train, train_labels), (test, test_labels) = digits(noise, seed)
    mean, std = train.mean(), train.std()
    return (
        torch.from_numpy((train.reshape(len(train), -1) - mean) / std),
        torch.from_numpy(train_labels),
        torch.from_numpy((test.reshape(len(test), -1) - mean) / std),
        torch.from_numpy(test_labels),
    )


def flat_mnist(folder: str | None) -> tuple[torch.Tensor, ...]:
    """Standardised MNIST as vectors: training images and labels, test images and labels."""
    from examples.data import mnist

    (train, train_labels), (test, test_labels) = mnist(folder)

    def flat(images: np.ndarray) -> torch.Tensor:
        return torch.from_numpy((images.reshape(len(images), -1) - 0.1307) / 0.3081).float()

    return flat(train), torch.from_numpy(train_labels), flat(test), torch.from_numpy(test_labels)


def accuracy(model: torch.nn.Module, images: torch.Tensor, labels: torch.Tensor) -> float:
    """Share of right answers, in evaluation mode."""
    return score(model, images, labels)[0]


@torch.no_grad()
def score(model: torch.nn.Module, images: torch.Tensor, labels: torch.Tensor) -> tuple[float, float]:
    """Accuracy and cross-entropy, in evaluation mode."""
    training = model.training
    model.eval()
    output = torch.cat([model(part) for part in images.split(1000)])
    model.train(training)
    return float((output.argmax(1) == labels).float().mean()), float(cross_entropy(output, labels))


def train(
    model: torch.nn.Module,
    images: torch.Tensor,
    labels: torch.Tensor,
    epochs: int,
    batch: int = 64,
    optimiser: torch.optim.Optimizer | None = None,
    loss: Callable[[torch.Tensor, torch.Tensor], torch.Tensor] = cross_entropy,
    penalty: Callable[[], torch.Tensor] | None = None,
    after_epoch: Callable[[int], None] | None = None,
    seed: int = 0,
) -> float:
    """Train in place with Adam (1e-3) or ``optimiser``; the mean loss of the last epoch."""
    optimiser = optimiser or torch.optim.Adam(model.parameters(), 1e-3)
    generator = torch.Generator().manual_seed(seed)
    mean = float("nan")
    for epoch in range(epochs):
        model.train()
        losses = []
        for rows in torch.randperm(len(images), generator=generator).split(batch):
            value = loss(model(images[rows]), labels[rows])
            losses.append(value.item())
            if penalty is not None:
                value = value + penalty()
            optimiser.zero_grad()
            value.backward()
            optimiser.step()
        mean = float(np.mean(losses))
        if after_epoch is not None:
            after_epoch(epoch + 1)
    model.eval()
    return mean
