"""Write a few trajectories to the tests' data, so that the detector is tested on real training without training.

python -m benchmarks.overfitting.export tests/data/overtraining.json
"""

from __future__ import annotations

import json
import math
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.overfitting.replay import observations
from benchmarks.overfitting.runs import draw
from benchmarks.overfitting.training import trajectory
from benchmarks.overfitting.truth import RAW, TEST_ACCURACY, TEST_LOSS, truth

RUNS = (
    ("digits", "clean", 0, False),
    ("cnn", "sgd", 0, False),
    ("language", "clean", 1, False),
    ("long dropout", "clean", 0, False),
    ("lstm", "short clean", 0, False),
    ("cnn batchnorm", "hard noise40", 0, False),
    ("signals", "hard noise40", 0, False),
    ("tabular", "hard tiny", 0, False),
    ("cnn batchnorm", "hard noise40", 0, True),
    ("digits", "clean", 0, True),
    ("language", "hard tiny", 0, True),
)
"""Domain, scenario, seed, and whether validation values are logged."""


def _short(value: float) -> float | None:
    """Five digits; null for what JSON has no number for."""
    return float(f"{value:.5g}") if math.isfinite(value) else None


def series(domain: str, scenario: str, seed: int, validation: bool) -> dict[str, Any]:
    """One run: what the detector sees, and how it went."""
    run = replace(draw(domain, scenario, seed), held_out=validation)
    arrays = trajectory(run)
    seen = list(observations(run, arrays, validation))
    judged = truth(run, arrays)
    return {
        "group": judged.group,
        "snapshots": [
            {
                "step": o.step,
                "epoch": o.epoch,
                "metrics": {k: _short(v) for k, v in o.metrics.items()},
                "epoch_losses": [_short(x) for x in o.epoch_losses],
                "layers": {n: {k: _short(float(v)) for k, v in row.items()} for n, row in o.layers.items()},
            }
            for o in seen
        ],
        "test_accuracy": [_short(float(x)) for x in arrays["truth"][:, RAW, TEST_ACCURACY]],
        "test_loss": [_short(float(x)) for x in arrays["truth"][:, RAW, TEST_LOSS]],
    }


def main(path: Path) -> None:
    """Write them all."""
    content = {f"{d}/{s}/{n}{'/validation' if v else ''}": series(d, s, n, v) for d, s, n, v in RUNS}
    path.write_text(json.dumps(content, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
