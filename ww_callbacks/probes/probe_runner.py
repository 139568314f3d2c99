"""Runs the representation probe at its own cadence, and adds its values to the other quantities."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from ww_callbacks.integrations.schema import LayerRow
from ww_callbacks.probes.representation import RepresentationProbe


class Probing:
    """A probe and the model that it probes.

    Args:
        probe: the probe.
        model: the model, run on this process alone.

    Raises:
        TypeError: if ``probe`` is no probe.
        TypeError, ValueError: if the model cannot be probed; see :meth:`RepresentationProbe.validate`.
    """

    def __init__(self, probe: RepresentationProbe, model: Any) -> None:
        if not isinstance(probe, RepresentationProbe):
            what = "the class itself" if probe is RepresentationProbe else type(probe).__name__
            raise TypeError(
                f"Expected `probe` to be a RepresentationProbe, but got {what}. Wrap the batch: "
                "`probe=RepresentationProbe(batch)`, from `ww_callbacks.probes.representation`."
            )
        probe.validate(model)
        self._probe, self._model = probe, model
        self._found: dict[int, Mapping[str, Mapping[str, float]]] = {}

    def take(self, step: int, epoch: float) -> None:
        """Probe the model in its current state, if a probe is due; the values wait for the snapshot of this step."""
        if self._probe.due(epoch):
            self._found[step] = self._probe.observe(self._model)

    def merge(self, step: int, rows: Sequence[LayerRow]) -> tuple[list[LayerRow], dict[str, float]]:
        """The rows with the values found at ``step``, and those of the whole model."""
        found = self._found.pop(step, {})
        merged = [replace(row, values={**row.values, **found.get(row.layer, {})}) for row in rows]
        return merged, dict(found.get("model", {}))

    def state_dict(self) -> dict[str, Any]:
        """The state of the cadence."""
        return self._probe.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore a saved cadence."""
        self._probe.load_state_dict(dict(state))
