"""What is done in a run: hyper-parameters drawn from the run's own name, over two decades."""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from benchmarks.overfitting.domains import DOMAINS

SCENARIOS = (
    "clean",
    "hard noise40",
    "hard tiny",
    "short hard noise40",
    "noise40",
    "tiny",
    "short clean",
    "decay",
    "noise20",
    "short tiny",
    "long",
    "tiny noise20",
    "cosine",
    "short noise40",
    "sgd",
)
"""In the order of training, so that wherever time is cut every kind is there."""


@dataclass(frozen=True)
class Run:
    """Everything that fixes a run.

    Attributes:
        held_out: whether a tenth of the training data is held out for validation.
        told: whether the loop logs a training accuracy.
    """

    domain: str
    scenario: str
    seed: int
    size: int
    width: int
    epochs: int
    batch: int
    optimizer: str
    rate: float
    weight_decay: float
    dropout: float
    noise: float
    cosine: bool
    told: bool
    held_out: bool = False

    @property
    def key(self) -> str:
        """The name of the run, the same with and without held-out data."""
        return f"{self.domain}-{self.scenario}-{self.seed:03d}".replace(" ", "_")

    @property
    def family(self) -> str:
        """What is left out together."""
        return DOMAINS[self.domain].family

    @property
    def short(self) -> bool:
        """Whether it has so few epochs as a fine-tuning."""
        return self.epochs <= 8

    def as_dict(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


def _log_uniform(rng: np.random.Generator, low: float, high: float) -> float:
    return float(math.exp(rng.uniform(math.log(low), math.log(high))))


def draw(domain: str, scenario: str, seed: int) -> Run:
    """The run of this domain, scenario and seed."""
    rng = np.random.default_rng([zlib.crc32(f"{domain}/{scenario}".encode()), seed])
    d = DOMAINS[domain]
    tiny = "tiny" in scenario
    size = int(_log_uniform(rng, *(d.tiny if tiny else d.sizes)))
    hard = "hard" in scenario
    short, long = scenario.startswith("short"), scenario == "long" or domain == "long dropout"
    epochs = int(rng.integers(3, 9)) if short else int(_log_uniform(rng, 12, 45))
    if long:
        epochs *= 3
    if tiny and not short:
        epochs *= 2
    if hard and not short:
        epochs *= 2
    batch = (
        8
        if hard
        else int(rng.choice([8, 16, 32] if size < 250 else [8, 16, 32, 64] if size < 500 else [16, 32, 64, 128]))
    )
    most = d.steps * (2 if long or hard else 1)
    while epochs * math.ceil(size / batch) > most and batch < max(16, size // 12):
        batch *= 2
    epochs = max(3, min(epochs, most // math.ceil(size / batch)))
    optimizer = str(rng.choice(["adam", "adam", "adamw", "sgd"]))
    if scenario == "sgd":
        optimizer = "sgd"
    if scenario == "decay":
        optimizer = "adamw"
    rate = _log_uniform(rng, 5e-3, 2e-1) if optimizer == "sgd" else _log_uniform(rng, 2e-4, 1e-2)
    if hard:  # the upper part of the range, where memorising is fast
        rate = _log_uniform(rng, 3e-2, 2e-1) if optimizer == "sgd" else _log_uniform(rng, 2e-3, 1e-2)
    if d.pretrained:
        rate *= 0.3
    noise = float(scenario[-2:]) / 100 if "noise" in scenario else 0.0
    dropout = float(rng.choice([0.2, 0.4])) if domain == "long dropout" or rng.random() < 0.15 else 0.0
    decay = {"decay": _log_uniform(rng, 0.05, 2.0)}.get(scenario, 0.01 if optimizer == "adamw" else 0.0)
    if domain == "grokking":
        decay, optimizer, rate = float(rng.choice([0.3, 1.0])), "adamw", _log_uniform(rng, 1e-3, 6e-3)
    return Run(
        domain, scenario, seed, size, int(rng.choice(d.widths)), epochs, batch, optimizer, rate, decay, dropout, noise,
        cosine=scenario == "cosine" or bool(rng.random() < 0.2), told=bool(rng.random() < 0.67),
    )  # fmt: skip


def all_runs(seeds: int) -> Iterator[Run]:
    """Every run, seeds outermost."""
    for seed in range(seeds):
        for scenario in SCENARIOS:
            for domain in DOMAINS:
                yield draw(domain, scenario, seed)
