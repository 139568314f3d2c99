"""How often the evidence for α is called sufficient on noise of independent entries, which has no tail to speak of."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from ww_callbacks.spectral.measuring.layer_weights import LayerWeights
from ww_callbacks.spectral.quantities.tail.power_law import alpha_evidence

SHAPES = ((300, 100), (256, 256), (128, 512), (64, 64))
MATRICES = 40
"""Of each kind, over the shapes in turn."""


def kinds(rng: np.random.Generator, shape: tuple[int, int]) -> Iterator[tuple[str, np.ndarray]]:
    """One matrix of each kind of independent noise, with its name."""
    rows, columns = shape
    normal = rng.standard_normal
    blocks = np.ones(shape)
    blocks[: rows // 3, : columns // 2], blocks[rows // 3 :, columns // 2 :] = 3.0, 0.3
    by_row, by_column = rng.lognormal(size=(rows, 1)), rng.lognormal(size=(1, columns))
    yield "gaussian", normal(shape)
    yield "uniform", rng.uniform(-1.0, 1.0, shape)
    yield "signs", rng.choice([-1.0, 1.0], shape)
    yield "laplace", rng.laplace(size=shape)
    yield "exponential", rng.exponential(size=shape)
    yield "log-normal", rng.lognormal(size=shape)
    yield "log-normal, signed", rng.lognormal(size=shape) * rng.choice([-1.0, 1.0], shape)
    for freedom in (3.0, 2.0, 1.5):
        yield f"Student, ν = {freedom:g}", rng.standard_t(freedom, shape)
    for share in (0.9, 0.95):
        yield f"{share:.0%} zeros", normal(shape) * (rng.random(shape) >= share)
    yield "rows of unequal variance", normal(shape) * by_row
    yield "columns of unequal variance", normal(shape) * by_column
    yield "rows and columns of unequal variance", normal(shape) * by_row * by_column
    yield "rows of unequal variance and mean", rng.lognormal(size=shape) * by_row
    yield "rows of Pareto variance", normal(shape) * (1.0 + rng.pareto(2.0, (rows, 1)))
    yield "half of the rows zero", normal(shape) * (rng.random((rows, 1)) < 0.5)
    yield "blocks of unequal variance", normal(shape) * blocks
    yield "gaussian with a mean", 0.3 + normal(shape)


def measure() -> tuple[list[dict[str, Any]], dict[str, float]]:
    """The share of each kind, and the worst of them."""
    reasons: dict[str, list[str]] = {}
    for seed in range(MATRICES):
        for name, matrix in kinds(np.random.default_rng(seed), SHAPES[seed % len(SHAPES)]):
            reasons.setdefault(name, []).append(alpha_evidence(LayerWeights([matrix.astype(np.float32)])))
    shares = {name: found.count("sufficient") / len(found) for name, found in reasons.items()}
    rows = [{"part": "noise", "kind": name, "matrices": MATRICES, "sufficient": s} for name, s in shares.items()]
    return rows, {"noise_sufficient_worst": max(shares.values())}
