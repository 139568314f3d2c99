"""The small networks."""

from __future__ import annotations

import torch
from torch import nn

from benchmarks.overfitting.data import ALPHABET, CONTEXT


def perceptron(inputs: int, outputs: int, width: int, dropout: float, depth: int = 2) -> nn.Module:
    """inputs-width-…-outputs, ReLU."""
    layers: list[nn.Module] = []
    for k in range(depth):
        layers += [nn.Linear(width if k else inputs, width), nn.ReLU(), nn.Dropout(dropout)]
    return nn.Sequential(*layers, nn.Linear(width, outputs))


def convolutional(outputs: int, width: int, dropout: float, norm: bool) -> nn.Module:
    """Two convolutions, with BatchNorm or without, two dense layers."""
    a, b = width // 4, width // 2
    return nn.Sequential(
        nn.Conv2d(1, a, 3, stride=2, padding=1, bias=not norm), nn.BatchNorm2d(a) if norm else nn.Identity(), nn.ReLU(),
        nn.Conv2d(a, b, 3, stride=2, padding=1, bias=not norm), nn.BatchNorm2d(b) if norm else nn.Identity(), nn.ReLU(),
        nn.Flatten(), nn.Dropout(dropout), nn.Linear(b * 16, width), nn.ReLU(), nn.Linear(width, outputs),
    )  # fmt: skip


def convolutional_1d(outputs: int, width: int, dropout: float) -> nn.Module:
    """Two 1-D convolutions, global pooling, two dense layers."""
    return nn.Sequential(
        nn.Conv1d(1, width // 2, 7, stride=2, padding=3), nn.ReLU(),
        nn.Conv1d(width // 2, width, 5, stride=2, padding=2), nn.ReLU(), nn.AdaptiveMaxPool1d(4), nn.Flatten(),
        nn.Dropout(dropout), nn.Linear(4 * width, width), nn.ReLU(), nn.Linear(width, outputs),
    )  # fmt: skip


class Block(nn.Module):
    """A pre-norm block: attention and a perceptron."""

    def __init__(self, width: int, dropout: float, causal: bool) -> None:
        super().__init__()
        self.causal = causal
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 3 * width), nn.Linear(3 * width, width)
        self.drop = nn.Dropout(dropout)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(batch, length, width) → the same."""
        q, k, v = (a.unflatten(-1, (2, -1)).transpose(1, 2) for a in self.qkv(self.norm1(x)).chunk(3, dim=-1))
        a = nn.functional.scaled_dot_product_attention(q, k, v, is_causal=self.causal)
        x = x + self.drop(self.out(a.transpose(1, 2).flatten(2)))
        return x + self.drop(self.down(torch.relu(self.up(self.norm2(x)))))


class Transformer(nn.Module):
    """A causal language model, or a classifier of texts (mean over the places)."""

    def __init__(
        self, width: int, dropout: float, outputs: int = ALPHABET, classify: bool = False, small: bool = False
    ):
        super().__init__()
        self.classify = classify
        self.embedding = nn.Embedding(ALPHABET, width)
        self.position = nn.Parameter(torch.randn(CONTEXT, width) * 0.02)
        self.blocks = nn.ModuleList(Block(width, dropout, not classify) for _ in range(2))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, outputs)
        if small:  # GPT-2's start
            for module in self.modules():
                if isinstance(module, nn.Linear | nn.Embedding):
                    nn.init.normal_(module.weight, std=0.02)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Scores: (batch, length) → (batch, length, outputs), or (batch, outputs)."""
        h = self.embedding(x) + self.position[: x.shape[1]]
        for block in self.blocks:
            h = block(h)
        h = self.norm(h)
        return self.head(h.mean(dim=1) if self.classify else h)


class Recurrent(nn.Module):
    """An LSTM over a sequence and a dense layer on its last state."""

    def __init__(self, inputs: int, outputs: int, width: int, dropout: float) -> None:
        super().__init__()
        self.lstm = nn.LSTM(inputs, width, batch_first=True)
        self.drop, self.head = nn.Dropout(dropout), nn.Linear(width, outputs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(batch, length, inputs) → (batch, outputs)."""
        return self.head(self.drop(self.lstm(x)[0][:, -1]))


class Pair(nn.Module):
    """Two embedded symbols and a perceptron, for modular addition."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(62, 24)
        self.rest = nn.Sequential(nn.Linear(48, width), nn.ReLU(), nn.Linear(width, 31))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(batch, 2) → (batch, 31)."""
        return self.rest(self.embedding(x).flatten(1))
