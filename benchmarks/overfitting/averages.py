"""How many updates an epoch the average of the weights needs: its test accuracy with few, against every step.

python -m benchmarks.overfitting.averages --json benchmarks/results/averages.json

An MLP with BatchNorm learns scikit-learn's digits by SGD with momentum, in batches of 8 (162 steps an epoch), clean and
with 40 % of its labels wrong, at three learning rates.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from benchmarks import _report
from benchmarks.overfitting.real_loops import Order, accuracy
from examples.data import digits
from ww_callbacks.adapters.saved_weights import weight_average
from ww_callbacks.adapters.saved_weights.torch_weights import TorchWeights
from ww_callbacks.adapters.saved_weights.weight_average import WeightAverage

BATCH, UPDATES, EVERY_STEP = 8, (8, 16, 32), 10**6
SETTINGS = ((0.0, 0.01), (0.0, 0.1), (0.4, 0.05))
"""(share of wrong labels, learning rate)."""


def train(noise: float, rate: float, seed: int, epochs: int) -> dict[int, list[float]]:
    """Updates an epoch → the average's test accuracy after each epoch; the raw weights' under 0."""
    (x, y), test = digits(noise=noise, seed=seed)
    inputs, labels = torch.from_numpy(x).flatten(1), torch.from_numpy(y)
    fresh = torch.from_numpy(test[0]).flatten(1), torch.from_numpy(test[1])
    torch.manual_seed(seed)
    net = nn.Sequential(nn.Linear(64, 100), nn.BatchNorm1d(100), nn.ReLU(), nn.Linear(100, 10))
    optimizer, order = torch.optim.SGD(net.parameters(), rate, momentum=0.9), Order(len(x), seed)
    steps = len(x) // BATCH
    averages = {n: WeightAverage(TorchWeights(net), steps) for n in (*UPDATES, EVERY_STEP)}
    found: dict[int, list[float]] = {n: [] for n in (0, *averages)}
    for _ in range(epochs):
        for batch in torch.tensor(list(order))[: steps * BATCH].split(BATCH):
            optimizer.zero_grad()
            nn.functional.cross_entropy(net(inputs[batch]), labels[batch]).backward()
            optimizer.step()
            for updates, average in averages.items():
                weight_average.UPDATES_AN_EPOCH = updates
                average.step()
        net.eval()

        def note(updates: int) -> Callable[[Path], None]:
            return lambda _: found[updates].append(accuracy(net, fresh))

        note(0)(Path())
        for updates, average in averages.items():
            average.save(note(updates), Path())
        net.train()
    return found


def main() -> None:
    parser = _report.arguments(__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=12)
    args = parser.parse_args()
    torch.set_num_threads(1)
    rows: list[dict[str, Any]] = []
    for noise, rate in SETTINGS:
        for seed in range(args.seeds):
            for updates, reached in train(noise, rate, seed, args.epochs).items():
                row = {"noise": noise, "rate": rate, "seed": seed, "updates": updates, "accuracy": reached}
                rows.append(row)
    by = {n: np.array([r["accuracy"] for r in rows if r["updates"] == n]) for n in (0, *UPDATES, EVERY_STEP)}
    figures = {"average_less_raw_points": 100 * float((by[EVERY_STEP] - by[0]).mean())}
    for n in UPDATES:
        apart = 100 * (by[n] - by[EVERY_STEP])
        figures |= {f"updates_{n}_less_every_step_points": float(apart.mean())}
        figures |= {f"updates_{n}_largest_difference_points": float(np.abs(apart).max())}
    told = {k: v for k, v in vars(args).items() if k != "json"}
    _report.write(args.json, {**told, "batch": BATCH}, rows, figures)


if __name__ == "__main__":
    main()
