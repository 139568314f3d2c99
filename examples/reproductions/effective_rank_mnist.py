"""Effective rank of the 1000×1000 layer of an MNIST network, per epoch, and what it says about compression.

Published: dropout baseline 728.74 (98.09 %, loss .0613), L2 395.69 (98.24 %, .0593), L1 111.21 (98.22 %, .0618).
"""

from __future__ import annotations

import argparse
import tempfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import torch
from torch import nn

from examples.reproductions._lightning import Rows
from examples.reproductions._lightning import fit as train_watched
from examples.reproductions._report import Report, arguments
from examples.reproductions._training import flat_digits, flat_mnist, score
from ww_callbacks.spectral.compression import compression_table, randomised_svd, suggest_ranks, truncated_svd
from ww_callbacks.spectral.linalg.spectrum import singular_values


@dataclass(frozen=True)
class Variant:
    """One way to train; ``l1`` and ``l2`` weigh Σ|w| and Σw² over the three matrices."""

    name: str
    published: str = ""
    epochs: int = 5
    batch: int = 64
    rate: float = 1e-3
    decay: float = 0.7
    dropout: float = 0.5
    l1: float = 0.0
    l2: float = 0.0
    factorised: int = 0


VARIANTS = (
    Variant("dropout .5", "728.74, 98.09 %, .0613"),
    Variant("L1", "111.21, 98.22 %, .0618", epochs=20, dropout=0.3, decay=0.85, l1=1e-4),
    Variant("L2", "395.69, 98.24 %, .0593", epochs=20, batch=48, rate=1.5e-3, decay=0.85, l2=1e-4),
    Variant("no dropout", epochs=2, dropout=0.0),
    Variant("dropout .7", epochs=2, dropout=0.7),
    Variant("U·V of rank 111 from the start", epochs=3, factorised=111),
)


def network(variant: Variant, inputs: int, width: int) -> nn.Sequential:
    """inputs-width-width-10 with ReLU and dropout; the middle matrix as a product U·V where requested."""
    rank = min(variant.factorised, width // 4)
    middle: list[nn.Module] = [nn.Linear(width, width)]
    if variant.factorised:
        middle = [nn.Linear(width, rank, bias=False), nn.Linear(rank, width)]
    head = [nn.Linear(inputs, width), nn.ReLU(), nn.Dropout(variant.dropout)]
    return nn.Sequential(*head, nn.Sequential(*middle), nn.ReLU(), nn.Dropout(variant.dropout), nn.Linear(width, 10))


def middle_matrix(model: nn.Sequential) -> np.ndarray:
    """The middle matrix, multiplied out where it is factorised."""
    matrix = None
    for layer in model[3]:
        weight = layer.weight.detach().double().numpy()
        matrix = weight if matrix is None else weight @ matrix
    return matrix


def fit(variant: Variant, data: Sequence[torch.Tensor], width: int, seed: int) -> tuple[nn.Sequential, list[float]]:
    """Train with Lightning; the effective rank per epoch (from epoch 0) as the callback recorded it."""
    import pytorch_lightning as pl

    from ww_callbacks.lightning import SpectralCallback

    images, labels = data[:2]
    model = network(variant, images.shape[1], width)

    class Module(pl.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.net = model

        def training_step(self, rows: torch.Tensor, index: int) -> torch.Tensor:
            return nn.functional.cross_entropy(self.net(images[rows]), labels[rows])

        def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
            # The penalties' gradients by hand: at this size autograd would spend as long on them as on the network.
            for weight in self.net.parameters():
                if weight.ndim == 2 and variant.l1:
                    weight.grad.add_(weight.detach().sign(), alpha=variant.l1)
                if weight.ndim == 2 and variant.l2:
                    weight.grad.add_(weight.detach(), alpha=2 * variant.l2)

        def configure_optimizers(self) -> tuple[list, list]:
            optimiser = torch.optim.Adam(self.parameters(), variant.rate, fused=True)
            return [optimiser], [torch.optim.lr_scheduler.ExponentialLR(optimiser, variant.decay)]

    watched = "net.3.0.weight"
    with tempfile.TemporaryDirectory() as folder:
        callback = SpectralCallback(
            quantities=["effective_rank"], layers=[watched], every_n_epochs=1, log_dir=folder, verbose=0
        )
        torch.set_flush_denormal(True)  # a penalty drives the weights of dark pixels there, where arithmetic is slow
        try:
            train_watched(Module(), Rows(len(images), variant.batch, seed), variant.epochs, callback)
        finally:
            torch.set_flush_denormal(False)
        history = callback.history
    model.eval()
    return model, [float(v) for v in history.sort_values("epoch")["effective_rank"]]


def kept_or_fitted(
    variant: Variant, data: Sequence[torch.Tensor], width: int, args: argparse.Namespace
) -> tuple[nn.Sequential, list[float]]:
    """:func:`fit`, or what an earlier run with ``--keep`` left of it."""
    torch.manual_seed(args.seed)
    path = args.keep / f"{zlib.crc32(repr((variant, width, args.seed)).encode())}.pt" if args.keep else None
    if path is not None and path.exists():
        kept = torch.load(path, weights_only=True)
        model = network(variant, data[0].shape[1], width)
        model.load_state_dict(kept["state"])
        return model.eval(), kept["ranks"]
    model, ranks = fit(variant, data, width, args.seed)
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save({"state": model.state_dict(), "ranks": ranks}, path)
    return model, ranks


def compressed_scores(
    model: nn.Sequential, data: Sequence[torch.Tensor], ranks: Sequence[int], seed: int
) -> list[dict[str, float]]:
    """Accuracy and loss with the middle matrix at each rank, by truncated and by randomised SVD."""
    layer = model[3][0]
    original = layer.weight.detach().clone()
    matrix = original.double().numpy()
    sigma = singular_values(matrix)
    rows = []
    for row in compression_table(sigma, matrix.shape, ranks):
        rank = int(row["rank"])
        values: dict[str, float] = {"rank": rank, "values stored": int(row["size"]), "size": row["size_ratio"]}
        for name, factors in (
            ("truncated", truncated_svd(matrix, rank)),
            ("randomised", randomised_svd(matrix, rank, np.random.default_rng(seed), power_iterations=1)),
        ):
            with torch.no_grad():
                layer.weight.copy_(torch.from_numpy(factors.matrix()))
            values[f"accuracy, {name}"], values[f"loss, {name}"] = score(model, *data[2:])
        with torch.no_grad():
            layer.weight.copy_(original)
        rows.append(values)
    return rows


def main(argv: Sequence[str] | None = None) -> dict:
    args = arguments(__doc__, argv, keep=True)
    torch.set_num_threads(args.threads)
    variants, width = VARIANTS, 1000
    if args.quick:
        data, width = flat_digits(args.seed), 100
        variants = tuple(replace(v, epochs=2) for v in (VARIANTS[0], VARIANTS[1], VARIANTS[-1]))
    else:
        data = flat_mnist(args.data)
    report = Report(
        "effective_rank_mnist",
        "Effective rank of the middle layer on MNIST",
        {
            "network": f"{data[0].shape[1]}-{width}-{width}-10, ReLU",
            "optimiser": "Adam",
            "data": f"{len(data[0])} training, {len(data[2])} test images",
            "seed": args.seed,
        },
    )
    rows, curves, models = [], {}, {}
    for variant in variants:
        model, ranks = kept_or_fitted(variant, data, width, args)
        sigma = singular_values(middle_matrix(model))
        p = sigma[sigma > 0] / sigma.sum()
        effective = float(np.exp(-np.sum(p * np.log(p))))
        right, loss = score(model, *data[2:])
        models[variant.name] = model
        if not variant.factorised:
            curves[variant.name] = ranks
        rows.append(
            {
                "variant": variant.name,
                "settings": f"{variant.epochs} epochs, batch {variant.batch}, rate {variant.rate:g}·{variant.decay}^e, "
                f"dropout {variant.dropout}, L1 {variant.l1:g}, L2 {variant.l2:g}",
                "effective rank": effective,
                "accuracy": right,
                "loss": loss,
                "published (rank, accuracy, loss)": variant.published,
            }
        )
        print(rows[-1], [round(r, 1) for r in ranks], flush=True)
    report.table("variants", rows, "After training")
    epochs = max(len(c) for c in curves.values())
    report.table(
        "epochs",
        [{"epoch": e, **{name: curve[e] for name, curve in curves.items() if e < len(curve)}} for e in range(epochs)],
        "Effective rank after each epoch, from the callback's record (0: before training)",
    )
    report.figure(
        "epochs",
        "Effective rank of the middle layer",
        "epoch",
        "effective rank",
        {name: (range(len(c)), c) for name, c in curves.items()},
    )
    falls = {name: all(b < a for a, b in pairwise(c)) for name, c in curves.items()}
    report.numbers["falls every epoch"] = falls
    report.text(
        "It falls in every epoch for: "
        + (", ".join(n for n, f in falls.items() if f) or "none")
        + "; not for: "
        + (", ".join(n for n, f in falls.items() if not f) or "none")
        + "."
    )
    ranks_to_try = (
        [2, 5, 10, 20, 40] if args.quick else [5, 10, 20, 30, 50, 75, 100, 150, 200, 300, 400, 500, 700, 1000]
    )
    chosen = {variants[0].name, "L1"} & set(models)
    lines = {}
    for name in sorted(chosen):
        table = compressed_scores(models[name], data, ranks_to_try, args.seed)
        full, _ = score(models[name], *data[2:])
        report.table(
            f"compression {name}", table, f"Compression of the middle layer, {name} (uncompressed: {full:.4f})"
        )
        sigma = singular_values(middle_matrix(models[name]))
        suggested = suggest_ranks(sigma, (width, width))
        above = [r["rank"] for r in table if r["accuracy, truncated"] > full]
        report.text(
            f"{name}: suggested ranks: effective {suggested.effective}, 90 % of energy {suggested.energy}, break-even "
            f"{suggested.break_even}. Ranks with a higher accuracy than uncompressed: {above or 'none'}."
        )
        for kind in ("truncated", "randomised"):
            lines[f"{name}, {kind}"] = ([r["rank"] for r in table], [r[f"accuracy, {kind}"] for r in table])
    report.figure("compression", "Accuracy against rank", "rank", "test accuracy", lines, log=("x",))
    report.write(args.out)
    return report.numbers


if __name__ == "__main__":
    main()
