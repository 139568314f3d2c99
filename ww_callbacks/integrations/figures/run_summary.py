"""A run in words: the verdict, or the current state before there is one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from ww_callbacks.integrations.figures.layer_status import layer_statuses
from ww_callbacks.integrations.figures.palette import SEVERITIES
from ww_callbacks.integrations.figures.run_view import RunView
from ww_callbacks.integrations.scalars import LEAST_SECONDS, costs_too_much
from ww_callbacks.integrations.schema import Alert
from ww_callbacks.spectral.detectors.base import epoch_text, keep_text
from ww_callbacks.spectral.detectors.verdict import QUIET

GOOD, WATCH, BAD, OPEN = "good", "watch", "bad", "open"

IN_WORDS = {
    "scale collapse": ("{} is shrinking towards zero.", "{} are shrinking towards zero."),
    "rank collapse": (
        "{} is losing directions: its rank is collapsing.",
        "{} are losing directions: their rank is collapsing.",
    ),
    "explosion": (
        "{} grows or jumps without any gain in the loss.",
        "{} grow or jump without any gain in the loss.",
    ),
    "dead layer": ("{} no longer learns, while other layers do.", "{} no longer learn, while other layers do."),
    "non-finite": ("{} contains NaN or infinity.", "{} contain NaN or infinity."),
    "representation collapse": (
        "{} distinguishes its inputs less and less: its features are collapsing.",
        "{} distinguish their inputs less and less: their features are collapsing.",
    ),
}
"""Kind of alert → what it means for one layer and for several, without numbers."""
OF_THE_MODEL = {
    "overtraining": "Further training makes the model worse.",
    "non-finite": "The training loss is NaN or infinite.",
    "internal error": "The callback hit an internal error; training was not affected.",
}


@dataclass(frozen=True)
class Headline:
    """The summary of a run.

    Attributes:
        tone: ``good``, ``watch``, ``bad`` or ``open`` (undecided).
        title: the verdict, or a description of the current state.
        text: the problem, in plain words.
        advice: the recommendation; may be empty.
        why: the reason with its numbers; empty if ``text`` contains it.
    """

    tone: str
    title: str
    text: str
    advice: str
    why: str = ""


def tone(state: str) -> str:
    """The tone of a verdict's state: ``good``, ``watch``, ``bad`` or ``open``.

    Only ``healthy`` is good: without validation values, a run without signs may still be overtrained.

    >>> [tone(state) for state in ("healthy", "no sign of overtraining", "watch", "diverging")]
    ['good', 'open', 'watch', 'bad']
    """
    if state in QUIET:
        return GOOD if state == "healthy" else OPEN
    return WATCH if state == "watch" else BAD


def headline(run: RunView) -> Headline:
    """The verdict of ``run``; without one, the worst of its alerts."""
    verdict, decided = run.verdict, deciding_alerts(run)
    if verdict is None:
        return _so_far(run, decided)
    confidence = f"Confidence {verdict.confidence:.0%}." if verdict.confidence is not None else ""
    stopped = "The callback stopped the run." if verdict.stopped else ""
    if not decided:
        reason, _, notes = verdict.reason.partition(" Note: ")
        return Headline(tone(verdict.state), verdict.state, _sentences(reason, stopped), verdict.recommendation, notes)
    since = f"Since epoch {epoch_text(verdict.since_epoch)}." if verdict.since_epoch is not None else ""
    step, epoch = verdict.best_step, verdict.best_epoch
    keep = keep_text(step, epoch) if step is not None and epoch is not None else ""
    if keep in verdict.recommendation:
        keep = ""
    return Headline(
        tone(verdict.state),
        verdict.state,
        _sentences(in_plain_words(decided[0]), since, stopped),
        _sentences(keep, verdict.recommendation),
        _sentences(verdict.reason, confidence),
    )


def _so_far(run: RunView, decided: Sequence[Alert]) -> Headline:
    """The current state of a run without a verdict."""
    if not len(run.steps):
        return Headline(OPEN, "nothing measured yet", "The first snapshot appears when training starts.", "")
    if not decided:
        counts = f"{len(run.steps)} snapshot{'s' if len(run.steps) > 1 else ''} without an alert"
        counts += f", {len(run.alerts)} note{'s' if len(run.alerts) > 1 else ''}" if run.alerts else ""
        last_verdict = (
            f"At the last one: {run.last_verdict.state}. {run.last_verdict.reason}"
            if run.last_verdict is not None
            else ""
        )
        return Headline(OPEN, "no alert so far", _sentences(f"No final verdict: {counts}.", last_verdict), "")
    worst, count = decided[0], sum(alert.severity != "info" for alert in run.alerts)
    return Headline(
        {"warning": WATCH, "critical": BAD}[worst.severity],
        f"{worst.severity}: {worst.kind}",
        _sentences(in_plain_words(worst), f"Since epoch {epoch_text(worst.since_epoch)}."),
        worst.recommendation,
        _sentences(worst.message, f"{count} alert{'s' if count > 1 else ''} so far, no final verdict."),
    )


def deciding_alerts(run: RunView) -> list[Alert]:
    """The last alert of each kind on which the verdict, or the current state, is based; the deciding one first.

    Notes are not included.
    """
    verdict = run.verdict
    if verdict is not None and verdict.state in QUIET:
        return []
    latest = {alert.kind: alert for alert in run.alerts if alert.severity != "info"}
    named = [name.partition("/")[0] for name in verdict.signals] if verdict is not None else []
    order = list(dict.fromkeys(named))

    def rank(alert: Alert) -> tuple[int, int, int]:
        known = order.index(alert.kind) if alert.kind in order else len(order)
        return known, -SEVERITIES.index(alert.severity), -alert.step

    return sorted(latest.values(), key=rank)


def in_plain_words(alert: Alert) -> str:
    """The meaning of an alert, in a sentence without numbers; for an unknown kind, its message."""
    if alert.kind in IN_WORDS and alert.layers:
        one, several = IN_WORDS[alert.kind]
        named = [f"`{layer}`" for layer in alert.layers]
        if len(named) == 1:
            return one.format(named[0])
        rest = f"{len(named) - 1} more layers" if len(named) > 2 else named[1]
        return several.format(f"{named[0]} and {rest}")
    return OF_THE_MODEL.get(alert.kind, alert.message)


def alerted_layers(run: RunView, most: int = 4) -> str:
    """A sentence on which layers have an alert, of which kind and since when; the worst and the earliest first."""
    rows = [row for row in layer_statuses(run) if row.severity not in ("", "info")]
    if not rows:
        return ""
    rows.sort(key=lambda row: (-SEVERITIES.index(row.severity), row.since_epoch or 0.0))
    named = "; ".join(f"`{row.layer}` ({row.in_words})" for row in rows[:most])
    more = f"; and {len(rows) - most} more" if len(rows) > most else ""
    return f"{len(rows)} of {len(run.layers)} layers with an alert: {named}{more}."


def over_budget(run: RunView) -> bool:
    """Whether the callback exceeded its budget; without a budget, a tenth of the time."""
    overhead, time = run.model("overhead"), run.model("time")
    if overhead is None or time is None or not len(overhead):
        return False
    budget = run.record.run.settings.get("max_overhead")
    return costs_too_much(overhead[-1], time[-1], budget)


def cost_in_words(run: RunView, *, always: bool = False) -> str:
    """The cost of the callback; empty if it is within its budget, unless ``always``."""
    overhead, time = run.model("overhead"), run.model("time")
    if overhead is None or time is None or not len(overhead) or not (always or over_budget(run)):
        return ""
    share, spent = float(overhead[-1]), float(time[-1] * overhead[-1] / (1 + overhead[-1]))
    if not math.isfinite(share):
        return ""
    if share > 1 or time[-1] < LEAST_SECONDS:
        return f"{spent:.2g} s"
    return f"{share:.1%} of the training time ({spent:.2g} s)"


def notes(run: RunView) -> list[str]:
    """Remarks on the figures: an incomplete record, quantities that were left out."""
    remarks = []
    if run.record.torn:
        remarks.append(f"The record ends with {run.record.torn}; it is left out here.")
    left_out = str(run.record.model["left_out"].iloc[-1]) if len(run.record.model) else ""
    if left_out:
        remarks.append(f"Not everything was measured at the last snapshot: {left_out}.")
    return remarks


def _sentences(*parts: str) -> str:
    return " ".join(part.strip() for part in parts if part.strip())
