"""Plotly figures of a run, for notebooks and papers; TensorBoard and the report show the same figures.

Each function takes one or several runs, as records or paths, and returns a ``plotly.graph_objects.Figure``:

    from ww_callbacks.integrations import figures

    figures.heat_map("spectral_runs/mine", "alpha").show()
    figures.save(figures.timeline(["runs/a", "runs/b"]), "timeline.pdf")

Use ``dark=True`` for dark pages.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from ww_callbacks.integrations.extras import require
from ww_callbacks.integrations.figures.export import save
from ww_callbacks.integrations.figures.grid import joined
from ww_callbacks.integrations.figures.palette import dark as in_dark
from ww_callbacks.integrations.figures.palette import written_out
from ww_callbacks.integrations.figures.run_view import Run, RunView, views
from ww_callbacks.integrations.figures.style import Spec, message_panel

if TYPE_CHECKING:
    import plotly.graph_objects as go

    from ww_callbacks.spectral.aggregate.model_ranking import ModelSeries

__all__ = [
    "correlation_flow",
    "evidence",
    "heat_map",
    "histograms",
    "layer_history",
    "layer_spectrum",
    "metric_against_accuracy",
    "save",
    "timeline",
]

Runs = Run | RunView | Sequence[Run | RunView]


def timeline(runs: Runs, *, dark: bool = False) -> go.Figure:
    """Plot alerts and loss, and below them the median and the inner 80 % of the layers for the main quantities.

    Args:
        runs: one or several runs: records, or paths of records or of their folders.
        dark: whether the figure is for a dark page.
    """
    from ww_callbacks.integrations.figures.specs.alert_lane import alert_lane
    from ww_callbacks.integrations.figures.specs.timeline import timeline_panels

    shown = views(runs)
    lane = alert_lane(shown)
    return _figure(joined(([lane] if lane else []) + timeline_panels(shown), columns=2), dark)


def evidence(runs: Runs, *, dark: bool = False) -> go.Figure:
    """Plot the evidence for a verdict: the quantity that raised it, its threshold, and the layers that crossed it.

    Args:
        runs: one or several runs: records, or paths of records or of their folders.
        dark: whether the figure is for a dark page.
    """
    from ww_callbacks.integrations.figures.specs.evidence import evidence_panels

    return _figure(joined(evidence_panels(views(runs)) or [message_panel("No run has a finding.")]), dark)


def heat_map(runs: Runs, quantity: str = "alpha", *, relative: bool = False, dark: bool = False) -> go.Figure:
    """Plot a heat map of ``quantity``, layers in depth order against epochs, with alerts; one panel per run.

    Faint cells are values of a power-law fit without sufficient evidence.

    Args:
        runs: one or several runs: records, or paths of records or of their folders.
        quantity: name of the quantity.
        relative: whether to show each layer relative to its own first value.
        dark: whether the figure is for a dark page.

    Raises:
        ValueError: if no run measured ``quantity``.
    """
    from ww_callbacks.integrations.figures.specs.heat_map import heat_map_panels

    return _figure(joined(heat_map_panels(views(runs), quantity, relative)), dark)


def layer_spectrum(run: Run | RunView, layer: str, *, dark: bool = False) -> go.Figure:
    """Plot the spectral density of ``layer`` on log axes and D against xmin, with a slider over the epochs.

    The plot also shows the first epoch, the power law with its exponent and standard error (dashed and grey without
    sufficient evidence), the Marchenko–Pastur bulk of a random matrix, the largest eigenvalue of the shuffled weights,
    and xmin.

    Args:
        run: a record, or the path of one or of its folder.
        layer: name of the layer.
        dark: whether the figure is for a dark page.

    Raises:
        ValueError: if the run does not watch ``layer``.
    """
    from ww_callbacks.integrations.figures.specs.spectrum import spectrum_spec

    return _figure(spectrum_spec(views(run)[0], layer), dark)


def layer_history(runs: Runs, layer: str, quantities: Sequence[str] | None = None, *, dark: bool = False) -> go.Figure:
    """Plot the quantities of ``layer`` over time, with the standard error of alpha; runs are overlaid.

    Args:
        runs: one or several runs: records, or paths of records or of their folders.
        layer: name of the layer.
        quantities: names of quantities; None for all measured ones.
        dark: whether the figure is for a dark page.

    Raises:
        ValueError: if no run watches ``layer`` or none measured one of ``quantities``.
    """
    from ww_callbacks.integrations.figures.specs.history import history_panels

    return _figure(joined(history_panels(views(runs), layer, quantities)), dark)


def correlation_flow(runs: Runs, *, dark: bool = False) -> go.Figure:
    """Plot alpha over depth for up to nine epochs, and rand_distance against alpha, with one panel per run.

    Args:
        runs: one or several runs: records, or paths of records or of their folders.
        dark: whether the figure is for a dark page.
    """
    from ww_callbacks.integrations.figures.specs.flow import flow_panels, random_panels

    shown = views(runs)
    return _figure(joined(flow_panels(shown) + random_panels(shown), columns=min(len(shown), 3)), dark)


def histograms(runs: Runs, *, dark: bool = False) -> go.Figure:
    """Plot alpha and log spectral norm over the layers: the last epoch of each run, or both ends of one run.

    Args:
        runs: one or several runs: records, or paths of records or of their folders.
        dark: whether the figure is for a dark page.
    """
    from ww_callbacks.integrations.figures.specs.histograms import histograms_panels

    return _figure(joined(histograms_panels(views(runs)), columns=2), dark)


def metric_against_accuracy(
    series: ModelSeries | Mapping[str, ModelSeries], metric: str = "metric", accuracy: str = "accuracy"
) -> go.Figure:
    """Plot the models of a :class:`ModelSeries` with the least-squares line; several series are overlaid.

    In Simpson's paradox, every series slopes one way and all models together the other.

    Args:
        series: one comparison, or several by name.
        metric: title of the axis of the metric.
        accuracy: title of the axis of the accuracy.
    """
    from ww_callbacks.integrations.figures.specs.model_series import model_series_spec

    several = series if isinstance(series, Mapping) else {"models": series}
    return _figure(model_series_spec(several, metric, accuracy))


def _figure(spec: Spec, dark: bool = False) -> go.Figure:
    require("plotly", "figures")
    import plotly.graph_objects as go

    return go.Figure(written_out(in_dark(spec) if dark else spec))
