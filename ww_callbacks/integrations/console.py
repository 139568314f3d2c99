"""What the run says in the terminal: one line a snapshot, alerts with their reason, and how it ended."""

from __future__ import annotations

import importlib.util
import math
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median

from ww_callbacks.integrations.record import RECORD_NAME
from ww_callbacks.integrations.scalars import evidence_text, layers_text
from ww_callbacks.integrations.schema import Alert, RunInfo, Snapshot, Verdict

_ASCII = str.maketrans(
    {"α": "alpha", "σ": "sigma", "λ": "lambda", "Δ": "d", "‖": "||", "−": "-", "–": "-", "—": "-", "·": "|"}
    | {"×": "x", "≥": ">=", "≤": "<=", "→": "->", "…": "...", "₀": "0", "₁": "1", "±": "+/-", "√": "sqrt "}
)
_SIGNS = {"info": "note", "warning": "WARNING", "critical": "CRITICAL"}
_EVIDENCE_SHOWN = 4
"""Numbers of an alert's evidence that the terminal shows; the record holds all."""


class ConsoleSink:
    """Prints one line a snapshot, and alerts as they come.

    It only ever writes whole lines, through ``write`` where a progress bar is drawn; it moves no cursor and uses no
    colour. Where the environment variable ``CI`` is set, it prints alerts and the end only.

    Args:
        write: prints one line (given without its newline) without breaking the progress bar: ``tqdm.write``, a rich
            console's ``print``, Keras's ``io_utils.print_msg``; None prints to standard output.
        verbose: 0 prints nothing.
    """

    name = "console"
    brief = False
    """Whether the run is one of many short ones, and gets one line beside its alerts."""

    def __init__(self, write: Callable[[str], object] | None = None, verbose: int = 1) -> None:
        self._write = write
        self._verbose = verbose
        self._quiet = os.environ.get("CI", "").lower() not in ("", "0", "false")
        self._directory = self._line = ""
        self._alerts = self._snapshots = 0
        self._said: set[str] = set()
        self._overhead = self._spent = 0.0

    def open(self, run: RunInfo, resumed: bool) -> None:
        """Say what is watched and where the record lies."""
        self._directory = run.directory
        self._alerts = self._snapshots = 0
        if not self._quiet and not self.brief:
            again = f", resumed at step {run.resumed_at}" if resumed and run.resumed_at is not None else ""
            self._say(
                f"spectra: watching {_count(len(run.layers), 'layer')}{again}; record in {_near(self._directory)}"
            )

    def snapshot(self, snapshot: Snapshot) -> None:
        """Print the snapshot's line."""
        self._snapshots += 1
        self._overhead = snapshot.overhead
        self._spent = _spent(snapshot)
        self._line = snapshot_line(snapshot, self._alerts)
        if not self._quiet and not self.brief:
            self._say(self._line)

    def alert(self, alert: Alert) -> None:
        """Print the alert: where, what, since when, the evidence, and what to do."""
        self._alerts += 1
        evidence = ", ".join(evidence_text(alert).split(", ")[:_EVIDENCE_SHOWN])
        told = alert.since_step == alert.step or alert.message.startswith("Since")
        since = "" if told else f" Since {_when(alert.since_step, alert.since_epoch)}."
        self._said.add(alert.message)
        stopped = " Training is being stopped." if alert.action == "stop" else ""
        self._say(
            f"spectra: {_SIGNS[alert.severity]} at {_when(alert.step, alert.epoch)}: {alert.kind} in "
            f"{layers_text(alert.layers)}: {alert.message}{since}{f' ({evidence})' if evidence else ''}{stopped}"
        )
        if alert.recommendation:
            self._say(f"         {alert.recommendation}")

    def close(self, verdict: Verdict | None) -> None:
        """Print the verdict, the cost, and how to see more."""
        if not self._snapshots:
            return
        if self.brief:
            self._say(f"{self._line} · verdict: {verdict.state if verdict else 'none'}")
            return
        if verdict is not None:
            self._say(f"spectra: verdict: {verdict.state}. {verdict.reason} {verdict.recommendation}".rstrip())
        folder = _near(self._directory)
        record = Path(folder, RECORD_NAME)
        there = Path(self._directory, RECORD_NAME).exists()
        self._say(
            f"spectra: {_count(self._snapshots, 'snapshot')}, {_count(self._alerts, 'alert')}, cost "
            f"{_cost(self._overhead, self._spent)}; {f'record: {record}' if there else 'there is no record'}"
        )
        if not there:
            return
        page = f"tensorboard --logdir {folder}  (tab SPECTRA), or " if importlib.util.find_spec("tensorboard") else ""
        self._say(f"spectra: to look inside: {page}ww-callbacks report {folder} -o report.html")

    def _say(self, text: str) -> None:
        if self._verbose < 1:
            return
        line = printable(text, getattr(sys.stdout, "encoding", None) or "utf-8")
        if self._write is not None:
            self._write(line)
        else:
            print(line, flush=True)


def snapshot_line(snapshot: Snapshot, alerts: int) -> str:
    """A snapshot in one line; what it did not measure is left out."""
    model = snapshot.model
    parts = [_when(snapshot.step, snapshot.epoch)]
    alpha = model.get("alpha/median", math.nan)
    judged = sum(bool(row.values.get("alpha_evidence")) for row in snapshot.rows)
    enough = sum(row.values.get("alpha_evidence") == "sufficient" for row in snapshot.rows)
    if math.isfinite(alpha):
        band = f" [{model.get('alpha/q10', math.nan):.2f}–{model.get('alpha/q90', math.nan):.2f}]" if enough > 1 else ""
        parts.append(f"α {alpha:.2f}{band} over {enough} of {_count(judged, 'layer')}")
    elif judged:
        parts.append(f"α: too little evidence in {_count(judged, 'layer')}")
    parts += _moved([row.values.get("relative_distance_from_init", math.nan) for row in snapshot.rows])
    if math.isfinite(rank := model.get("effective_rank/median", math.nan)):
        parts.append(f"effective rank {rank:.4g}")
    missing = sum(row.status != "ok" for row in snapshot.rows)
    if missing:
        parts.append(f"{_count(missing, 'layer')} not measurable")
    if math.isfinite(snapshot.overhead):
        parts.append(f"cost {_cost(snapshot.overhead, _spent(snapshot))}")
    if alerts:
        parts.append(_count(alerts, "alert"))
    if snapshot.left_out:
        parts.append(f"left out: {snapshot.left_out}")
    return "spectra: " + " · ".join(parts)


def printable(text: str, encoding: str) -> str:
    """``text`` with what ``encoding`` cannot show spelt in ASCII.

    >>> printable("α 3.1 [2.9–3.4] · cost 1 %", "ascii")
    'alpha 3.1 [2.9-3.4] | cost 1 %'
    """
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        text = text.translate(_ASCII).encode(encoding, "replace").decode(encoding)
    except LookupError:
        text = text.translate(_ASCII).encode("ascii", "replace").decode()
    return text


def _moved(distances: Sequence[float | str]) -> list[str]:
    """The median ‖W−W_0‖/‖W_0‖ of the layers that moved: where most are frozen, that of all would be 0."""
    known = [d for d in distances if isinstance(d, float) and math.isfinite(d)]
    moved = [d for d in known if d > 0.0]
    if not known:
        return []
    among = f" in {len(moved):,} of {_count(len(known), 'layer')}" if 0 < len(moved) < len(known) else ""
    return [f"moved {median(moved) if moved else 0.0:.3g} of W_0{among}"]


def _when(step: int, epoch: float) -> str:
    if step == 0:
        return "before training"
    return f"epoch {epoch:.4g}" if epoch > 0 else f"step {step:,}"


def _spent(snapshot: Snapshot) -> float:
    """Seconds that the callback has cost so far, from its share of the time without it."""
    return snapshot.time * snapshot.overhead / (1.0 + snapshot.overhead)


def _cost(share: float, seconds: float) -> str:
    """The callback's cost: a share, and the seconds, since a share of very little looks like much."""
    if not math.isfinite(share):
        return "unknown"
    if share > 1.0:
        return f"{seconds:.2g} s, more than this short training"
    return f"{100 * share:.2g} % ({seconds:.2g} s)"


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def _near(directory: str) -> str:
    """The folder as a person would type it from here."""
    path = Path(directory)
    try:
        return str(path.relative_to(Path.cwd()))
    except (ValueError, OSError):
        return str(path)
