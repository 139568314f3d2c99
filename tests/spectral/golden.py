"""Golden values of WeightWatcher 0.7.7, and the inputs that they were made from."""

import json
from functools import cache
from pathlib import Path
from statistics import NormalDist

import numpy as np

PATH = Path(__file__).parents[1] / "data" / "weightwatcher-0.7.7.json"


@cache
def golden() -> dict:
    return json.loads(PATH.read_text())


def quantiles(key: str) -> np.ndarray:
    """Exact quantiles of the law that a key of ``wwfit`` names."""
    size = int(key.split("n=")[1])
    u = (np.arange(1, size + 1) - 0.5) / size
    if key.startswith("pareto"):
        alpha = float(key.split("a=")[1].split()[0])
        return (1.0 - u) ** (-1.0 / (alpha - 1.0))
    return np.exp([NormalDist().inv_cdf(p) for p in u])


def matrix(key: str) -> np.ndarray:
    """The matrix of the shape that a key of ``matrix`` names."""
    rows, columns = (int(side) for side in key.split("x"))
    i, j = np.mgrid[:rows, :columns]
    return ((np.sin(12.9898 * i + 78.233 * j) * 43758.5453) % 1.0 - 0.5).astype(np.float32)


def power_law(alpha: float, rows: int = 400, columns: int = 300) -> np.ndarray:
    """A matrix whose eigenvalues have a power law's quantiles and whose singular vectors are random."""
    rng = np.random.default_rng(0)
    left, right = (np.linalg.qr(rng.standard_normal((side, columns)))[0] for side in (rows, columns))
    return (left * np.sqrt(quantiles(f"pareto a={alpha} n={columns}"))) @ right.T
