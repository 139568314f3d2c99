"""The views on a run as plotly figures, for notebooks and papers; TensorBoard and the report show the same ones.

Each function takes one run or several, as records or as paths, and returns a ``plotly.graph_objects.Figure``:

    from ww_callbacks.integrations import figures

    figures.heat_map("spectral_runs/mine", "alpha").show()
    figures.save(figures.timeline(["runs/a", "runs/b"]), "timeline.pdf")
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from ww_callbacks.integrations.extras import require
from ww_callbacks.integrations.figures.export import save
from ww_callbacks.integrations.figures.run_view import Run, RunView, views
from ww_callbacks.integrations.figures.style import Spec

if TYPE_CHECKING:
    import plotly.graph_objects as go

    from ww_callbacks.spectral.aggregate.model_ranking import ModelSeries

__all__ = [
    "correlation_flow",
    "heat_map",
    "histograms",
    "layer_history",
    "layer_spectrum",
    "metric_against_accuracy",
    "save",
    "timeline",
]

Runs = Run | RunView | Sequence[Run | RunView]


def timeline(runs: Runs) -> go.Figure:
    """Verdict and alerts over the loss, and below it median and inner 80 % of the layers of the headline quantities."""
    from ww_callbacks.integrations.figures.specs.timeline import timeline_spec

    return _figure(timeline_spec(views(runs)))


def heat_map(runs: Runs, quantity: str = "alpha") -> go.Figure:
    """Layers in depth order against epochs, coloured by ``quantity``, alerts marked; one panel a run.

    Grey cells are values of a power-law fit that the evidence does not support.

    Raises:
        ValueError: if no run measured ``quantity``.
    """
    from ww_callbacks.integrations.figures.specs.heat_map import heat_map_spec

    return _figure(heat_map_spec(views(runs), quantity))


def layer_spectrum(run: Run | RunView, layer: str) -> go.Figure:
    """The spectral density of ``layer`` on log axes and D against xmin, with a slider over the epochs.

    Drawn beside it: the power law with its exponent and standard error (dashed and grey where the evidence does not
    suffice), the Marchenko–Pastur bulk of a random matrix, the largest eigenvalue of the shuffled weights, xmin.

    Raises:
        ValueError: if the run does not watch ``layer``.
    """
    from ww_callbacks.integrations.figures.specs.spectrum import spectrum_spec

    return _figure(spectrum_spec(views(run)[0], layer))


def layer_history(runs: Runs, layer: str, quantities: Sequence[str] | None = None) -> go.Figure:
    """The quantities of ``layer`` over time, with the standard error of alpha, the runs overlaid.

    Raises:
        ValueError: if no run watches ``layer`` or none measured one of ``quantities``.
    """
    from ww_callbacks.integrations.figures.specs.history import history_spec

    return _figure(history_spec(views(runs), layer, quantities))


def correlation_flow(runs: Runs) -> go.Figure:
    """Alpha against depth with up to nine epochs overlaid, and rand_distance against alpha; one column a run."""
    from ww_callbacks.integrations.figures.specs.flow import flow_spec

    return _figure(flow_spec(views(runs)))


def histograms(runs: Runs) -> go.Figure:
    """Alpha and log spectral norm over the layers: the last epochs of two runs, or the first and last of one."""
    from ww_callbacks.integrations.figures.specs.histograms import histograms_spec

    return _figure(histograms_spec(views(runs)))


def metric_against_accuracy(
    series: ModelSeries | Mapping[str, ModelSeries], metric: str = "metric", accuracy: str = "accuracy"
) -> go.Figure:
    """The scatter of a :class:`ModelSeries` with its least-squares line; several series are overlaid.

    Simpson's paradox shows where every series slopes one way and all models together the other.

    Args:
        series: one comparison, or several by name.
        metric: title of the metric's axis.
        accuracy: title of the accuracy's axis.
    """
    from ww_callbacks.integrations.figures.specs.model_series import model_series_spec

    several = series if isinstance(series, Mapping) else {"models": series}
    return _figure(model_series_spec(several, metric, accuracy))


def _figure(spec: Spec) -> go.Figure:
    require("plotly", "figures")
    import plotly.graph_objects as go

    return go.Figure(spec)
