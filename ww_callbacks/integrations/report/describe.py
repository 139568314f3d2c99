"""The data of the page besides the figures, as plain values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from ww_callbacks.integrations.figures.first_look import first_look
from ww_callbacks.integrations.figures.layer_status import layer_statuses
from ww_callbacks.integrations.figures.palette import DARK, RUN_COLOURS, RUN_DASHES, SEVERITIES
from ww_callbacks.integrations.figures.run_summary import (
    BAD,
    WATCH,
    alerted_layers,
    cost_in_words,
    deciding_alerts,
    headline,
    notes,
)
from ww_callbacks.integrations.figures.run_view import RunView
from ww_callbacks.integrations.quantity_info import quantity_info

MOST_ALERTS = 300
DEFAULTS: dict[str, Any] = {
    "quantities": "default",
    "baseline": "initial",
    "weights": "trained",
    "convolution": "matrix",
    "early_stopping": "off",
    "min_eigenvalues": 1,
    "verbose": 1,
    "cooldown": 10,
    "densities": True,
    "accuracy": "exact",
    "keep_average": True,
    "restore": "last",
}
"""The callback's defaults that are neither empty, zero nor false."""


def describe_page(runs: Sequence[RunView]) -> dict[str, Any]:
    """The data common to all runs: quantities and colours."""
    return {
        "quantities": describe_quantities(runs),
        "style": {"colours": RUN_COLOURS, "dashes": RUN_DASHES, "dark": DARK},
    }


def describe_run(run: RunView) -> dict[str, Any]:
    """The run's verdict in words, alerts, layers, settings and versions."""
    info, verdict, summary = run.record.run, run.verdict, headline(run)
    worst = next((alert.layers[0] for alert in deciding_alerts(run) if alert.layers), "")
    since = verdict.since_epoch if verdict is not None else None
    return {
        "name": run.label,
        "headline": asdict(summary),
        "notes": notes(run),
        "alerted": alerted_layers(run),
        "alerts": [asdict(alert) for alert in run.alerts[-MOST_ALERTS:]],
        "alerts_in_all": len(run.alerts),
        "layers": run.layers,
        "quantities": run.quantities,
        "snapshots": len(run.steps),
        "epoch": float(run.epochs[-1]) if len(run.epochs) else None,
        "step": int(run.steps[-1]) if len(run.steps) else None,
        "clock": {"epoch": run.epochs.tolist(), "step": run.steps.tolist(), "time": _minutes(run)},
        "since": (since if since is not None else _since(run)) if summary.tone in (WATCH, BAD) else None,
        "worst": worst if worst in run.layers else "",
        "first": asdict(first_look(run)),
        "losses": _losses(run),
        "cost": cost_in_words(run),
        "finished": verdict is not None,
        "about": {
            "run id": info.run_id,
            "framework": info.framework,
            "started": info.started,
            "record": str(run.record.path),
            "layers watched": len(run.layers),
            **({"cost of the callback": cost} if (cost := cost_in_words(run, always=True)) else {}),
        },
        "settings": {name: str(value) for name, value in info.settings.items() if not _by_default(name, value)},
        "versions": {name: str(version) for name, version in info.versions.items()},
    }


def describe_quantities(runs: Sequence[RunView]) -> dict[str, dict[str, str]]:
    """Name → title and definition of every quantity that one of ``runs`` measured, headline ones first."""
    names = dict.fromkeys(name for run in runs for name in run.quantities)
    return {
        name: {
            "title": quantity_info(name).title,
            "definition": quantity_info(name).definition,
            "family": quantity_info(name).family,
        }
        for name in sorted(names, key=lambda name: not quantity_info(name).headline)
    }


def describe_layers(run: RunView) -> list[dict[str, Any]]:
    """The table of the layers: status and values of each."""
    return [
        {
            "layer": row.layer,
            "depth": depth,
            "severity": row.severity,
            "words": row.in_words,
            "sure": row.evidence in ("", "sufficient"),
            "values": {name: float(f"{v:.5g}") if np.isfinite(v) else None for name, v in row.values.items()},
            "texts": {name: row.text(name) for name in row.values if name in row.errors or name == "alpha"},
        }
        for depth, row in enumerate(layer_statuses(run))
    ]


def _by_default(name: str, value: Any) -> bool:
    return value == DEFAULTS[name] if name in DEFAULTS else not value


def _minutes(run: RunView) -> list[float]:
    time = run.model("time")
    return [] if time is None else [round(float(seconds) / 60, 4) for seconds in time]


def _losses(run: RunView) -> dict[str, float]:
    """The last value of each loss that the loop reported, the training loss first."""
    last = {}
    for name in sorted(
        (n for n in run.metrics if "loss" in n and n != "first_loss"), key=lambda n: (n != "train_loss", n)
    ):
        values = run.model(f"metrics/{name}")
        known = values[np.isfinite(values)] if values is not None else np.empty(0)
        if len(known):
            last[name] = float(known[-1])
    return last


def _since(run: RunView) -> float | None:
    """The start of the worst alert, if there is no verdict."""
    decided = deciding_alerts(run)
    worst = max(decided, key=lambda alert: SEVERITIES.index(alert.severity), default=None)
    return None if worst is None else worst.since_epoch
