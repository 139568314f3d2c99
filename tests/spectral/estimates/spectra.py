"""Spectra to estimate, as σ in descending order: trained ones, random ones, and awkward ones."""

from __future__ import annotations

import numpy as np

SIDE = 640


def spectra(side: int = SIDE) -> dict[str, np.ndarray]:
    """Name → σ."""
    i = np.arange(1, side + 1)
    rng = np.random.default_rng(0)
    found = {
        "random, square": np.linalg.svd(rng.standard_normal((side, side)), compute_uv=False),
        "random, 4 to 1": np.linalg.svd(rng.standard_normal((4 * side, side)), compute_uv=False),
        "power law": i**-0.5,
        "heavy": rng.pareto(2.0, side) + 0.05,
        "uniform": i / side,
        "wide": np.exp(-8.0 * i / side),
        "one spike": np.where(i == 1, 30.0, 1.0) * (1.0 + 0.1 * rng.random(side)),
        "crowd at the top": np.where(i <= 40, 1.0 + 1e-4 * i, 0.5 * i / side),
        "at random places": rng.random(side) ** 0.5,
        "half of it zero": np.where(i < side / 2, 1.0 + i / side, 0.0),
        "nearly equal": 1.0 + 1e-3 * i / side,
        "too wide for float32": i**-1.5,
    }
    return {name: np.sort(values)[::-1] for name, values in found.items()}


def matrix(singular_values: np.ndarray) -> np.ndarray:
    """A matrix with these σ; the start of Lanczos is Gaussian, so that singular vectors make no difference."""
    return np.diag(singular_values).astype(np.float32)
