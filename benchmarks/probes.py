"""What the probes cost: a partial Jacobian through a ResNet-18, and the rank of a Hessian of 5,000 parameters.

Bars: the Jacobian probe (32 images of 64×64, a 16×16 patch, 8 depths) under 4 GB and 10 minutes on two cores; the
Hessian rank under a minute on two cores.

    python -m benchmarks.probes --json benchmarks/results/probes.json
"""

from __future__ import annotations

import resource
import time
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import nn

from benchmarks._report import arguments, write
from ww_callbacks.probes.hessian import hessian_parts, hessian_ranks, symmetric_rank
from ww_callbacks.probes.representation import RepresentationProbe

THREADS = 2


class Block(nn.Module):
    """Two 3×3 convolutions with batch norm and a shortcut."""

    def __init__(self, inputs: int, outputs: int, stride: int):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(outputs)
        self.shortcut: nn.Module = nn.Identity()
        if stride > 1 or inputs != outputs:
            self.shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The block's output."""
        inner = self.norm2(self.conv2(torch.relu(self.norm1(self.conv1(x)))))
        return torch.relu(inner + self.shortcut(x))


def resnet18() -> nn.Sequential:
    """ResNet-18, 11.7 million parameters, 1,000 classes."""
    widths = [64, 64, 64, 128, 128, 256, 256, 512, 512]
    blocks = [Block(a, b, 2 if b != a else 1) for a, b in pairwise(widths)]
    stem = [nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64), nn.ReLU(), nn.MaxPool2d(3, 2, 1)]
    return nn.Sequential(*stem, *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, 1000))


DEPTHS = ["0.weight", "4.conv2.weight", "5.conv2.weight", "6.conv2.weight", "8.conv2.weight", "10.conv2.weight",
          "11.conv2.weight", "14.weight"]  # fmt: skip


def jacobian(images: int) -> dict[str, float]:
    """Seconds and peak memory of the whole probe, and the ranks."""
    torch.manual_seed(0)
    model = resnet18()
    batch = torch.randn(images, 3, 64, 64)
    probe = RepresentationProbe(batch, quantities=["jacobian_rank"], layers=DEPTHS, points=images, patch=16)
    probe.validate(model)
    cpu = time.process_time()
    found = probe.observe(model)
    cpu = time.process_time() - cpu
    ranks = {name: values["jacobian_rank"] for name, values in found.items() if name != "model"}
    return {**ranks, "seconds": found["model"]["probe_seconds"], "cpu_seconds": cpu, "peak_gb": peak_gb()}


def peak_gb() -> float:
    """Peak resident memory of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def hessian() -> list[dict[str, Any]]:
    """Rank of the loss Hessian of 5,000 parameters, and of all three parts."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(60, 70), nn.Tanh(), nn.Linear(70, 10))
    inputs, targets = torch.randn(100, 60), torch.randint(0, 10, (100,))
    parameters = sum(p.numel() for p in model.parameters())
    measures = {
        "loss": lambda: symmetric_rank(hessian_parts(model, inputs, targets, "cross-entropy").loss),
        "outer, functional and loss": lambda: hessian_ranks(model, inputs, targets, "cross-entropy").loss,
    }
    rows: list[dict[str, Any]] = []
    for what, measure in measures.items():
        cpu, wall = time.process_time(), time.perf_counter()
        rank = measure()
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        rows.append({"what": what, "parameters": parameters, "rank": rank, "seconds": wall, "cpu_seconds": cpu})
    return rows


def main(argv: Sequence[str] | None = None) -> None:
    parser = arguments(__doc__)
    parser.add_argument("--images", type=int, default=32, help="images of the Jacobian probe (the bar: 32)")
    args = parser.parse_args(argv)
    torch.set_num_threads(THREADS)
    of_jacobian = jacobian(args.images)
    of_hessian = hessian()
    figures = {
        "jacobian_seconds": of_jacobian["seconds"],
        "jacobian_peak_gb": of_jacobian["peak_gb"],
        "hessian_rank_seconds": of_hessian[0]["seconds"],
        "hessian_ranks_of_all_parts_seconds": of_hessian[1]["seconds"],
        "jacobian_cpu_seconds": of_jacobian["cpu_seconds"],
        "hessian_rank_cpu_seconds": of_hessian[0]["cpu_seconds"],
    }
    settings = {"threads": THREADS, "images": args.images, "size": "64×64", "patch": "16×16", "depths": 8}
    write(args.json, settings, [{"what": "jacobian", **of_jacobian}, *of_hessian], figures)


if __name__ == "__main__":
    main()
