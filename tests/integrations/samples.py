"""Small runs to send to sinks: every value follows from the step, so that two runs can be compared."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ww_callbacks.integrations.schema import Alert, LayerInfo, LayerRow, RunInfo, Snapshot, Verdict

EDGES = [float(edge) for edge in np.linspace(-3.0, 1.0, 65)]


def run_info(directory: object = "", layers: int = 3, **changes: Any) -> RunInfo:
    infos = tuple(LayerInfo(f"net.{i}.weight", i, "dense", "Linear", (8, 6), ((8, 6),)) for i in range(layers))
    fields: dict[str, Any] = {
        "run_id": "run-1",
        "framework": "plain",
        "started": "2026-01-01T00:00:00+00:00",
        "settings": {"quantities": "default", "layers": [], "max_overhead": None},
        "versions": {"numpy": "2.0"},
        "layers": infos,
        "directory": str(directory),
    }
    return RunInfo(**(fields | changes))


def snapshot(step: int, layers: int = 3, densities: bool = False, padding: int = 0) -> Snapshot:
    rng = np.random.default_rng([1, step])
    rows = []
    for i in range(layers):
        values: dict[str, float | str] = {
            "alpha": float(2 + rng.random()),
            "alpha_evidence": "sufficient" if i else "few eigenvalues",
            "effective_rank": float(50 * rng.random()),
            "scale_collapse": math.nan if i == 1 else float(-rng.random()),
            "relative_distance_from_init": float(rng.random()),
        }
        values |= {f"more_{k}": float(v) for k, v in enumerate(rng.random(padding))}
        density = {
            "log10_lambda_edges": EDGES,
            "count": [int(c) for c in rng.integers(0, 9, 64)],
            "alpha": float(values["alpha"]),
            "shuffled_max": None,
        }
        rows.append(
            LayerRow(f"net.{i}.weight", i, values, "ok" if i != 1 else "zero", True, density if densities else None)
        )
    model = {
        f"{name}/{statistic}": float(rng.random())
        for name in ("alpha", "effective_rank", "relative_distance_from_init")
        for statistic in ("mean", "median", "q10", "q90", "min", "max")
    }
    return Snapshot(
        step=step,
        epoch=step / 10,
        kind="full",
        rows=tuple(rows),
        model={**model, "alpha/share_sufficient": 2 / 3, "alerts": 0.0},
        metrics={"train_loss": float(rng.random())},
        seconds=0.1,
        overhead=0.012,
        time=float(step),
    )


def alert(step: int = 20, **changes: Any) -> Alert:
    fields: dict[str, Any] = {
        "kind": "scale collapse",
        "severity": "critical",
        "layers": ("net.1.weight",),
        "evidence": {"scale_collapse": -0.61, "limit": math.nan},
        "since_step": 10,
        "since_epoch": 1.0,
        "step": step,
        "epoch": step / 10,
        "message": "Its norm fell to a quarter of what it was.",
        "recommendation": "Lower the weight decay.",
        "action": "warn",
    }
    return Alert(**(fields | changes))


def verdict(**changes: Any) -> Verdict:
    fields: dict[str, Any] = {
        "state": "collapsing",
        "reason": "1 of 3 layers lost its scale.",
        "layers": ("net.1.weight",),
        "signals": {"scale_collapse": 0.61},
        "since_step": 10,
        "since_epoch": 1.0,
        "confidence": 0.9,
        "recommendation": "Go back to epoch 1.",
        "best_step": 10,
        "best_epoch": 1.0,
    }
    return Verdict(**(fields | changes))
