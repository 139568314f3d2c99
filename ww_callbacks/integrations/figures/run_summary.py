"""A run in words: what the verdict is, or how things stand while there is none yet."""

from __future__ import annotations

from dataclasses import dataclass

from ww_callbacks.integrations.figures.layer_status import layer_statuses
from ww_callbacks.integrations.figures.run_view import RunView
from ww_callbacks.integrations.figures.style import SEVERITIES

GOOD, WATCH, BAD, OPEN = "good", "watch", "bad", "open"
_TONES = {"healthy": GOOD, "no sign of overtraining": GOOD, "not judged": OPEN, "watch": WATCH}


@dataclass(frozen=True)
class Headline:
    """What to say first of a run.

    Attributes:
        tone: ``good``, ``watch``, ``bad`` or ``open`` (nothing can be said yet).
        title: the verdict, or what stands for it.
        text: the reason, in a sentence.
        advice: what to do; empty if nothing.
    """

    tone: str
    title: str
    text: str
    advice: str


def headline(run: RunView) -> Headline:
    """The verdict of ``run``; without one, the worst of its alerts."""
    verdict = run.verdict
    if verdict is not None:
        since = _since(verdict.since_epoch, verdict.reason)
        confidence = f" Confidence {verdict.confidence:.0%}." if verdict.confidence is not None else ""
        best = f" Snapshot to keep: epoch {verdict.best_epoch:.4g}." if verdict.best_epoch is not None else ""
        stopped = " The callback stopped the run." if verdict.stopped else ""
        title = verdict.state
        return Headline(
            _TONES.get(verdict.state, BAD),
            title,
            f"{verdict.reason}{since}{confidence}{stopped}",
            f"{verdict.recommendation}{best}".strip(),
        )
    if not len(run.steps):
        return Headline(OPEN, "nothing measured yet", "The first snapshot appears when training starts.", "")
    if not run.alerts:
        return Headline(GOOD, "no alert so far", f"No verdict yet; {len(run.steps)} snapshots without an alert.", "")
    worst = max(run.alerts, key=lambda alert: (SEVERITIES.index(alert.severity), alert.step))
    count = f"{len(run.alerts)} alert{'s' if len(run.alerts) > 1 else ''} so far, no verdict yet. "
    tone = {"info": GOOD, "warning": WATCH, "critical": BAD}[worst.severity]
    return Headline(
        tone,
        f"{worst.severity}: {worst.kind}",
        f"{count}{worst.message}{_since(worst.since_epoch, worst.message)}",
        worst.recommendation,
    )


def _since(epoch: float | None, said: str) -> str:
    """Since when, as a sentence; empty where that is unknown or already said."""
    if epoch is None or f"since epoch {epoch:.4g}" in said.lower():
        return ""
    return f" Since epoch {epoch:.4g}."


def alerted_layers(run: RunView, most: int = 4) -> str:
    """Which layers have an alert, which kind and since when, in a sentence; the worst and the earliest first."""
    rows = [row for row in layer_statuses(run) if row.severity]
    if not rows:
        return ""
    rows.sort(key=lambda row: (-SEVERITIES.index(row.severity), row.since_epoch or 0.0))
    named = "; ".join(f"{row.layer} ({row.in_words})" for row in rows[:most])
    more = f"; and {len(rows) - most} more" if len(rows) > most else ""
    return f"{len(rows)} of {len(run.layers)} layers with an alert: {named}{more}."


def notes(run: RunView) -> list[str]:
    """What a person should know before reading the figures: a torn record, what was left out."""
    said = []
    if run.record.torn:
        said.append(f"The record ends with {run.record.torn}; it is left out here.")
    left_out = str(run.record.model["left_out"].iloc[-1]) if len(run.record.model) else ""
    if left_out:
        said.append(f"Not everything was measured at the last snapshot: {left_out}.")
    return said
