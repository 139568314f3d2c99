"""A snapshot of 2,000 small layers against the linear algebra in it, in seconds of the processor."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from ww_callbacks.spectral.linalg.workers import WorkerPool

LAYERS, SIDE, ROUNDS = 2000, 64, 5


def measure() -> tuple[list[dict[str, Any]], dict[str, float]]:
    """The fastest of several rounds each: bare spectra, a snapshot after a change, and one without."""
    import torch
    from torch import nn

    from ww_callbacks import SpectralMonitor

    torch.manual_seed(0)
    model = nn.Sequential(*(nn.Linear(SIDE, SIDE, bias=False) for _ in range(LAYERS)))
    weights = [parameter.detach().numpy() for parameter in model.parameters()]

    def bare(matrix: np.ndarray) -> np.ndarray:
        wide = matrix.astype(np.float64)
        return np.linalg.eigvalsh(wide.T @ wide)

    floor, changed, unchanged = [], [], []
    with tempfile.TemporaryDirectory() as folder:
        monitor = SpectralMonitor(model, log_dir=f"{folder}/run", verbose=0, workers=1)
        monitor.observe(step=1, epoch=1.0)
        for step in range(2, 2 + 2 * ROUNDS, 2):
            with torch.no_grad():
                for parameter in model.parameters():
                    parameter *= 1.01
            floor.append(_seconds(lambda: WorkerPool(1).map(bare, weights)))
            changed.append(_seconds(lambda step=step: monitor.observe(step=step, epoch=float(step))))
            unchanged.append(_seconds(lambda step=step: monitor.observe(step=step + 1, epoch=step + 0.5)))
        monitor.close()
    row = {"floor": min(floor), "changed": min(changed), "unchanged": min(unchanged)}
    return [{"part": "small layers", "layers": LAYERS, "side": SIDE, **row}], {
        "small_layers_over_floor": row["changed"] / row["floor"],
        "unchanged_over_changed": row["unchanged"] / row["changed"],
    }


def _seconds(work: Callable[[], object]) -> float:
    began = time.process_time()
    work()
    return time.process_time() - began
