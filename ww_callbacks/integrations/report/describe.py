"""What the page knows of the runs besides the figures, as plain values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from ww_callbacks.integrations.figures.layer_status import layer_statuses
from ww_callbacks.integrations.figures.run_summary import alerted_layers, headline, notes
from ww_callbacks.integrations.figures.run_view import RunView
from ww_callbacks.integrations.quantity_info import quantity_info

MOST_ALERTS = 300


def describe_run(run: RunView) -> dict[str, Any]:
    """The run's verdict in words, alerts, layers, settings and versions."""
    info = run.record.run
    return {
        "name": run.label,
        "headline": asdict(headline(run)),
        "notes": notes(run),
        "alerted": alerted_layers(run),
        "alerts": [asdict(alert) for alert in run.alerts[-MOST_ALERTS:]],
        "alerts_in_all": len(run.alerts),
        "layers": run.layers,
        "quantities": run.quantities,
        "snapshots": len(run.steps),
        "epoch": float(run.epochs[-1]) if len(run.epochs) else None,
        "step": int(run.steps[-1]) if len(run.steps) else None,
        "overhead": float(overhead[-1]) if (overhead := run.model("overhead")) is not None and len(overhead) else None,
        "finished": run.verdict is not None,
        "about": {
            "run id": info.run_id,
            "framework": info.framework,
            "started": info.started,
            "record": str(run.record.path),
            "layers watched": len(run.layers),
        },
        "settings": {name: str(value) for name, value in info.settings.items()},
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
    """The table of the layers: how each stands, and its values."""
    return [
        {
            "layer": row.layer,
            "severity": row.severity,
            "words": row.in_words,
            "sure": row.evidence in ("", "sufficient"),
            "values": {name: None if np.isnan(value) else float(f"{value:.5g}") for name, value in row.values.items()},
        }
        for row in layer_statuses(run)
    ]
