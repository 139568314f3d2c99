"""Shared marks on the axis of epochs: its range, the start of the verdict, and the snapshot to keep."""

from __future__ import annotations

from collections.abc import Sequence

from ww_callbacks.integrations.figures.palette import GREY, INK, ORANGE, VERMILION, faint, run_style
from ww_callbacks.integrations.figures.run_summary import BAD, WATCH, tone
from ww_callbacks.integrations.figures.run_view import RunView
from ww_callbacks.integrations.figures.style import Spec
from ww_callbacks.integrations.figures.text import escape
from ww_callbacks.spectral.detectors.base import epoch_text

MOST_MARKED = 3
"""Maximum number of runs with marked verdicts; more marks would hide the lines."""
SHADES = {BAD: faint(VERMILION, 0.13), WATCH: faint(ORANGE, 0.12)}
FLAG = 15


def epoch_range(runs: Sequence[RunView]) -> list[float]:
    """The range of epochs of all ``runs`` with padding, so that stacked panels are aligned."""
    ends = [(float(run.epochs.min()), float(run.epochs.max())) for run in runs if len(run.epochs)]
    low, high = (min(a for a, _ in ends), max(b for _, b in ends)) if ends else (0.0, 1.0)
    room = 0.02 * (high - low) or 0.5
    return [low - room, high + room]


def mark_verdicts(panel: Spec, runs: Sequence[RunView], *, flags: bool = False) -> None:
    """Shade the time since each verdict's start and mark the snapshot to keep; ``flags`` adds labels above."""
    if len(runs) > MOST_MARKED:
        return
    low, high = epoch_range(runs)
    row = 0
    for position, run in enumerate(runs):
        verdict = run.verdict
        if verdict is None:
            continue
        who = f"{run.label}: " if len(runs) > 1 else ""
        flagged = []
        shade = SHADES.get(tone(verdict.state))
        if shade and verdict.since_epoch is not None:
            end = max(float(run.epochs[-1]) if len(run.epochs) else 0.0, verdict.since_epoch)
            panel["layout"]["shapes"].append(
                {**_upright(verdict.since_epoch, end), "type": "rect", "fillcolor": shade, "line": {"width": 0}}
            )
            flagged.append(
                (f"{who}{verdict.state} since epoch {epoch_text(verdict.since_epoch)}", verdict.since_epoch, INK)
            )
        last = float(run.epochs[-1]) if len(run.epochs) else 0.0
        if verdict.best_epoch is not None and (verdict.best_epoch < last or verdict.since_epoch is not None):
            line = {"color": run_style(position)["color"], "dash": "dot", "width": 1.5}
            panel["layout"]["shapes"].append(
                {**_upright(verdict.best_epoch, verdict.best_epoch), "type": "line", "line": line}
            )
            flagged.append((f"{who}keep epoch {epoch_text(verdict.best_epoch)}", verdict.best_epoch, GREY))
        for text, epoch, colour in flagged if flags else ():
            panel["layout"]["annotations"].append(_flag(text, epoch, row, colour, left=epoch < (low + high) / 2))
            row += 1
    if row:
        panel["layout"]["margin"]["t"] += FLAG * row
        panel["layout"]["height"] += FLAG * row


def _upright(start: float, end: float) -> Spec:
    return {"xref": "x", "yref": "y domain", "x0": start, "x1": end, "y0": 0, "y1": 1, "layer": "below"}


def _flag(text: str, epoch: float, row: int, colour: str, *, left: bool) -> Spec:
    """A label above the panel that starts or ends at ``epoch``."""
    return {
        "text": f"▏{escape(text)}" if left else f"{escape(text)}▕",
        "x": epoch,
        "y": 1,
        "xref": "x",
        "yref": "y domain",
        "xanchor": "left" if left else "right",
        "yanchor": "bottom",
        "yshift": FLAG * row,
        "showarrow": False,
        "font": {"size": 11, "color": colour},
    }
