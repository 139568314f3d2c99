"""Runs that never were: records with the shape of real ones, written through the real record sink, epoch by epoch."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np

from ww_callbacks.integrations.record import RecordSink
from ww_callbacks.integrations.schema import Alert, LayerInfo, LayerRow, RunInfo, Snapshot, Verdict

SHAPE = (96, 64)
SETTINGS = {"quantities": "default", "early_stopping": "cautious", "max_overhead": 0.01}
VERSIONS = {"ww-callbacks": "0.1.0", "torch": "2.13.0"}


class SyntheticRun:
    """A run whose alpha falls with training; ``layers[-1]`` has too few eigenvalues for it to mean anything."""

    def __init__(
        self,
        folder: Path,
        layers: int | list[str] = 6,
        seed: int = 0,
        densities: bool = True,
        rand_distance: bool = False,
        collapse_at: int | None = None,
    ) -> None:
        self.folder = folder
        self.layers = [f"net.{i}.weight" for i in range(layers)] if isinstance(layers, int) else layers
        self.rng = np.random.default_rng(seed)
        self.densities = densities
        self.rand_distance = rand_distance
        self.collapse_at = collapse_at
        self.epoch = -1
        rows, columns = SHAPE
        noise = self.rng.normal(0, 1 / math.sqrt(rows), SHAPE)
        self.bulk = np.linalg.svd(noise, compute_uv=False)[: columns - 20] ** 2
        self.sink = RecordSink(folder)
        self.sink.open(
            RunInfo(
                run_id=f"run-{seed}",
                framework="plain",
                started="2026-01-01T00:00:00+00:00",
                settings=SETTINGS,
                versions=VERSIONS,
                layers=tuple(
                    LayerInfo(name, i, "dense", "Linear", SHAPE, (SHAPE,)) for i, name in enumerate(self.layers)
                ),
                directory=str(folder),
            ),
            resumed=False,
        )

    def advance(self, epochs: int = 1) -> SyntheticRun:
        """Write the next epochs; the first is epoch 0, before training."""
        for _ in range(epochs):
            self.epoch += 1
            rows = tuple(self._row(i, name) for i, name in enumerate(self.layers))
            self.sink.snapshot(self._snapshot(rows))
            if self.epoch == self.collapse_at:
                self.sink.alert(self.collapse())
        return self

    def collapse(self) -> Alert:
        """The alert that the second layer's scale has collapsed."""
        return Alert(
            kind="scale collapse",
            severity="critical",
            layers=(self.layers[1],),
            evidence={"scale_collapse": -0.61},
            since_step=max(self.epoch - 2, 0) * 100,
            since_epoch=float(max(self.epoch - 2, 0)),
            step=self.epoch * 100,
            epoch=float(self.epoch),
            message=f"The norm of {self.layers[1]} fell to a quarter of its initial value within two epochs.",
            recommendation="Lower weight decay on this layer, or go back to the checkpoint of two epochs ago.",
            action="warn",
        )

    def close(self, state: str = "collapsing") -> None:
        """End the run with a verdict."""
        self.sink.close(
            Verdict(
                state=state,
                reason=f"The scale of {self.layers[1]} is 0.61 decades below its initial value.",
                layers=(self.layers[1],),
                signals={"scale_collapse": -0.61},
                since_step=self.epoch * 50,
                since_epoch=self.epoch / 2,
                confidence=0.9,
                recommendation="Keep the checkpoint of the best epoch.",
                best_step=self.epoch * 25,
                best_epoch=self.epoch / 4,
            )
        )

    def _row(self, index: int, name: str) -> LayerRow:
        depth = index / max(len(self.layers) - 1, 1)
        jitter = self.rng.normal(0, 0.03)
        alpha = 2.2 + 2.5 * math.exp(-self.epoch / 8) + 1.5 * depth + jitter
        evidence = "few eigenvalues" if index == len(self.layers) - 1 else "sufficient"
        tail = 8 if index == len(self.layers) - 1 else 30
        log_norm = 0.9 + 0.35 * math.log1p(self.epoch) * (1 - 0.5 * depth) + 0.1 * jitter
        collapsed = self.collapse_at is not None and self.epoch >= self.collapse_at - 2 and index == 1
        values = {
            "alpha": alpha,
            "xmin": 2.0 + depth,
            "D": 0.05 + 0.01 * abs(jitter),
            "num_pl_spikes": float(tail),
            "sigma": (alpha - 1) / math.sqrt(tail),
            "alpha_evidence": evidence,
            "alpha_weighted": alpha * log_norm,
            "log_spectral_norm": log_norm - 1.2 * collapsed,
            "frobenius_norm": (8.0 + 0.1 * self.epoch) * (0.25 if collapsed else 1.0),
            "stable_rank": 12 - 0.05 * self.epoch + depth,
            "effective_rank": 50 - 10 * depth - 8 * (1 - math.exp(-self.epoch / 12)),
            "distance_from_init": 0.4 * math.sqrt(max(self.epoch, 0)),
            "relative_distance_from_init": 0.05 * math.sqrt(max(self.epoch, 0)),
            "cosine_to_init": math.exp(-self.epoch / 60),
            "update_norm": math.nan if self.epoch == 0 else 0.4 / math.sqrt(self.epoch),
            "relative_update_norm": math.nan if self.epoch == 0 else 0.05 / math.sqrt(self.epoch),
            "scale_collapse": -0.61 if collapsed else 0.01 * self.epoch / 10,
        }
        if self.rand_distance:
            values["rand_distance"] = 1.2 - 0.1 * alpha + 0.02 * jitter
        density = self._density(alpha, values) if self.densities else None
        return LayerRow(name, index, values, density=density)

    def _density(self, alpha: float, values: dict[str, float | str]) -> dict[str, object]:
        n, m = SHAPE
        tail = float(values["xmin"]) * (1 - self.rng.random(20)) ** (-1 / (alpha - 1))
        eigenvalues = np.sort(np.concatenate([self.bulk, tail]))
        edges = np.linspace(math.log10(eigenvalues[0]) - 1e-9, math.log10(eigenvalues[-1]) + 1e-9, 65)
        candidates = eigenvalues[::2]
        return {
            "log10_lambda_edges": edges.tolist(),
            "count": np.histogram(np.log10(eigenvalues), edges)[0].tolist(),
            "alpha": alpha,
            "xmin": values["xmin"],
            "xmax": eigenvalues[-1],
            "D": values["D"],
            "sigma": values["sigma"],
            "num_pl_spikes": values["num_pl_spikes"],
            "mp_minus": (1 - math.sqrt(m / n)) ** 2,
            "mp_plus": (1 + math.sqrt(m / n)) ** 2,
            "mp_variance": 1 / n,
            "candidates": {
                "xmin": candidates.tolist(),
                "D": (0.05 + 0.1 * np.abs(np.log(candidates / float(values["xmin"])))).tolist(),
                "alpha": np.linspace(1.5, alpha + 1, len(candidates)).tolist(),
            },
            "shuffled_max": (1 + math.sqrt(m / n)) ** 2 * 1.02,
        }

    def _snapshot(self, rows: tuple[LayerRow, ...]) -> Snapshot:
        model: dict[str, float] = {"alpha/share_sufficient": 1 - 1 / len(rows)}
        for name in ("alpha", "log_spectral_norm", "effective_rank", "relative_distance_from_init", "scale_collapse"):
            column = np.array([row.values[name] for row in rows], dtype=float)
            model[f"{name}/mean"] = float(column.mean())
            for statistic, q in (("median", 0.5), ("q10", 0.1), ("q90", 0.9), ("min", 0.0), ("max", 1.0)):
                model[f"{name}/{statistic}"] = float(np.quantile(column, q))
        metrics = {"train_loss": 2.0 * math.exp(-self.epoch / 6) + 0.1, "train_accuracy": 1 - math.exp(-self.epoch / 5)}
        return Snapshot(
            step=self.epoch * 100,
            epoch=float(self.epoch),
            kind="full",
            rows=rows,
            model=model,
            metrics=metrics if self.epoch else {},
            seconds=0.05,
            overhead=0.004,
            time=2.0 * self.epoch,
        )
