"""Ranks of the Hessian of deep linear networks, measured and by formula (Singh, Bachmann, Hofmann 2021).

Published: 150 / 175 / 250 (outer product / functional / loss) of 275 parameters for widths [25, 5, 10, 10].
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch

from examples.reproductions._report import Report, arguments
from ww_callbacks.probes.hessian import hessian_ranks
from ww_callbacks.spectral.hessian_theory import linear_network_ranks

NETWORKS: tuple[tuple[list[int], int | None], ...] = (
    ([25, 5, 10, 10], None),
    ([12, 5, 7, 4], None),
    ([12, 6, 5, 7, 3], None),
    ([12, 8, 8, 4], 6),
    ([20, 6, 6], None),
    ([10, 12, 8], None),
)
LOSSES = ("squared", "cosh", "cross-entropy")
INITIALISATIONS = ("default uniform", "Gaussian 1/fan-in", "orthogonal")


def network(widths: Sequence[int], initialisation: str, seed: int, tanh: bool = False) -> torch.nn.Module:
    """A linear network without bias (or one with tanh between), in float64."""
    layers: list[torch.nn.Module] = []
    generator = torch.Generator().manual_seed(seed)
    for inputs, outputs in pairwise(widths):
        layer = torch.nn.Linear(inputs, outputs, bias=False, dtype=torch.float64)
        bound = inputs**-0.5
        with torch.no_grad():
            if initialisation == "default uniform":
                layer.weight.uniform_(-bound, bound, generator=generator)
            elif initialisation == "Gaussian 1/fan-in":
                layer.weight.normal_(0, bound, generator=generator)
            else:
                torch.nn.init.orthogonal_(layer.weight, generator=generator)
        layers += [layer, torch.nn.Tanh()] if tanh else [layer]
    return torch.nn.Sequential(*(layers[:-1] if tanh else layers))


def batch(widths: Sequence[int], rank: int | None, loss: str, n: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Gaussian inputs of the given rank, with random targets."""
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(n, rank or widths[0], dtype=torch.float64, generator=generator)
    if rank is not None:
        inputs = inputs @ torch.randn(rank, widths[0], dtype=torch.float64, generator=generator)
    if loss == "cross-entropy":
        return inputs, torch.randint(0, widths[-1], (n,), generator=generator)
    return inputs, torch.randn(n, widths[-1], dtype=torch.float64, generator=generator)


def main(argv: Sequence[str] | None = None) -> dict:
    args = arguments(__doc__, argv)
    torch.set_num_threads(args.threads)
    networks = NETWORKS[:2] if args.quick else NETWORKS
    n = 50
    report = Report(
        "hessian_rank",
        "Hessian rank of deep linear networks",
        {"samples": n, "precision": "float64", "threshold": "P·2.2e-16·|λ|max", "seed": args.seed},
    )
    rows, wrong = [], 0
    for widths, rank in networks:
        for loss in LOSSES:
            theory = linear_network_ranks(widths, rank, "cross-entropy" if loss == "cross-entropy" else "squared")
            for initialisation in INITIALISATIONS:
                inputs, targets = batch(widths, rank, loss, n, args.seed)
                found = hessian_ranks(network(widths, initialisation, args.seed), inputs, targets, loss)
                exact = (found.outer, found.functional, found.loss) == (theory.outer, theory.functional, theory.loss)
                wrong += not exact
                rows.append(
                    {
                        "widths": str(widths),
                        "rank of inputs": rank or widths[0],
                        "loss": loss,
                        "initialisation": initialisation,
                        "measured (outer / functional / loss)": f"{found.outer} / {found.functional} / {found.loss}",
                        "formula": f"{theory.outer} / {theory.functional} / {theory.loss}",
                        "parameters": found.parameters,
                        "equal": "yes" if exact else "no",
                    }
                )
    report.text("Published for [25, 5, 10, 10] with the squared loss: **150 / 175 / 250** of 275 parameters.")
    report.table("linear", rows, f"Linear networks: measured against the formulas ({wrong} of {len(rows)} differ)")
    report.text(
        "The formula for cross-entropy puts K − 1 for K, since adding a constant to all logits changes nothing; "
        "cosh has the ranks of the squared loss."
    )
    extra = []
    for widths, _ in networks:
        inputs, targets = batch(widths, None, "squared", n, args.seed)
        found = hessian_ranks(network(widths, "default uniform", args.seed, tanh=True), inputs, targets, "squared")
        theory = linear_network_ranks(widths)
        extra.append(
            {
                "widths": str(widths),
                "tanh: outer / functional / loss": f"{found.outer} / {found.functional} / {found.loss}",
                "linear formula": f"{theory.outer} / {theory.functional} / {theory.loss}",
                "parameters": found.parameters,
            }
        )
    report.table("tanh", extra, "The same networks with tanh, where the formulas do not hold exactly")
    single = []
    for widths, rank in networks:
        inputs, targets = batch(widths, rank, "squared", n, args.seed)
        model = network(widths, "default uniform", args.seed).float()
        low = _float32_rank(model, inputs, targets)
        single.append({"widths": str(widths), "float32": low, "formula": linear_network_ranks(widths, rank).loss})
    report.table(
        "float32",
        single,
        "Rank of the loss Hessian computed in float32, at float32's threshold: close, and not always right",
    )
    report.numbers["wrong"] = wrong
    report.write(args.out)
    return report.numbers


def _float32_rank(model: torch.nn.Module, inputs: torch.Tensor, targets: torch.Tensor) -> int:
    """What a plain autograd Hessian in the model's own precision gives."""
    parameters = dict(model.named_parameters())
    sizes = [p.numel() for p in parameters.values()]

    def loss(vector: torch.Tensor) -> torch.Tensor:
        parts = vector.split(sizes)
        given = {k: part.view_as(p) for (k, p), part in zip(parameters.items(), parts, strict=True)}
        output = torch.func.functional_call(model, given, (inputs.float(),))
        return 0.5 * (output - targets.float()).square().sum(1).mean()

    theta = torch.cat([p.detach().reshape(-1) for p in parameters.values()])
    hessian = torch.autograd.functional.hessian(loss, theta)
    eigenvalues = torch.linalg.eigvalsh(hessian).abs()
    return int((eigenvalues >= len(theta) * torch.finfo(torch.float32).eps * eigenvalues.max()).sum())


if __name__ == "__main__":
    main()
