"""The page's views by name, for the report and the TensorBoard plugin."""

from __future__ import annotations

from collections.abc import Sequence

from ww_callbacks.integrations.figures.run_view import RunView
from ww_callbacks.integrations.figures.specs.alert_lane import alert_lane
from ww_callbacks.integrations.figures.specs.evidence import evidence_panels
from ww_callbacks.integrations.figures.specs.flow import flow_panels, random_panels
from ww_callbacks.integrations.figures.specs.heat_map import heat_map_panels
from ww_callbacks.integrations.figures.specs.histograms import histograms_panels
from ww_callbacks.integrations.figures.specs.history import history_panels
from ww_callbacks.integrations.figures.specs.spectrum import spectrum_panels
from ww_callbacks.integrations.figures.specs.timeline import timeline_panels
from ww_callbacks.integrations.figures.style import Spec, message_panel

VIEWS = ("evidence", "alerts", "timeline", "heat_map", "spectrum", "history", "flow", "random", "histograms")


def draw(
    view: str,
    runs: Sequence[RunView],
    quantity: str = "alpha",
    layer: str = "",
    epoch: float | None = None,
    relative: bool = False,
    notes: bool = False,
) -> list[Spec]:
    """The panels of ``view``; if it cannot be drawn, a panel with the reason.

    Args:
        view: one of :data:`VIEWS`.
        runs: the runs; ``spectrum`` shows the first.
        quantity: for ``heat_map``.
        layer: for ``spectrum`` and ``history``.
        epoch: for ``spectrum``; None means the last one.
        relative: for ``heat_map``: whether to show each layer relative to its first value.
        notes: for ``alerts``: whether to show notes; ``heat_map`` always contains them, for the page.

    Raises:
        KeyError: for an unknown view.
    """
    drawers = {
        "evidence": lambda: evidence_panels(runs),
        "alerts": lambda: [lane] if (lane := alert_lane(runs, notes)) is not None else [],
        "timeline": lambda: timeline_panels(runs),
        "heat_map": lambda: heat_map_panels(runs, quantity, relative, notes=True),
        "spectrum": lambda: spectrum_panels(runs[0], layer, epoch),
        "history": lambda: history_panels(runs, layer),
        "flow": lambda: flow_panels(runs),
        "random": lambda: random_panels(runs),
        "histograms": lambda: histograms_panels(runs),
    }
    drawer = drawers[view]
    if not runs:
        return [message_panel("No run is chosen.")]
    try:
        return drawer()
    except ValueError as error:  # an unknown layer, or a damaged line of its densities
        return [message_panel(str(error))]
