"""The page's views by name: the one list that the report and the TensorBoard plugin draw from."""

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
    """The panels of ``view``; what cannot be drawn gives a panel that says why.

    Args:
        view: one of :data:`VIEWS`.
        runs: the runs; ``spectrum`` shows the first.
        quantity: for ``heat_map``.
        layer: for ``spectrum`` and ``history``.
        epoch: for ``spectrum``; None means the last one.
        relative: for ``heat_map``: whether each layer is compared with its own first value.
        notes: for ``alerts``: whether alerts that only inform are shown; ``heat_map`` has them always, for the page.

    Raises:
        KeyError: for a view that there is not.
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
    except ValueError as error:  # a layer that this run does not have, a damaged line of its densities
        return [message_panel(str(error))]
