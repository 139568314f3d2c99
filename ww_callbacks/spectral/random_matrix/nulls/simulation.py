"""What quantities are on pure noise of a given shape, by simulation; run as a program it writes ``null_table.py``.

    python -m ww_callbacks.spectral.random_matrix.nulls.simulation

A draw costs O(M²) (``nulls.gaussian_eigenvalues``). Of α the transform ln(α − 1) is simulated, which is close to normal
where α itself is skewed; of a rank r the difference from the rank of the Marchenko–Pastur law's expected eigenvalues,
which is small and smooth in the shape, so that it can be interpolated.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np

from ww_callbacks.spectral.measuring.layer_weights import LayerWeights
from ww_callbacks.spectral.random_matrix.marchenko_pastur import Shape, expected_eigenvalues
from ww_callbacks.spectral.random_matrix.nulls.random_nulls import gaussian_eigenvalues, generator

SMALLER_SIDES = (16, 32, 64, 128, 256, 512, 1024, 2048, 4096)
"""M of the table."""

ASPECTS = (1.0, 1.05, 1.125, 1.25, 1.5, 2.0, 3.0, 4.0, 8.0, 16.0, 64.0)
"""Q = N/M of the table."""


def sample_of(eigenvalues: np.ndarray) -> LayerWeights:
    """A sample that has these eigenvalues and no weights, for the quantities that need no more than a spectrum."""
    sample = LayerWeights(())
    sample.singular_values = [np.sqrt(np.sort(eigenvalues)[::-1])]
    return sample


def _log_excess_of_alpha(sample: LayerWeights) -> float:
    return float(np.log(sample.power_law.alpha - 1))


@lru_cache(maxsize=1)
def measures() -> dict[str, Callable[[LayerWeights], float]]:
    """Quantity → what of it is close to normal on noise."""
    from ww_callbacks.spectral.quantities.ranks import effective_rank, participation_ratio, stable_rank

    return {
        "alpha": _log_excess_of_alpha,
        "effective_rank": lambda layer: effective_rank(layer.pooled_singular_values),
        "stable_rank": lambda layer: stable_rank(layer.pooled_singular_values),
        "participation_ratio": lambda layer: participation_ratio(layer.pooled_singular_values),
    }


def expected(name: str, shapes: Sequence[Shape]) -> float:
    """What the Marchenko–Pastur law alone expects: the rank of its quantiles; 0 for α, which quantiles do not fix."""
    if name == "alpha":
        return 0.0
    return float(measures()[name](sample_of(np.concatenate([expected_eigenvalues(shape) for shape in shapes]))))


def simulate(shapes: Sequence[Shape], draws: int, seed: int = 0) -> dict[str, tuple[float, float]]:
    """Mean and standard deviation over ``draws`` of every measure less its expectation, on Gaussian matrices.

    Args:
        shapes: shapes of the matrices whose eigenvalues are pooled; one matrix mostly.
        draws: number of draws; the mean's error is the standard deviation over √draws.
        seed: of the generator.

    Returns:
        Quantity → (mean, standard deviation); NaN where no draw has a value, as α of a single eigenvalue.
    """
    rng = generator(seed, *np.ravel(shapes).tolist())
    values: dict[str, list[float]] = {name: [] for name in measures()}
    for _ in range(draws):
        sample = sample_of(np.concatenate([gaussian_eigenvalues(shape, rng) for shape in shapes]))
        for name, measure in measures().items():
            values[name].append(measure(sample))
    found = {}
    for name, drawn in values.items():
        finite = [value for value in drawn if np.isfinite(value)]
        mean, std = (np.mean(finite), np.std(finite)) if finite else (np.nan, np.nan)
        found[name] = float(mean) - expected(name, shapes), float(std)
    return found


def _draws(smaller: int) -> int:
    """More draws where they are cheap; error of a mean 3 to 13 % of the standard deviation."""
    return int(np.clip(200_000 // smaller, 60, 1000))


def simulated_table() -> dict[str, list[list[tuple[float, float]]]]:
    """The whole grid: quantity → rows by M, columns by Q."""
    cells = [
        [simulate([(round(smaller * aspect), smaller)], _draws(smaller)) for aspect in ASPECTS]
        for smaller in SMALLER_SIDES
    ]
    return {name: [[cell[name] for cell in row] for row in cells] for name in measures()}


def as_source(table: dict[str, list[list[tuple[float, float]]]]) -> str:
    """The table as the text of a module."""
    lines = [
        '"""Written by ``random_matrix.nulls.simulation``, which says what it holds; do not edit."""',
        "",
        "# quantity -> rows by smaller side M, columns by aspect N/M: (mean, standard deviation) on Gaussian noise",
        "# fmt: off",
        "TABLE: dict[str, tuple[tuple[tuple[float, float], ...], ...]] = {",
    ]
    for name, rows in table.items():
        lines.append(f'    "{name}": (')
        for row in rows:
            pairs = [f"({mean:.5g}, {std:.4g})" for mean, std in row]
            packed = [f"            {', '.join(pairs[i : i + 4])}," for i in range(0, len(pairs), 4)]
            lines += ["        (", *packed, "        ),"]
        lines.append("    ),")
    return "\n".join([*lines, "}", "# fmt: on", ""])


if __name__ == "__main__":
    Path(__file__).with_name("null_table.py").write_text(as_source(simulated_table()))
