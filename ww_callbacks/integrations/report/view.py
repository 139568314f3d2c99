"""The page's views by name: the one list that the report and the TensorBoard plugin draw from."""

from __future__ import annotations

from collections.abc import Sequence

from ww_callbacks.integrations.figures.run_view import RunView
from ww_callbacks.integrations.figures.specs.flow import flow_spec
from ww_callbacks.integrations.figures.specs.heat_map import heat_map_spec
from ww_callbacks.integrations.figures.specs.histograms import histograms_spec
from ww_callbacks.integrations.figures.specs.history import history_spec
from ww_callbacks.integrations.figures.specs.spectrum import spectrum_at
from ww_callbacks.integrations.figures.specs.timeline import timeline_spec
from ww_callbacks.integrations.figures.style import Spec, message_figure

VIEWS = ("timeline", "heat_map", "spectrum", "history", "flow", "histograms")


def draw(
    view: str, runs: Sequence[RunView], quantity: str = "alpha", layer: str = "", epoch: float | None = None
) -> Spec:
    """The figure of ``view``; what cannot be drawn gives a figure that says why.

    Args:
        view: one of :data:`VIEWS`.
        runs: the runs; ``spectrum`` shows the first.
        quantity: for ``heat_map``.
        layer: for ``spectrum`` and ``history``.
        epoch: for ``spectrum``; None means the last one.

    Raises:
        KeyError: for a view that there is not.
    """
    drawers = {
        "timeline": lambda: timeline_spec(runs),
        "heat_map": lambda: heat_map_spec(runs, quantity),
        "spectrum": lambda: spectrum_at(runs[0], layer, epoch),
        "history": lambda: history_spec(runs, layer),
        "flow": lambda: flow_spec(runs),
        "histograms": lambda: histograms_spec(runs),
    }
    drawer = drawers[view]
    if not runs:
        return message_figure("No run is chosen.")
    try:
        return drawer()
    except ValueError as error:  # a layer that this run does not have, a damaged line of its densities
        return message_figure(str(error))
