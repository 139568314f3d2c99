"""What the heat map of a run opens on: the quantity behind its finding, never a wall of values without evidence."""

from __future__ import annotations

from dataclasses import dataclass

from ww_callbacks.integrations.figures.alert_rules import rule_for
from ww_callbacks.integrations.figures.run_summary import deciding_alerts
from ww_callbacks.integrations.figures.run_view import RunView
from ww_callbacks.integrations.quantity_info import quantity_info


@dataclass(frozen=True)
class FirstLook:
    """What to open on.

    Attributes:
        quantity: the quantity.
        relative: whether each layer is compared with its own first value.
        why: the reason, where it is not what one would expect; else empty.
    """

    quantity: str
    relative: bool = False
    why: str = ""


def first_look(run: RunView) -> FirstLook:
    """The quantity that raised the run's worst alert; else α, or the effective rank where α is mostly unsure."""
    for alert in deciding_alerts(run):
        rule = rule_for(alert.kind, alert.layers, run)
        if rule is not None:
            return FirstLook(
                rule.quantity,
                rule.relative in ("highest", "first"),
                f"Opened on the quantity behind the {alert.severity} “{alert.kind}” of {run.label}: "
                f"{quantity_info(rule.quantity).title}.",
            )
    if "alpha" in run.quantities:
        sure = run.sure("alpha")[:, run.measured("alpha")]
        share = float(sure.mean()) if sure.size else 0.0
        if share >= 0.5 or "effective_rank" not in run.quantities:
            return FirstLook("alpha")
        why = f"α has enough evidence in only {share:.0%} of the values. Choose α to see them all the same."
        return FirstLook("effective_rank", relative=True, why=f"Opened on the effective rank: {why}")
    if "effective_rank" in run.quantities:
        return FirstLook("effective_rank", relative=True)
    return FirstLook(next(iter(run.quantities), "alpha"))
