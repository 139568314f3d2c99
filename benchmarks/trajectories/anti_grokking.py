"""Anti-grokking (Prakash and Martin 2025) on digits: test accuracy falls long after all training data is fitted.

300 images, 64-100-100-10, PyTorch's initial weights × 8, mean squared error, full batch, Adam 5e-3, no weight decay,
float64, 6·10⁵ steps: about half an hour on one core.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from benchmarks.trajectories.domains import load_digits, perceptron
from benchmarks.trajectories.train import weights
from ww_callbacks.spectral.detectors import Observation, Overtraining


def anti_grokking(steps: int = 600_000, seed: int = 0) -> dict[str, Any]:
    """Train, and judge at log-spaced steps; returns test accuracy and score at each, and when the alarm came."""
    import numpy as np

    x, y, test_x, test_y = load_digits(300, np.random.default_rng(seed))
    x, test_x, target = x.double(), test_x.double(), nn.functional.one_hot(y, 10).double()
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = perceptron(64)(100, 0.0).double()
    with torch.no_grad():
        for p in model.parameters():
            p.mul_(8)
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3, foreach=True)
    initial, watching = weights(model), Overtraining()
    curve: list[dict[str, Any]] = []
    alarm, due = None, 1.0
    for step in range(1, steps + 1):
        scores = model(x)
        loss = (scores - target).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step < due:
            continue
        due = max(step + 1.0, step * 1.1)
        layers = {
            name: {
                "frobenius_norm": float(np.linalg.norm(w)),
                "distance_from_init": float(np.linalg.norm(w - initial[name])),
            }
            for name, w in weights(model).items()
        }
        accuracy = float((scores.argmax(-1) == y).double().mean())
        metrics = {"train_loss": float(loss.detach()), "train_accuracy": accuracy, "learning_rate": 5e-3}
        found = watching.update(Observation(step, float(step), layers, metrics))
        alarm = step if found and alarm is None else alarm
        with torch.no_grad():
            test = float((model(test_x).argmax(-1) == test_y).double().mean())
        curve.append({"step": step, "train_accuracy": accuracy, "test_accuracy": test, "score": watching.score})
    best = max(curve, key=lambda row: row["test_accuracy"])
    return {
        "steps": steps,
        "best_step": best["step"],
        "best": best["test_accuracy"],
        "final": curve[-1]["test_accuracy"],
        "alarm_step": alarm,
        "curve": curve,
    }
