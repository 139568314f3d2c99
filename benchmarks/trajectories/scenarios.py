"""What is done in a run: healthy, overtrained or broken, with hyper-parameters drawn from the run's own seed."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from benchmarks.trajectories.domains import DOMAINS

HEALTHY = ("clean", "cosine_wd", "strong_wd", "dropout", "sgd")
OVERTRAINED = ("noise20", "noise40", "noise30", "tiny", "tiny_noise20")
LONG = "long"
"""Four times as many epochs as a healthy run, with dropout so that training error stays: does the score drift?"""

BROKEN = ("rate_too_high", "scale_collapse", "rank_collapse", "nan", "dead_layer")
HELD_OUT_ONLY = ("sgd", "noise30", "tiny_noise20")
"""Scenarios that no tuning saw."""

FIRST_HELD_OUT_SEED = 100
"""Seeds below it are for tuning, the others for the report."""


@dataclass(frozen=True)
class Run:
    """Everything that fixes a run."""

    domain: str
    scenario: str
    seed: int
    size: int
    width: int
    epochs: int
    batch: int
    optimizer: str
    rate: float
    weight_decay: float = 0.0
    dropout: float = 0.0
    noise: float = 0.0
    cosine: bool = False

    @property
    def name(self) -> str:
        """The name of its file."""
        return f"{self.domain}-{self.scenario}-{self.seed:03d}"

    def as_dict(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


def draw(domain: str, scenario: str, seed: int) -> Run:
    """The run of this domain, scenario and seed."""
    rng = np.random.default_rng([zlib.crc32(f"{domain}/{scenario}".encode()), seed])
    d = DOMAINS[domain]
    overtrains = scenario in OVERTRAINED
    low, high = d.tiny if scenario.startswith("tiny") else d.noise_sizes if overtrains else d.sizes
    size = int(rng.integers(low, high + 1))
    epochs = int(rng.choice(d.noise_epochs if overtrains else d.epochs))
    width = int(rng.choice(d.widths))
    batch = int(rng.choice([16, 32] if size < 500 else [32, 64] if size < 6000 else [128, 256]))
    rate = float(np.exp(rng.uniform(np.log(7e-4), np.log(3e-3))))
    values: dict[str, Any] = {
        "domain": domain, "scenario": scenario, "seed": seed, "size": size, "width": width, "epochs": epochs,
        "batch": batch, "optimizer": "adam", "rate": rate,
    }  # fmt: skip
    if scenario.startswith("tiny"):
        values["epochs"] = epochs * 2
    if "noise" in scenario:
        values["noise"] = int(scenario[-2:]) / 100
        values["cosine"] = bool(rng.random() < 0.2)
    if scenario == "cosine_wd":
        values |= {"optimizer": "adamw", "weight_decay": float(rng.choice([0.01, 0.05, 0.1])), "cosine": True}
    if scenario == "strong_wd":
        values |= {"optimizer": "adamw", "weight_decay": float(rng.choice([0.5, 1.0, 2.0]))}
    if scenario == "dropout":
        values |= {"dropout": float(rng.choice([0.2, 0.3, 0.5]))}
    if scenario == "long":
        values |= {"dropout": float(rng.choice([0.2, 0.3, 0.5])), "epochs": 4 * epochs}
    if scenario == "sgd":
        values |= {"optimizer": "sgd", "rate": float(np.exp(rng.uniform(np.log(0.02), np.log(0.08))))}
    if scenario in BROKEN:
        values |= {"epochs": min(epochs, 24)}
    if scenario == "rate_too_high":
        values |= {"optimizer": str(rng.choice(["adam", "sgd"])), "rate": float(rng.choice([0.3, 1.0, 3.0]))}
    return Run(**values)


TUNED = ("digits", "mnist", "pydoc")
"""Domains whose runs (seeds below ``FIRST_HELD_OUT_SEED``, scenarios outside ``HELD_OUT_ONLY``) were used to tune."""

UNTOUCHED = ("cnn", "moby")
"""Domains that no tuning touched."""


def tuning_runs(seeds: int = 8) -> Iterator[Run]:
    """The runs that detectors were tuned on."""
    for seed in range(seeds):
        for domain in TUNED:
            for scenario in HEALTHY + OVERTRAINED:
                if scenario not in HELD_OUT_ONLY:
                    yield draw(domain, scenario, seed)


def held_out_runs(seeds: int = 4) -> Iterator[Run]:
    """The runs that are reported: other seeds, more scenarios, two more domains."""
    for seed in range(FIRST_HELD_OUT_SEED, FIRST_HELD_OUT_SEED + seeds):
        for domain in ("digits", "mnist", "cnn", "moby", "pydoc"):
            for scenario in HEALTHY + OVERTRAINED:
                yield draw(domain, scenario, seed)


def broken_runs() -> Iterator[Run]:
    """Runs that break: two seeds in two domains to tune on, one other seed in every domain."""
    for seed, domains in ((0, TUNED[:2]), (1, TUNED[:2]), (FIRST_HELD_OUT_SEED, ("digits", "mnist", "cnn", "moby"))):
        for domain in domains:
            for scenario in BROKEN:
                yield draw(domain, scenario, seed)


def long_runs(seeds: int = 2) -> Iterator[Run]:
    """Long runs of every domain; none was used to tune."""
    for seed in range(FIRST_HELD_OUT_SEED, FIRST_HELD_OUT_SEED + seeds):
        for domain in ("digits", "mnist", "cnn", "moby", "pydoc"):
            yield draw(domain, LONG, seed)


def tied_runs() -> Iterator[Run]:
    """Language models whose output layer is their embedding; none was used to tune."""
    for scenario in ("clean", "noise40", "cosine_wd", "tiny", "dropout", "noise20", "strong_wd"):
        yield draw("tied", scenario, FIRST_HELD_OUT_SEED)
