"""TensorBoard event files, written without TensorFlow."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ww_callbacks.integrations.extras import require
from ww_callbacks.integrations.quantity_info import quantity_info
from ww_callbacks.integrations.scalars import (
    LAYER_PREFIX,
    PREFIX,
    describe,
    evidence_text,
    layer_scalars,
    layers_text,
    outliers,
    scalars,
    unmeasured,
)
from ww_callbacks.integrations.schema import Alert, RunInfo, Snapshot, Verdict
from ww_callbacks.integrations.sinks.event_file import EventFile
from ww_callbacks.spectral.detectors.base import epoch_text
from ww_callbacks.spectral.number_text import with_error


class TensorBoardSink:
    """Writes model-level scalars, the worst layers and the alerts for TensorBoard.

    Args:
        target: the folder of the event file; None for that of the record. Or a function that takes a ``Summary``
            protocol buffer and a step, and adds it to an event file that is already open:
            ``SummaryWriter.file_writer.add_summary`` of ``torch``.
        scalars: whether to write the scalars; not needed if the run's logger has them already.
        per_layer: whether to also write every layer's quantities; thousands of tags make TensorBoard slow.
        histograms: whether to also write one histogram of log10 λ per layer, from its spectral density.
        layout: whether to write a layout for the Custom Scalars page: median and 10–90 % band of each quantity. It
            replaces a layout that the same event file already has.

    Raises:
        ImportError: if TensorBoard is not installed.
    """

    name = "TensorBoard"

    def __init__(
        self,
        target: str | os.PathLike[str] | Callable[[Any, int], object] | None = None,
        scalars: bool = True,
        per_layer: bool = False,
        histograms: bool = False,
        layout: bool = True,
    ) -> None:
        require("tensorboard", "tensorboard")
        self._target = target
        self._scalars = scalars
        self._per_layer = per_layer
        self._histograms = histograms
        self._layout = layout
        self._laid_out: list[str] = []
        self._described: set[str] = set()
        self._writer: EventFile | None = None
        self._step = 0
        self._opened = False

    def open(self, run: RunInfo, resumed: bool) -> None:
        """Open the event file, unless ``target`` is a function.

        Steps that a resumed run repeats need no removal: TensorBoard drops a tag's later points when its step
        decreases.
        """
        if not callable(self._target):
            self._writer = EventFile(Path(run.directory if self._target is None else self._target))
        self._opened = True
        self._laid_out, self._described = [], set()
        if not resumed:
            settings = "\n".join(f"| {_cell(name)} | {_cell(value)} |" for name, value in run.settings.items())
            self._add(_text("settings", f"| argument | value |\n|---|---|\n{settings}"), 0)

    def snapshot(self, snapshot: Snapshot) -> None:
        """Write one event with the whole snapshot, and flush it, so that live pages show it."""
        from tensorboard.compat.proto.summary_pb2 import Summary

        values = scalars(snapshot) if self._scalars else {}
        if self._layout:
            self._lay_out(values, snapshot.step)
        if self._per_layer:
            values |= layer_scalars(snapshot)
        summary = Summary()
        for tag, value in values.items():
            summary.MergeFrom(self._scalar(tag, value))
        if self._histograms:
            for row in snapshot.rows:
                if row.density and len(row.density["count"]):
                    summary.MergeFrom(_histogram(f"{LAYER_PREFIX}{row.layer}/log10_lambda", row.density))
        worst = worst_table(snapshot)
        if worst:
            summary.MergeFrom(_text("worst_layers", worst))
        self._add(summary, snapshot.step)
        self._step = snapshot.step

    def alert(self, alert: Alert) -> None:
        """Write the alert as text."""
        text = (
            f"**{alert.severity}: {_escape(alert.kind)}** in {_escape(layers_text(alert.layers))}, "
            f"since epoch {epoch_text(alert.since_epoch)}\n\n{_escape(alert.message)}\n\n"
            f"Evidence: {_escape(evidence_text(alert))}\n\n{_escape(alert.recommendation)}"
        )
        self._add(_text("alert_log", text), alert.step)

    def close(self, verdict: Verdict | None) -> None:
        """Write the verdict, and close the event file if this sink opened it."""
        if not self._opened:
            return
        self._opened = False
        try:
            if verdict is not None:
                text = f"**{_escape(verdict.state)}**: {_escape(verdict.reason)}\n\n{_escape(verdict.recommendation)}"
                self._add(_text("verdict", text), self._step)
        finally:
            if self._writer is not None:
                writer, self._writer = self._writer, None
                writer.close()

    def _add(self, summary: Any, step: int) -> None:
        if callable(self._target):
            self._target(summary, step)
        else:
            assert self._writer is not None
            self._writer.add(summary, step)

    def _scalar(self, tag: str, value: float) -> Any:
        from tensorboard.plugins.scalar.summary_v2 import scalar_pb

        # TensorBoard keeps the first description of a tag.
        description = "" if tag in self._described else describe(tag)
        self._described.add(tag)
        return scalar_pb(tag, value, description=description or None)

    def _lay_out(self, tags: Mapping[str, float], step: int) -> None:
        """Write the layout once there are tags, and again when a quantity is added."""
        medians = [tag.removeprefix(PREFIX) for tag in tags if tag.endswith("/median")]
        names = [name for name in (tag.removesuffix("/median") for tag in medians) if quantity_info(name).definition]
        if names and not set(names) <= set(self._laid_out):
            self._laid_out = list(dict.fromkeys([*self._laid_out, *names]))
            self._add(_layout(self._laid_out), step)


def worst_table(snapshot: Snapshot) -> str:
    """The worst layers of each quantity as a Markdown table; empty if there are none."""
    lines = [f"| {_cell(layer)} | not measured | {_cell(status)} | |" for layer, status in unmeasured(snapshot)[:10]]
    lines += [
        f"| {_cell(found.layer)} | {_cell(found.quantity.title)} | {with_error(found.value, found.error)} "
        f"| {with_error(found.median, found.median_error)} |"
        for found in outliers(snapshot)
    ]
    return "\n".join(["| layer | what | value | median over layers |", "|---|---|---|---|", *lines]) if lines else ""


def _cell(value: object) -> str:
    return _escape(str(value)).replace("|", "\\|").replace("\n", " ")


def _escape(text: str) -> str:
    """``text`` escaped for Markdown: names of layers contain underscores and asterisks."""
    for mark in ("\\", "`", "*", "_", "<", "#"):
        text = text.replace(mark, "&lt;" if mark == "<" else "\\" + mark)
    return text


def _text(name: str, text: str) -> Any:
    from tensorboard.plugins.text.summary_v2 import text_pb

    return text_pb(f"{PREFIX}{name}", text)


def _histogram(tag: str, density: Mapping[str, Any]) -> Any:
    """The bins of the density as a histogram, so that no eigenvalues have to be kept."""
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.plugins.histogram import metadata
    from tensorboard.util import tensor_util

    edges = np.asarray(density["log10_lambda_edges"], dtype=np.float64)
    count = np.asarray(density["count"], dtype=np.float64)
    buckets = np.stack([edges[:-1], edges[1:], count], axis=1)
    summary = Summary()
    summary.value.add(
        tag=tag,
        metadata=metadata.create_summary_metadata(display_name=None, description="log10 of the eigenvalues λ"),
        tensor=tensor_util.make_tensor_proto(buckets, dtype=np.float64),
    )
    return summary


def _layout(names: Sequence[str]) -> Any:
    """The Custom Scalars page: one chart per quantity with its median and the 10–90 % band over layers."""
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.plugins.custom_scalar import layout_pb2, metadata
    from tensorboard.util import tensor_util

    titles = {name: quantity_info(name).title for name in names}
    charts = []
    for name in names:
        tag = f"{PREFIX}{name}/"
        band = layout_pb2.MarginChartContent.Series(value=tag + "median", lower=tag + "q10", upper=tag + "q90")
        margin = layout_pb2.MarginChartContent(series=[band])
        charts.append(layout_pb2.Chart(title=f"{titles[name]}: median and 10–90 % of the layers", margin=margin))
        both = layout_pb2.MultilineChartContent(tag=[f"{tag}(mean|median|min|max)$"])
        charts.append(layout_pb2.Chart(title=f"{titles[name]}: mean, median, extremes", multiline=both))
    layout = layout_pb2.Layout(category=[layout_pb2.Category(title="Spectra of the weights", chart=charts)])
    summary = Summary()
    summary.value.add(
        tag=metadata.CONFIG_SUMMARY_TAG,
        metadata=metadata.create_summary_metadata(),
        tensor=tensor_util.make_tensor_proto(layout.SerializeToString(), dtype=np.object_),
    )
    return summary
