"""Products of Gaussian matrices: every singular value but the first vanishes exponentially in depth (Feng et al. 2022).

Published: (σ_k/σ_1)^{1/L} → exp ½(ψ((d−k+1)/2) − ψ(d/2)); the features of a 50-layer Gaussian MLP lose dimension
likewise.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import nn

from examples.reproductions._report import Report, arguments
from ww_callbacks.probes.torch_driver import TorchDriver
from ww_callbacks.spectral.representation import (
    FLOAT32_EPS,
    gaussian_product_lyapunov,
    gaussian_product_ratio,
    perturbed_pca_dimension,
    simulate_gaussian_product,
)


def gaussian_mlp(width: int, depth: int, relu: bool, seed: int) -> nn.Sequential:
    """``depth`` square layers without bias, entries N(0, 1/width), or N(0, 2/width) with ReLU between."""
    generator = torch.Generator().manual_seed(seed)
    layers: list[nn.Module] = []
    for _ in range(depth):
        layer = nn.Linear(width, width, bias=False, dtype=torch.float64)
        with torch.no_grad():
            layer.weight.normal_(0, ((2 if relu else 1) / width) ** 0.5, generator=generator)
        layers += [layer, nn.ReLU()] if relu else [layer]
    return nn.Sequential(*layers)


def dimension_by_layer(model: nn.Module, width: int, n: int, seed: int) -> dict[str, float]:
    """Perturbed PCA dimension of every layer's features at one Gaussian point."""
    generator = torch.Generator().manual_seed(seed)
    point = torch.randn(1, width, dtype=torch.float64, generator=generator)
    (features,) = TorchDriver(model).perturbed_features(point, n, 1e-3, seed, memory=8e9)
    return {name: perturbed_pca_dimension(f) for name, f in features.items()}


def theoretical_dimension(width: int, depth: int, n: int) -> int:
    """How many λ = σ² of the law are above the threshold 1.19e-7·n of the perturbed PCA, at that depth."""
    rates = gaussian_product_lyapunov(width)
    return int(np.count_nonzero(2 * depth * (rates - rates[0]) >= np.log(FLOAT32_EPS * n)))


def main(argv: Sequence[str] | None = None) -> dict:
    args = arguments(__doc__, argv)
    torch.set_num_threads(args.threads)
    widths = (2, 4, 8) if args.quick else (2, 4, 8, 16, 64)
    depth, repeats = (200, 2) if args.quick else (2000, 8)
    width, layers, n = (24, 50, 400) if args.quick else (128, 50, 5000)
    report = Report(
        "gaussian_products",
        "Products of Gaussian matrices",
        {
            "depth of the products": depth,
            "repeats": repeats,
            "MLP": f"{layers} layers of {width}",
            "n": n,
            "seed": args.seed,
        },
    )
    rows, lines, worst = [], {}, 0.0
    for d in widths:
        found = np.mean(
            [simulate_gaussian_product(d, depth, np.random.default_rng(args.seed + r)) for r in range(repeats)], axis=0
        )
        theory, ratio = gaussian_product_lyapunov(d), gaussian_product_ratio(d)
        measured = np.exp(found - found[0])
        worst = max(worst, float(np.abs(measured - ratio).max()))
        for k in sorted({0, 1, d // 2, d - 2, d - 1} & set(range(d))):
            rows.append(
                {
                    "d": d,
                    "k": k + 1,
                    "(σ_k/σ_1)^(1/L), law": ratio[k],
                    "simulated": measured[k],
                    "ln σ_k/L, law": theory[k],
                    "simulated ": found[k],
                }
            )
        index = (np.arange(d) + 1) / d
        lines[f"law, d={d}"] = (index, ratio)
        lines[f"simulated, d={d}"] = (index, measured)
    report.table("law", rows, f"The law against simulation (largest difference of a ratio: {worst:.2g})")
    report.figure("law", "(σ_k/σ_1)^(1/L)", "k/d", "ratio a layer", lines)
    report.text(
        "The largest singular value itself grows as exp L·½(ln 2 + ψ(d/2)), about d^{L/2} (first row of each d), so a "
        "product overflows long before its rank is judged; the simulation therefore factorises after each layer."
    )
    depths = [1, 2, 5, 10, 20, 30, 40, 50]
    linear = list(dimension_by_layer(gaussian_mlp(width, layers, False, args.seed), width, n, args.seed).values())
    relu = list(dimension_by_layer(gaussian_mlp(width, layers, True, args.seed), width, n, args.seed).values())
    report.table(
        "mlp",
        [
            {
                "layer": at,
                "linear": linear[at - 1],
                "law": theoretical_dimension(width, at, n),
                "ReLU": relu[at - 1],
            }
            for at in depths
        ],
        f"Perturbed PCA dimension of the features of an untrained MLP of {layers} layers, width {width}",
    )
    x = list(range(1, layers + 1))
    report.figure(
        "mlp",
        "Feature dimension by depth",
        "layer",
        "perturbed PCA dimension",
        {
            "linear": (x, linear),
            "law": (x, [theoretical_dimension(width, at, n) for at in x]),
            "ReLU": (x, relu),
        },
    )
    report.text(
        "The law is that of infinite depth and infinitely many perturbations: at few layers the counts differ from it. "
        "Features are read before the ReLU. Differences from the paper: a smaller width, and one point."
    )
    report.numbers["largest difference"] = worst
    report.write(args.out)
    return report.numbers


if __name__ == "__main__":
    main()
