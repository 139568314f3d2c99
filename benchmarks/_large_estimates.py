"""Estimates within 1 %: speed on large layers, errors on real ones, and a training that is watched densely."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from time import process_time
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from benchmarks import _peers
from ww_callbacks.spectral.estimates.lanczos import BlockLanczos
from ww_callbacks.spectral.measuring.accuracy import measure_within
from ww_callbacks.spectral.measuring.layer_weights import LayerWeights
from ww_callbacks.spectral.measuring.registry import Quantity, all_quantities, resolve
from ww_callbacks.spectral.measuring.values import measure_quantities

TOLERANCE = 0.01
SIDE = 4096
LEADING = tuple(q.name for q in resolve("estimable") if q.name != "effective_rank" and q.needs != "previous")
"""Of the estimable quantities those that need only the top of the spectrum, or the elements."""

WIDTH = 1100
PHASES = {"training": (1e-3, 600, 10), "fine-tuning": (2e-5, 120, 10)}
"""Learning rate at the start, steps, and steps from one snapshot to the next."""


def measure() -> tuple[list[dict[str, Any]], dict[str, float]]:
    """Rows and figures of all three."""
    watched, speedups, model = dense_cadence()
    speed = [row for name, w in large_layers().items() for row in speeds(name, w)]
    real = {**_peers.minilm(_peers.environment(None)), **model}
    errors = [row for name, w in real.items() for row in errors_of(name, w)]
    print(f"{len(errors)} estimates of {len(real)} layers", file=sys.stderr)
    gains = {(r["layer"], r["quantities"]): r["speedup"] for r in speed}
    figures = {
        "snapshot_4096_estimate_speedup": min(gain for (_, kind), gain in gains.items() if kind == "estimable"),
        "snapshot_4096_leading_speedup": min(gains[name, "leading"] for name in ("spiked", "power law")),
        "snapshot_4096_leading_speedup_noise": gains["noise", "leading"],
        "estimate_layers": float(len({r["layer"] for r in errors})),
        "estimate_worst_error": max(r["error"] for r in errors),
        "estimate_worst_over_stated": max(r["over_stated"] for r in errors),
        "dense_cadence_speedup": speedups["fine-tuning"],
        "dense_cadence_speedup_from_scratch": speedups["training"],
    }
    return [*watched, *speed, *errors], figures


def large_layers() -> dict[str, np.ndarray]:
    """4096×4096: noise with twenty directions that training has found, with columns that follow a power law, and plain.

    Noise has no tail: its largest eigenvalues lie close together, which makes them the hardest to tell apart.
    """
    rng = np.random.default_rng(0)
    noise = rng.standard_normal((SIDE, SIDE), dtype=np.float32) / np.float32(SIDE**0.5)
    left = rng.standard_normal((SIDE, 20)) * np.linspace(1.0, 5.0, 20) / SIDE**0.5
    found = left @ (rng.standard_normal((20, SIDE)) / SIDE**0.5)
    scale = np.arange(1, SIDE + 1) ** -0.25
    layers = {"spiked": noise + found, "power law": noise * scale, "noise": noise}
    return {name: w.astype(np.float32) for name, w in layers.items()}


def speeds(name: str, w: np.ndarray) -> Iterator[dict[str, Any]]:
    """Processor time of one layer, exact and estimated, on one thread; the distances from W_0 in both."""
    initial = (np.random.default_rng(1).standard_normal(w.shape, dtype=np.float32) / np.float32(SIDE**0.5)).copy()
    reference = {"frobenius_norm": float(np.linalg.norm(initial)), "log_spectral_norm": 0.6}

    def seconds(quantities: list[Quantity], tolerance: float | None) -> tuple[float, int, int]:
        sample = LayerWeights([w], initial=[initial], reference=reference, seed=1)
        began = process_time()
        errors = measure_within(sample, quantities, tolerance).errors
        return process_time() - began, len(errors), sample.space.steps if sample.space else 0

    with threadpool_limits(1):
        exact = None
        for kind, names in (("estimable", "estimable"), ("leading", LEADING)):
            quantities = [q for q in resolve(names) if q.needs != "previous"]
            exact = exact or seconds(quantities, None)[0]
            quick, estimated, steps = min(seconds(quantities, TOLERANCE) for _ in range(3))
            row = {
                "layer": name,
                "quantities": kind,
                "steps": steps,
                "estimated": estimated,
                "seconds": quick,
                "seconds_exact": exact,
                "speedup": exact / quick,
            }
            print(row, file=sys.stderr)
            yield row


def errors_of(name: str, w: np.ndarray) -> Iterator[dict[str, Any]]:
    """Each estimate of a layer that is within the tolerance, against the exact value.

    Layers below 512, which are always exact in a run, are estimated here all the same.
    """
    quantities = [q for q in all_quantities() if q.estimate is not None and not q.needs]
    exact, _ = measure_quantities(LayerWeights([w]), quantities)
    sample = LayerWeights([w], seed=1)
    sample.space = BlockLanczos(w, seed=1)
    for steps in (6, 10, 16, 24, 32):
        if not sample.space.most_steps:
            return
        steps = min(steps, sample.space.most_steps)
        sample.space.extend(steps - sample.space.steps)
        for q in quantities:
            assert q.estimate is not None
            with np.errstate(all="ignore"):
                estimate, known = q.estimate(sample), float(exact[q.name])
            if estimate.error == 0.0 or not estimate.within(TOLERANCE, q.logarithm):
                continue
            off = abs(estimate.value - known)
            error = 10.0**off - 1.0 if q.logarithm else off / abs(known)
            yield {
                "layer": name,
                "shape": "x".join(map(str, w.shape)),
                "quantity": q.name,
                "steps": steps,
                "error": error,
                "over_stated": off / estimate.error,
            }
        if steps == sample.space.most_steps:
            return


def dense_cadence() -> tuple[list[dict[str, Any]], dict[str, float], dict[str, np.ndarray]]:
    """A network on MNIST, trained from scratch under a cosine schedule and then tuned at a small rate, watched densely.

    Returns:
        A row a phase and accuracy; what the exact run's snapshots cost over those with a tolerance, by phase (W_0 and
        the first snapshot left out of both); and the trained layers.
    """
    rows, model = [], {}
    costs: dict[tuple[str, float | str], float] = {}
    for accuracy in ("exact", TOLERANCE):
        net = _Net()
        for phase, (rate, steps, every) in PHASES.items():
            history, seconds = net.train(accuracy, rate, steps, every)
            costs[phase, accuracy] = seconds
            large = history[history["layer"].isin(net.layers()) & (history["step"] > 0)]
            rows.append(
                {
                    "phase": phase,
                    "accuracy": accuracy,
                    "snapshots": int(large["step"].nunique()),
                    "seconds": seconds,
                    "share_with_alpha": float(large["alpha"].notna().mean()),
                    "move": float(large["relative_update_norm"].median()),
                }
            )
            print(rows[-1], file=sys.stderr)
        assert not model or all(np.array_equal(model[n], w) for n, w in net.layers().items()), "the weights differ"
        model = net.layers()
    return rows, {phase: costs[phase, "exact"] / costs[phase, TOLERANCE] for phase in PHASES}, model


class _Net:
    """A multilayer perceptron and its data."""

    def __init__(self) -> None:
        import torch
        from torch import nn

        from examples.data import mnist

        torch.manual_seed(0)
        (images, labels), _ = mnist()
        self.inputs, self.targets = torch.from_numpy(images).flatten(1), torch.from_numpy(labels)
        sides = (784, WIDTH, WIDTH, WIDTH, 10)
        parts = [part for n, m in pairwise(sides) for part in (nn.Linear(n, m), nn.ReLU())]
        self.model = nn.Sequential(*parts[:-1])

    def layers(self) -> dict[str, np.ndarray]:
        """The large matrices, as they are now."""
        weights = self.model.state_dict()
        return {name: w.numpy().copy() for name, w in weights.items() if w.ndim == 2 and min(w.shape) > 100}

    def train(self, accuracy: float | str, rate: float, steps: int, every: int) -> tuple[Any, float]:
        """Train for so many steps, and say what was recorded and what watching cost, in seconds of the processor."""
        import torch

        from ww_callbacks import SpectralMonitor

        optimizer = torch.optim.Adam(self.model.parameters(), rate)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
        costs: list[float] = []
        with (
            tempfile.TemporaryDirectory() as folder,
            SpectralMonitor(
                self.model,
                log_dir=str(Path(folder, "run")),
                accuracy=accuracy,
                every_n_steps=every,
                verbose=0,
                workers=1,
            ) as monitor,
        ):
            for step in range(1, steps + 1):
                batch = torch.randint(len(self.inputs), (64,))
                loss = torch.nn.functional.cross_entropy(self.model(self.inputs[batch]), self.targets[batch])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                schedule.step()
                began = process_time()
                monitor.observe(step=step, epoch=step / steps, train_loss=loss.item())
                costs.append(process_time() - began)
            history = monitor.history
        return history, sum(costs[every:])
