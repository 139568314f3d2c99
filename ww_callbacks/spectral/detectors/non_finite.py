"""Weights or a training loss that are no longer numbers."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from typing import Any

from ww_callbacks.spectral.detectors.arguments import check_state
from ww_callbacks.spectral.detectors.base import Finding, Observation, epoch_text


class NonFinite:
    """A layer contains NaN or ±inf, or the training loss is NaN or ±inf; reported immediately, because it is permanent.

    A layer is affected if its status is ``non-finite``, or, without a status, if all its values are missing although it
    had some before. The last snapshot without affected layers is the one to keep.

    Examples:
        >>> from ww_callbacks.spectral.detectors.base import Observation
        >>> observation = Observation(10, 1.0, {"fc": {}}, status={"fc": "non-finite"})
        >>> [finding.severity for finding in NonFinite().update(observation)]
        ['critical']
    """

    kind: str = "non-finite"
    can_stop: bool = True
    spoils_weights: bool = True
    state: str = "broken"
    needs: tuple[str, ...] = ("frobenius_norm",)

    def __init__(self) -> None:
        self._state: dict[str, Any] = {"detector": self.kind, "since": None, "good": None, "had": []}

    def update(self, observation: Observation) -> list[Finding]:
        """Process the next snapshot and return the current findings."""
        broken, had = [], set(self._state["had"])
        for layer, values in observation.layers.items():
            status = observation.status.get(layer)
            if status == "ok":
                had.add(layer)
                continue
            numbers = [v for v in values.values() if not isinstance(v, str)]
            finite = any(map(math.isfinite, numbers))
            if status == "non-finite" or (status is None and numbers and not finite and layer in had):
                broken.append(layer)
            elif finite:
                had.add(layer)
        if len(had) > len(self._state["had"]):
            self._state["had"] = sorted(had)
        loss = observation.metrics.get("train_loss")
        loss_broken = loss is not None and not math.isfinite(loss)
        if not broken and not loss_broken:
            self._state["since"] = None
            self._state["good"] = [observation.step, observation.epoch]
            return []
        if self._state["since"] is None:
            self._state["since"] = [observation.step, observation.epoch]
        step, epoch = self._state["since"]
        good_step, good_epoch = self._state["good"] or (None, None)
        if broken:
            where = f"{len(broken)} of {len(observation.layers)} layers contain NaN or ±inf, the first is `{broken[0]}`"
        else:
            where = f"the training loss is {loss} while the weights are still finite"
        back = f"Go back to the snapshot of epoch {epoch_text(good_epoch)} and l" if good_epoch is not None else "L"
        return [
            Finding(
                kind=self.kind,
                severity="critical",
                layers=tuple(broken),
                evidence={"layers": float(len(broken)), "train_loss_finite": float(not loss_broken)},
                since_step=step,
                since_epoch=epoch,
                message=f"Since epoch {epoch_text(epoch)} {where}.",
                recommendation=f"{back}ower the learning rate, clip gradients, or train in a wider number format.",
                # a single infinite loss under loss scaling is temporary; NaN weights are not
                may_stop=bool(broken),
                confidence=1.0 if broken else None,
                best_step=good_step,
                best_epoch=good_epoch,
            )
        ]

    def state_dict(self) -> dict[str, Any]:
        """The state as JSON-serialisable values."""
        return copy.deepcopy(self._state)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore a saved state.

        Raises:
            ValueError: if it is not a state of this detector.
        """
        self._state = check_state(state, self.kind)
