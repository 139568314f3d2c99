"""Rank diminishing in trained networks: by depth, by component, and in the classes (Feng et al. 2022).

Published: partial rank and feature dimension fall with depth in every architecture; classification dimension of
ImageNet models 149/512 (ResNet-18), 131/2048 (ResNet-50), 109/192 (ViT-T); a class can be told from other classes'
logits.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import torch
from torch import nn

from examples.reproductions._networks import Residual, ResidualCNN, Transformer, mlp, seeded, stages
from examples.reproductions._report import Report, arguments
from examples.reproductions._training import accuracy, flat_digits, train
from ww_callbacks.probes.jacobian import Patch
from ww_callbacks.probes.torch_driver import Tap, TorchDriver
from ww_callbacks.spectral.representation import classification_dimension, perturbed_pca_dimension, substitute_logit

PATCHES = {"4×4 centre": Patch(4), "4×4 corner": Patch(4, (0, 0)), "8×8 (all)": Patch(8)}


def driver_of(model: nn.Module) -> TorchDriver:
    """A driver that reads the features at the network's stages."""
    driver = TorchDriver(model)
    driver.taps = [Tap(name, module, -1) for name, module in stages(model)]
    return driver


def jacobian_table(model: nn.Module, images: torch.Tensor) -> dict[str, dict[str, float]]:
    """Patch → stage → mean partial rank."""
    driver = driver_of(model)
    return {
        name: {layer: float(ranks.mean()) for layer, ranks in driver.jacobian_ranks(images, patch).items()}
        for name, patch in PATCHES.items()
    }


def branch_shares(model: ResidualCNN, images: torch.Tensor) -> dict[str, float]:
    """Block → ‖F(x)‖/(‖x‖ + ‖F(x)‖), mean over images."""
    shares: dict[str, float] = {}

    def catch(name: str):
        def hook(block: Residual, args: tuple[torch.Tensor], _: torch.Tensor) -> None:
            x = args[0].flatten(1).norm(dim=1)
            branch = block.branch(args[0]).flatten(1).norm(dim=1)
            shares[name] = float((branch / (x + branch)).mean())

        return hook

    handles = [m.register_forward_hook(catch(n)) for n, m in stages(model) if isinstance(m, Residual)]
    with torch.no_grad():
        model(images)
    for handle in handles:
        handle.remove()
    return shares


def pca_dimensions(model: nn.Module, images: torch.Tensor, n: int, seed: int) -> dict[str, float]:
    """Stage → perturbed PCA dimension, mean over images."""
    found: dict[str, list[float]] = {}
    for features in driver_of(model).perturbed_features(images, n, 1e-3, seed, memory=4e9):
        for name, matrix in features.items():
            found.setdefault(name, []).append(perturbed_pca_dimension(matrix))
    return {name: float(np.mean(values)) for name, values in found.items()}


def component_losses(images: torch.Tensor) -> list[dict[str, object]]:
    """Rank of the Jacobian of one untrained component on its own, at features of a random convolution (8×8×8)."""
    channels, side = 8, 8
    with torch.no_grad():
        features = nn.Conv2d(1, channels, 3, padding=1)(images.reshape(-1, 1, side, side))
    size = channels * side * side
    components = {
        "convolution 3×3": nn.Conv2d(channels, channels, 3, padding=1),
        "convolution 3×3, half the channels": nn.Conv2d(channels, channels // 2, 3, padding=1),
        "convolution 3×3, stride 2, twice the channels": nn.Conv2d(channels, 2 * channels, 3, stride=2, padding=1),
        "dense, same width": nn.Sequential(nn.Flatten(), nn.Linear(size, size)),
        "dense, half the width": nn.Sequential(nn.Flatten(), nn.Linear(size, size // 2)),
        "ReLU": nn.ReLU(),
        "batch norm": nn.BatchNorm2d(channels),
        "layer norm": nn.LayerNorm([channels, side, side]),
        "layer norm over the last axis": nn.LayerNorm(side),
        "instance norm": nn.InstanceNorm2d(channels),
        "group norm, 4 groups": nn.GroupNorm(4, channels),
        "max pooling 2×2": nn.MaxPool2d(2),
        "mean pooling 2×2": nn.AvgPool2d(2),
        "global mean": nn.AdaptiveAvgPool2d(1),
    }
    rows = []
    for name, component in components.items():
        # A parameter of the stand-in tells the driver where the model lives; some components have none.
        model = nn.Sequential(nn.Conv2d(channels, channels, 1, groups=channels, bias=False), component)
        with torch.no_grad():
            model[0].weight.fill_(1.0)
        driver = TorchDriver(model)
        driver.taps = [Tap("after", component, -1)]
        ranks = driver.jacobian_ranks(features, Patch(side))["after"]
        outputs = component(features[:1]).numel()
        rows.append(
            {
                "component": name,
                "inputs": size,
                "outputs": outputs,
                "rank": float(ranks.mean()),
                "lost beyond its width": float(min(size, outputs) - ranks.mean()),
            }
        )
    return rows


def deep_ratios(width: int, depths: Sequence[int], seed: int) -> list[dict[str, object]]:
    """σ_min/σ_1 and median σ/σ_1 of the Jacobian of a deep orthogonally initialised network at one point."""
    generator = torch.Generator().manual_seed(seed)
    rows = []
    activations = {"linear": (lambda z: z), "tanh": torch.tanh, "ReLU, gain √2": torch.relu}
    for name, f in activations.items():
        x = torch.randn(width, dtype=torch.float64, generator=generator)
        jacobian = torch.eye(width, dtype=torch.float64)
        row: dict[str, object] = {"activation": name}
        for depth in range(1, max(depths) + 1):
            w = torch.empty(width, width, dtype=torch.float64)
            nn.init.orthogonal_(w, gain=2**0.5 if "ReLU" in name else 1.0, generator=generator)
            z = w @ x
            slope = {"linear": torch.ones_like(z), "tanh": 1 - torch.tanh(z) ** 2}.get(name, (z > 0).double())
            jacobian = slope[:, None] * (w @ jacobian)
            x = f(z)
            if depth in depths:
                sigma = torch.linalg.svdvals(jacobian).numpy()
                least, middle = (_ratio(s_, sigma[0]) for s_ in (sigma[-1], np.median(sigma)))
                row[f"depth {depth}"] = f"{least} ({middle})"
        rows.append(row)
    return rows


def _ratio(sigma: float, largest: float) -> str:
    """σ/σ_1 with two digits; 0 where only rounding is left."""
    return f"{sigma / largest:.1e}" if largest > 0 and sigma > 1e-15 * largest else "0"


def final(model: nn.Module, images: torch.Tensor) -> tuple[np.ndarray, np.ndarray, np.ndarray | None, np.ndarray]:
    """Final features, the head's weight and bias, and the logits."""
    return TorchDriver(model).head(images)


def main(argv: Sequence[str] | None = None) -> dict:
    args = arguments(__doc__, argv)
    torch.set_num_threads(args.threads)
    images, labels, test, test_labels = flat_digits(args.seed)
    epochs = {"MLP": 3, "residual CNN": 1, "transformer": 1} if args.quick else {
        "MLP": 30, "residual CNN": 12, "transformer": 30
    }  # fmt: skip
    points, n = (2, 300) if args.quick else (6, 5000)
    report = Report(
        "rank_diminishing",
        "Rank diminishing on digits",
        {
            "data": "1297 training, 500 test images of 8×8",
            "epochs": epochs,
            "points": points,
            "n": n,
            "seed": args.seed,
        },
    )
    makers = {"MLP": mlp, "residual CNN": ResidualCNN, "transformer": Transformer}
    trained, summary, curves = {}, [], {}
    for name, make in makers.items():
        before = seeded(make, args.seed).eval()
        after = copy.deepcopy(before)
        train(after, images, labels, epochs[name], seed=args.seed)
        trained[name] = after
        # The MLP takes vectors, so every patch is the whole image there.
        shaped = test[:points] if name == "MLP" else test[:points].reshape(-1, 1, 8, 8)
        ranks = {"untrained": jacobian_table(before, shaped), "trained": jacobian_table(after, shaped)}
        dimensions = {
            k: pca_dimensions(m, shaped, n, args.seed) for k, m in (("untrained", before), ("trained", after))
        }
        shares = {k: branch_shares(m, shaped) for k, m in (("untrained", before), ("trained", after))} if (
            name == "residual CNN"
        ) else {}  # fmt: skip
        rows = []
        for stage in ranks["trained"]["8×8 (all)"]:
            row: dict[str, object] = {"stage": stage}
            for patch in ["8×8 (all)"] if name == "MLP" else PATCHES:
                for state in ("untrained", "trained"):
                    row[f"Jacobian rank, {patch}, {state}"] = ranks[state][patch][stage]
            for state in ("untrained", "trained"):
                row[f"PCA dimension, {state}"] = dimensions[state][stage]
            for state, share in shares.items():
                row[f"residual branch's share, {state}"] = share.get(stage, float("nan"))
            rows.append(row)
        report.table(f"depth {name}", rows, f"{name}: partial Jacobian rank and perturbed PCA dimension by depth")
        features, weight, bias, _ = final(after, test)
        dimension = classification_dimension(features, weight, bias, test_labels.numpy())
        curves[name] = (list(range(len(dimension.curve))), list(dimension.curve))
        summary.append(
            {
                "network": name,
                "test accuracy": accuracy(after, test, test_labels),
                "classification dimension": dimension.dimension,
                "of": dimension.features,
                "share": dimension.dimension / dimension.features,
            }
        )
    published = [("ResNet-18", 149, 512), ("ResNet-50", 131, 2048), ("GluMixer-24", 199, 384), ("ResMLP-S24", 196, 384),
                 ("Swin-T", 344, 768), ("ViT-T", 109, 192)]  # fmt: skip
    summary += [
        {"network": f"{n_} (published, ImageNet)", "classification dimension": k, "of": d, "share": k / d}
        for n_, k, d in published
    ]
    report.table("classification", summary, "Classification dimension (95 % of the accuracy)")
    report.figure("classification", "Accuracy against k", "k", "test accuracy", curves)
    report.text(
        "Ten classes on digits are not a thousand on ImageNet, so the numbers themselves cannot be compared; what can "
        "is that the classes need less than the features hold."
    )
    falls = {
        name: {
            state: all(b <= a for a, b in pairwise([row[f"Jacobian rank, 8×8 (all), {state}"] for row in rows_]))
            for state in ("untrained", "trained")
        }
        for name, rows_ in ((k, report.numbers[f"depth {k}"]) for k in makers)
    }
    report.numbers["rank never rises with depth"] = falls
    report.text(
        "The partial rank of the whole image never rises with depth in: "
        + ", ".join(f"{n_} ({s_})" for n_, by in falls.items() for s_, f in by.items() if f)
        + ". It may rise numerically, since the threshold is relative to the largest singular value of each layer; the "
        "exact rank cannot."
    )
    with torch.random.fork_rng():
        torch.manual_seed(args.seed)
        report.table(
            "components",
            component_losses(test[:points]),
            "Which component loses how much: rank of its own Jacobian at features of 8 channels of 8×8",
        )
    report.text(
        "A normalisation loses the direction of the mean, and that of the scale but for its ε, once a group: up to 2 "
        "for a norm over the whole sample, 2 a group for group norm, 2 a channel for instance norm; batch norm, linear "
        "in evaluation mode, loses none. ReLU loses the units that are off."
    )
    depths = (1, 10, 50) if args.quick else (1, 10, 100, 500, 1000)
    report.table(
        "orthogonal",
        deep_ratios(32, depths, args.seed),
        "Deep orthogonally initialised network of width 32: σ_min/σ_1 (median σ/σ_1) of the Jacobian",
    )
    substituted = independence(trained["MLP"], test, test_labels)
    report.table("independence", substituted, "Independence deficit of the MLP")
    report.text(
        "A sparse combination of the other logits tells a class's own samples as its own logit does (recall), as "
        "published; over all samples the accuracy changes as the last columns say, since the fit saw no other class."
    )
    report.write(args.out)
    return report.numbers


def independence(model: nn.Module, images: torch.Tensor, labels: torch.Tensor) -> list[dict[str, object]]:
    """For several η: each class's logit replaced by a sparse combination of the others'."""
    logits = final(model, images)[3]
    rows = []
    for eta in (20.0, 2.0, 0.2):
        found = [substitute_logit(logits, labels.numpy(), i, eta) for i in range(10)]
        best = max(found, key=lambda s: s.recall_substituted)
        rows.append(
            {
                "η": eta,
                "explained, mean": float(np.mean([s.explained for s in found])),
                "coefficients, mean": float(np.mean([np.count_nonzero(s.coefficients) for s in found])),
                "recall, own logit": float(np.mean([s.recall for s in found])),
                "recall, substituted": float(np.mean([s.recall_substituted for s in found])),
                "best class": best.target,
                "its recall, own": best.recall,
                "its recall, substituted": best.recall_substituted,
                "accuracy then": best.accuracy_substituted,
                "made of": ", ".join(f"{c:+.2f}·y{j}" for j, c in enumerate(best.coefficients) if c),
            }
        )
    return rows


if __name__ == "__main__":
    main()
