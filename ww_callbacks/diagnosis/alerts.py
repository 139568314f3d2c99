"""Findings → alerts: what is reported, how often, and which action is taken."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from ww_callbacks.faults import Faults
from ww_callbacks.integrations.schema import Alert
from ww_callbacks.settings import Settings
from ww_callbacks.spectral.detectors.base import Finding
from ww_callbacks.spectral.detectors.catalogue import CANNOT_STOP

_SEVERITY = {"info": 0, "warning": 1, "critical": 2}


class AlertList(list[Alert]):
    """The alerts of a run; a table in a notebook."""

    def _repr_html_(self) -> str:
        import pandas as pd

        columns = ["severity", "kind", "epoch", "since_epoch", "layers", "message", "recommendation", "action"]
        rows = [[", ".join(v) if isinstance(v := getattr(a, c), tuple) else v for c in columns] for a in self]
        return pd.DataFrame(rows, columns=columns).to_html(index=False)


class AlertManager:
    """Turns findings into alerts according to the policies, with a cooldown, and keeps the alert that stops the run.

    A finding is reported if one of its layers has not been reported for ``cooldown`` snapshots, or if it became more
    severe.

    Args:
        settings: policies, cooldown and the early-stopping preset.
        faults: reports errors of the user's own policies.
    """

    def __init__(self, settings: Settings, faults: Faults) -> None:
        self._faults = faults
        self._policies = settings.policies
        self._cooldown = settings.cooldown
        self._stops = settings.early_stopping != "off"
        self._said: dict[str, dict[str, tuple[int, int]]] = {}
        self._count = 0
        self.stop: Alert | None = None

    def judge(self, findings: Iterable[Finding], step: int, epoch: float) -> list[Alert]:
        """The alerts to report at this snapshot, with their actions applied."""
        self._count += 1
        alerts = []
        for finding in findings:
            policy = self._policy(finding)
            if policy == "ignore":
                continue
            stops = policy == "stop" and self.stop is None
            if not (self._is_news(finding) or stops):
                continue
            action = policy if isinstance(policy, str) else "call"
            alert = Alert(**vars(finding), step=step, epoch=epoch, action=action)
            if callable(policy) and self._call(policy, alert) == "stop":
                stops = self.stop is None
            if stops:
                self.stop = alert
            alerts.append(alert)
        return alerts

    def _call(self, policy: Callable[[Alert], object], alert: Alert) -> object:
        """The return value of the user's own policy; None if it raises, which is reported."""
        try:
            return policy(alert)
        except Exception as error:
            self._faults.fault(f"your policy for `{alert.kind}` raised an error; the alert is still reported", error)
            return None

    def _policy(self, finding: Finding) -> Any:
        if finding.kind in self._policies:
            return self._policies[finding.kind]
        if self._stops and finding.may_stop and finding.kind not in CANNOT_STOP:
            return "stop"
        return "log" if finding.severity == "info" else "warn"

    def _is_news(self, finding: Finding) -> bool:
        said = self._said.setdefault(finding.kind, {})
        grave = _SEVERITY[finding.severity]
        news = False
        for layer in finding.layers or ("",):
            count, before = said.get(layer, (-self._cooldown - 1, -1))
            if self._count - count > self._cooldown or grave > before:
                news = True
        if news:
            said.update(dict.fromkeys(finding.layers or ("",), (self._count, grave)))
        return news

    def state_dict(self) -> dict[str, Any]:
        """When each alert was last reported, as plain values."""
        return {
            "count": self._count,
            "said": {kind: {name: list(v) for name, v in layers.items()} for kind, layers in self._said.items()},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore a saved state.

        Raises:
            ValueError: if the state is invalid.
        """
        try:
            self._count = int(state["count"])
            self._said = {
                str(kind): {str(name): _pair(v) for name, v in layers.items()} for kind, layers in state["said"].items()
            }
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"Expected a saved state of the alerts but got {state!r:.80}.") from error


def _pair(values: Sequence[Any]) -> tuple[int, int]:
    count, grave = values
    return int(count), int(grave)
