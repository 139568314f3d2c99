"""What the findings of a run come to: one state, its reason, and what to do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape

from ww_callbacks.spectral.detectors.base import Finding
from ww_callbacks.spectral.detectors.catalogue import STATES

QUIET = ("healthy", "no sign of overtraining", "not judged")
"""States in which nothing was found."""
_PRIORITY = ("broken", "diverging", "collapsing", "overtraining", "watch")


@dataclass(frozen=True)
class Verdict:
    """The verdict on a run.

    Attributes:
        state: ``healthy``, ``no sign of overtraining``, ``not judged``, ``watch``, ``overtraining``, ``collapsing``,
            ``diverging`` or ``broken``.
        reason: the reason, with numbers.
        layers: the layers that show it, strongest finding first.
        signals: ``<kind>/<name>`` → number, the evidence of the findings that count.
        since_step, since_epoch: when the deciding finding started, or None.
        confidence: 0 to 1, or None if none is justified.
        recommendation: what to do.
        best_step, best_epoch: the snapshot whose weights to keep: those of ``best_checkpoint``, which
            ``restore="best"`` puts back. With validation values, the newest within noise of the best; without, and
            without an alarm, the end of the last epoch. None if no epoch has ended.
        stopped: whether the callback stopped the run.
    """

    state: str
    reason: str
    layers: tuple[str, ...] = ()
    signals: Mapping[str, float] = field(default_factory=dict)
    since_step: int | None = None
    since_epoch: float | None = None
    confidence: float | None = None
    recommendation: str = ""
    best_step: int | None = None
    best_epoch: float | None = None
    stopped: bool = False

    def __str__(self) -> str:
        parts = [f"{self.state}: {self.reason}", self.recommendation, "The run was stopped." if self.stopped else ""]
        return " ".join(part for part in parts if part)

    def _repr_html_(self) -> str:
        return f"<p><b>{escape(self.state)}</b>: {escape(str(self).removeprefix(self.state + ': '))}</p>"


def _state_of(finding: Finding) -> str | None:
    """The state that a finding alone would give the run; None where it only informs."""
    if finding.severity == "info":
        return None
    state = STATES.get(finding.kind, "watch")
    # a warning of a collapse or an explosion while the training loss is fine is worth a look, no more
    return "watch" if finding.severity == "warning" and state != "broken" else state


def verdict(
    findings: Sequence[Finding],
    *,
    insufficient: str = "",
    doubt: str = "",
    validation: str = "",
    decline: str = "",
    snapshots: int | None = None,
) -> Verdict:
    """Judge a run by the findings that hold at its last snapshot. A pure function.

    Args:
        findings: what the detectors returned last, one list of all of them.
        insufficient: what is missing for a judgement of overtraining (see ``Overtraining.insufficient``); empty if
            nothing is.
        doubt: how far the absence of a sign can be trusted (see ``Overtraining.doubt``); empty if it can.
        validation: the validation values that decide (see ``Overtraining.validation``), for the reason.
        decline: which validation values are worse than their best without an alarm (see ``Overtraining.decline``).
        snapshots: snapshots judged so far, for the reason.

    Returns:
        The verdict. It is ``healthy`` only if overtraining could have been detected.

    >>> verdict([], insufficient="no epoch has ended yet").state
    'not judged'
    >>> verdict([], doubt="No validation values are logged.").state
    'no sign of overtraining'
    >>> verdict([], snapshots=12).reason
    'Validation does not get worse, and no other problem was found in 12 snapshots.'
    """
    ranked = [(state, f) for f in findings if (state := _state_of(f)) is not None]
    ranked.sort(key=lambda pair: _PRIORITY.index(pair[0]))
    informing = [f for f in findings if _state_of(f) is None]
    if not ranked:
        over = f" in {snapshots} snapshots" if snapshots is not None else ""
        if insufficient:
            state, reason = "not judged", f"Overtraining cannot be judged yet: {insufficient}."
        elif decline:
            state, reason = "watch", f"{decline} No other problem was found{over}."
        elif doubt:
            state, reason = "no sign of overtraining", f"No problem was found{over}. {doubt}"
        else:
            state = "healthy"
            rests = f" in {validation}" if validation else ""
            reason = f"Validation does not get worse{rests}, and no other problem was found{over}."
        notes = " ".join(f.message for f in informing)
        return Verdict(
            state=state,
            reason=f"{reason} Note: {notes}" if notes else reason,
            layers=tuple(dict.fromkeys(layer for f in informing for layer in f.layers)),
            signals=_signals(informing),
            recommendation=" ".join(dict.fromkeys(f.recommendation for f in informing)),
        )
    state, deciding = ranked[0]
    telling = [f for _, f in ranked]
    return Verdict(
        state=state,
        reason=" ".join(f.message for f in telling),
        layers=tuple(dict.fromkeys(layer for f in telling for layer in f.layers)),
        signals=_signals(telling),
        since_step=deciding.since_step,
        since_epoch=deciding.since_epoch,
        confidence=deciding.confidence,
        recommendation=deciding.recommendation,
        best_step=deciding.best_step,
        best_epoch=deciding.best_epoch,
    )


def _signals(findings: Sequence[Finding]) -> dict[str, float]:
    return {f"{f.kind}/{name}": float(value) for f in findings for name, value in f.evidence.items()}
