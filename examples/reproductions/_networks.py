"""Small networks for digits: an MLP, a residual CNN and a transformer."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn


def mlp(width: int = 100, depth: int = 5, inputs: int = 64, classes: int = 10) -> nn.Sequential:
    """``depth`` dense layers with ReLU, and a head."""
    layers: list[nn.Module] = []
    for i in range(depth):
        layers += [nn.Linear(width if i else inputs, width), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(width, classes))


class Residual(nn.Module):
    """x + F(x) with two 3×3 convolutions and batch norms in F."""

    def __init__(self, channels: int):
        super().__init__()
        self.branch = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(channels),
            nn.ReLU(),
            nn.Conv2d(channels, channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(channels),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(x + self.branch(x))


class ResidualCNN(nn.Module):
    """A stem, residual blocks with 2×2 pooling after each third, global mean and a head, for 8×8 images."""

    def __init__(self, channels: int = 16, blocks: int = 6):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels), nn.ReLU())
        self.blocks = nn.ModuleList(Residual(channels) for _ in range(blocks))
        self.pool = nn.MaxPool2d(2)
        self.head = nn.Linear(channels, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x.reshape(-1, 1, 8, 8))
        third = len(self.blocks) // 3
        for i, block in enumerate(self.blocks):
            x = block(self.pool(x) if i in (third, 2 * third) else x)
        return self.head(x.mean((2, 3)))


class Transformer(nn.Module):
    """Sixteen 2×2 patches of an 8×8 image as tokens, pre-norm encoder layers, mean over tokens and a head."""

    def __init__(self, width: int = 32, layers: int = 4):
        super().__init__()
        self.embed = nn.Linear(4, width)
        self.place = nn.Parameter(0.1 * torch.randn(16, width))
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(width, 4, 2 * width, dropout=0.0, batch_first=True, norm_first=True)
            for _ in range(layers)
        )
        self.head = nn.Linear(width, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        tokens = x.reshape(-1, 4, 2, 4, 2).transpose(2, 3).reshape(-1, 16, 4)
        x = self.embed(tokens) + self.place
        for layer in self.layers:
            x = layer(x)
        return self.head(x.mean(1))


def stages(model: nn.Module) -> list[tuple[str, nn.Module]]:
    """The modules whose outputs mark the depth of one of these networks, the head last."""
    if isinstance(model, ResidualCNN):
        return [
            ("stem", model.stem),
            *((f"block {i + 1}", b) for i, b in enumerate(model.blocks)),
            ("head", model.head),
        ]
    if isinstance(model, Transformer):
        layers = [(f"layer {i + 1}", layer) for i, layer in enumerate(model.layers)]
        return [("embedding", model.embed), *layers, ("head", model.head)]
    assert isinstance(model, nn.Sequential)
    hidden = [m for m in model if isinstance(m, nn.ReLU)]
    return [*((f"layer {i + 1}", m) for i, m in enumerate(hidden)), ("head", model[-1])]


def seeded(make: Callable[[], nn.Module], seed: int) -> nn.Module:
    """``make()`` with its own random state."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return make()
