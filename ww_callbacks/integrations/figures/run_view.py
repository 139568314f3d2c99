"""A run as matrices: one per quantity, with layers in depth order as rows and snapshots as columns."""

from __future__ import annotations

import html
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from ww_callbacks.integrations.figures.names import blocks, short_names
from ww_callbacks.integrations.figures.style import rests_on_fit
from ww_callbacks.integrations.quantity_info import quantity_info
from ww_callbacks.integrations.record import RunRecord, read_run
from ww_callbacks.integrations.schema import Alert, Verdict
from ww_callbacks.spectral.measuring.accuracy import ERROR

Run = RunRecord | str | os.PathLike[str]
"""A run for the figures: its record, or the path of the record."""

SUFFICIENT = "sufficient"
_NOT_QUANTITIES = {"step", "epoch", "kind", "layer", "index", "status", "changed", "frozen"}


@dataclass(frozen=True)
class RunView:
    """A run's record as matrices, each computed on first use.

    Attributes:
        record: the record.
        label: the name of the run in figures.
    """

    record: RunRecord
    label: str

    @cached_property
    def layers(self) -> list[str]:
        """The names of the layers in depth order: those in the header, then those that only appear in rows."""
        names = [info.name for info in self.record.run.layers]
        return list(dict.fromkeys([*names, *self.record.layers["layer"].unique()]))

    @cached_property
    def short_names(self) -> list[str]:
        """The layers' names for axis labels: short, unique, escaped for plotly."""
        return short_names(self.layers)

    @cached_property
    def blocks(self) -> list[int]:
        """The positions at which a new block begins."""
        return blocks(self.layers)

    @cached_property
    def plain_names(self) -> list[str]:
        """The short names, not escaped."""
        return [html.unescape(name) for name in self.short_names]

    @cached_property
    def steps(self) -> np.ndarray:
        """Optimiser steps done at each snapshot, shape (T,)."""
        return self.record.model["step"].to_numpy(dtype=np.int64)

    @cached_property
    def epochs(self) -> np.ndarray:
        """Epochs completed at each snapshot, shape (T,)."""
        return self.record.model["epoch"].to_numpy(dtype=np.float64)

    @cached_property
    def full(self) -> np.ndarray:
        """Which snapshots measured the spectra, shape (T,)."""
        return (self.record.model["kind"] == "full").to_numpy(dtype=bool)

    @cached_property
    def quantities(self) -> list[str]:
        """The measured quantities that are numbers."""
        frame = self.record.layers
        return [
            str(name)
            for name in frame.columns
            if name not in _NOT_QUANTITIES
            and pd.api.types.is_numeric_dtype(frame[name])
            and str(name).removesuffix(ERROR) not in frame.columns.difference([name])
        ]

    @cached_property
    def _cells(self) -> tuple[np.ndarray, np.ndarray]:
        """The index into the matrices for each row of the layers' table."""
        frame = self.record.layers
        place = {name: position for position, name in enumerate(self.layers)}
        rows = frame["layer"].map(place).to_numpy(dtype=np.int64)
        if self.record.model["step"].is_unique:
            order = np.argsort(self.steps, kind="stable")
            return rows, order[np.searchsorted(self.steps, frame["step"].to_numpy(dtype=np.int64), sorter=order)]
        # Measured twice at the same step: the first rows of a layer there belong to the first snapshot, and so on.
        key = ["step", "kind"]
        models = self.record.model[key].assign(
            turn=self.record.model.groupby(key).cumcount(), column=range(len(self.steps))
        )
        turns = frame[[*key, "layer"]].assign(turn=frame.groupby([*key, "layer"]).cumcount())
        return rows, turns.merge(models, how="left", on=[*key, "turn"])["column"].to_numpy(dtype=np.int64)

    def _matrix(self, column: str, empty: Any, dtype: Any) -> np.ndarray:
        matrix = np.full((len(self.layers), len(self.steps)), empty, dtype=dtype)
        if column in self.record.layers.columns:
            matrix[self._cells] = self.record.layers[column].to_numpy(dtype=dtype)
        return matrix

    @cached_property
    def _matrices(self) -> dict[str, np.ndarray]:
        return {}

    def values(self, quantity: str) -> np.ndarray:
        """The values of ``quantity``, shape (layers, T); NaN if there is none."""
        if quantity not in self._matrices:
            self._matrices[quantity] = self._matrix(quantity, np.nan, np.float64)
        return self._matrices[quantity]

    def estimated(self, quantity: str) -> bool:
        """Whether some values of ``quantity`` are estimates."""
        return quantity + ERROR in self.record.layers.columns

    def errors(self, quantity: str) -> np.ndarray:
        """The errors of the values of ``quantity``, shape (layers, T); NaN if a value is exact or missing.

        Those of estimates are in the record. α has its standard error, σ = (α − 1)/√n of the maximum-likelihood
        estimate over the n eigenvalues of the tail, and α·log10 λ_1 has σ·|log10 λ_1|, because λ_1 is known exactly.
        """
        if quantity in ("alpha", "alpha_weighted"):
            sigma = self.values("sigma")
            return sigma if quantity == "alpha" else sigma * np.abs(self.values("log_spectral_norm"))
        if not self.estimated(quantity):
            return np.broadcast_to(np.nan, (len(self.layers), len(self.steps)))
        return self.values(quantity + ERROR)

    @cached_property
    def evidence(self) -> np.ndarray:
        """``sufficient``, or why alpha is not reliable; shape (layers, T), empty if not measured."""
        return self._matrix("alpha_evidence", "", object)

    @cached_property
    def status(self) -> np.ndarray:
        """``ok``, or why values are missing; shape (layers, T), empty if the layer was not measured."""
        return self._matrix("status", "", object)

    @cached_property
    def frozen(self) -> np.ndarray:
        """Which layers were not trained at each snapshot, shape (layers, T)."""
        return self._matrix("frozen", False, bool)

    def sure(self, quantity: str) -> np.ndarray:
        """Whether each value of ``quantity`` has sufficient evidence, shape (layers, T).

        Only quantities of a power-law fit can lack it.
        """
        if rests_on_fit(quantity) and "alpha_evidence" in self.record.layers.columns:
            return self.evidence == SUFFICIENT
        return np.ones((len(self.layers), len(self.steps)), dtype=bool)

    def measured(self, quantity: str) -> np.ndarray:
        """The positions of the snapshots that measured ``quantity``, one per step (the last if there are several).

        Cheap snapshots are skipped for quantities that need a spectrum, and those between two probes for quantities of
        a probe. With ``accuracy=``, so are those in which no layer had changed enough for α to be measured again.
        """
        cost = quantity_info(quantity).cost
        when = np.arange(len(self.steps)) if cost == "cheap" else np.flatnonzero(self.full)
        known = np.isfinite(self.values(quantity)[:, when]).any(axis=0)
        tolerant = cost == "spectrum" and self.record.run.settings.get("accuracy", "exact") != "exact"
        if cost == "probe" or (tolerant and known.any()):
            when = when[known]
        _, from_the_end = np.unique(self.steps[when][::-1], return_index=True)
        return when[np.sort(len(when) - 1 - from_the_end)]

    def model(self, name: str) -> np.ndarray | None:
        """A column of the model's table, shape (T,), or None."""
        if name not in self.record.model.columns:
            return None
        return self.record.model[name].to_numpy(dtype=np.float64)

    @property
    def metrics(self) -> list[str]:
        """The names of the metrics that the loop logged."""
        prefix = "metrics/"
        return [str(name)[len(prefix) :] for name in self.record.model.columns if str(name).startswith(prefix)]

    @property
    def alerts(self) -> list[Alert]:
        """The alerts in order."""
        return self.record.alerts

    @property
    def verdict(self) -> Verdict | None:
        """The current verdict."""
        return self.record.verdict

    @property
    def last_verdict(self) -> Verdict | None:
        """The verdict if the run ended at its last snapshot."""
        return self.record.last_verdict


def views(runs: Run | RunView | Sequence[Run | RunView]) -> list[RunView]:
    """``runs``, one or several, as views with distinct labels.

    Raises:
        FileNotFoundError: if a path has no record.
        ValueError: if there is no run.
    """
    given = [runs] if isinstance(runs, (RunRecord, RunView, str, os.PathLike)) else list(runs)
    if not given:
        raise ValueError("Expected at least one run, got none.")
    records = [run if isinstance(run, (RunRecord, RunView)) else read_run(run) for run in given]
    folders = [run.record.path.parent if isinstance(run, RunView) else run.path.parent for run in records]
    labels = _labels([folder.resolve().parts for folder in folders])
    return [
        run if isinstance(run, RunView) else RunView(run, label) for run, label in zip(records, labels, strict=True)
    ]


def _labels(paths: Sequence[tuple[str, ...]]) -> list[str]:
    """The shortest distinct ends of the paths; numbered if the whole paths are the same."""
    depth = 1
    longest = max(map(len, paths))
    while depth < longest and len({path[-depth:] for path in paths}) < len(paths):
        depth += 1
    labels = ["/".join(path[-depth:]) for path in paths]
    if len(set(labels)) < len(labels):
        labels = [f"{label} ({number})" for number, label in enumerate(labels, start=1)]
    return labels
