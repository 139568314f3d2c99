"""What the run says in the terminal: one line a snapshot, alerts with their reason, and how it ended."""

from __future__ import annotations

import importlib.util
import math
import os
import shutil
import sys
import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median

from ww_callbacks.integrations.record import RECORD_NAME
from ww_callbacks.integrations.scalars import costs_too_much, evidence_text, layers_text
from ww_callbacks.integrations.schema import Alert, RunInfo, Snapshot, Verdict
from ww_callbacks.spectral.measuring.values import is_measured

_ASCII = str.maketrans(
    {"α": "alpha", "σ": "sigma", "λ": "lambda", "Δ": "d", "‖": "||", "−": "-", "–": "-", "—": "-", "·": "|"}
    | {"×": "x", "≥": ">=", "≤": "<=", "→": "->", "…": "...", "₀": "0", "₁": "1", "±": "+/-", "√": "sqrt "}
)
_SIGNS = {"info": "note", "warning": "WARNING", "critical": "CRITICAL"}
WIDTH = 80
_EVIDENCE_SHOWN = 4
"""Numbers of an alert's evidence that the terminal shows; the record holds all."""


class ConsoleSink:
    """Prints one line a snapshot, and alerts as they come.

    A snapshot's line has fewer than 80 characters; longer lines are broken between words where standard output is a
    terminal. It only ever writes whole lines, through ``write`` where a progress bar is drawn; it moves no cursor and
    uses no colour. Where the environment variable ``CI`` is set, it prints alerts and the end only.

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
        self._directory = self._line = self._since = ""
        self._alerts = self._snapshots = 0
        self._said: set[str] = set()
        self._overhead = self._spent = 0.0
        self._budget: float | None = None

    def open(self, run: RunInfo, resumed: bool) -> None:
        """Say what is watched and where the record lies."""
        self._directory = run.directory
        self._budget = run.settings.get("max_overhead")
        self._since = " since it was resumed" if resumed else ""
        self._alerts = self._snapshots = 0
        if not self._quiet and not self.brief:
            again = f", resumed at step {run.resumed_at}" if resumed and run.resumed_at is not None else ""
            self._say(f"spectra: watching {_count(len(run.layers), 'layer')}{again}; record in {near(self._directory)}")

    def snapshot(self, snapshot: Snapshot) -> None:
        """Print the snapshot's line."""
        self._snapshots += 1
        self._overhead = snapshot.overhead
        self._spent = _spent(snapshot)
        self._line = snapshot_line(snapshot, self._alerts, self._budget)
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

    def note(self, text: str) -> None:
        """Print one more line, where snapshots get theirs."""
        if not self._quiet and not self.brief:
            self._say(f"spectra: {text}")

    def close(self, verdict: Verdict | None) -> None:
        """Print the verdict, the cost, and how to see more."""
        if not self._snapshots:
            return
        if self.brief:
            self._say(f"{self._line} · verdict: {verdict.state if verdict else 'none'}")
            return
        if verdict is not None:
            self._say(f"spectra: verdict: {verdict.state}. {verdict.reason} {verdict.recommendation}".rstrip())
        folder = near(self._directory)
        record = Path(folder, RECORD_NAME)
        there = Path(self._directory, RECORD_NAME).exists()
        self._say(
            f"spectra: {_count(self._snapshots, 'snapshot')}{self._since}, {_count(self._alerts, 'alert')}, cost "
            f"{_cost(self._overhead, self._spent)}; {f'record: {record}' if there else 'there is no record'}"
        )
        if not there:
            return
        page = f"tensorboard --logdir {folder}  (tab SPECTRA), or " if importlib.util.find_spec("tensorboard") else ""
        self._say(f"spectra: to look inside: {page}ww-callbacks report {folder} -o report.html")

    def _say(self, text: str) -> None:
        if self._verbose < 1:
            return
        line = for_terminal(printable(text, getattr(sys.stdout, "encoding", None) or "utf-8"))
        if self._write is not None:
            self._write(line)
        else:
            print(line, flush=True)


def snapshot_line(snapshot: Snapshot, alerts: int, budget: float | None = None) -> str:
    """A snapshot in fewer than 80 characters: numbers over the layers are medians; what it did not measure is left out.

    Args:
        snapshot: the snapshot.
        alerts: how many alerts there were so far.
        budget: the share of the time that the callback may cost: more is said.
    """
    judged = [row.values["alpha_evidence"] for row in snapshot.rows if row.values.get("alpha_evidence")]
    enough = judged.count("sufficient")
    moved = _moved([row.values.get("relative_distance_from_init", math.nan) for row in snapshot.rows])
    medians = []
    if math.isfinite(alpha := snapshot.model.get("alpha/median", math.nan)):
        medians.append(f"α {alpha:.2f} in {enough:,}/{_count(len(judged), 'layer')}")
    if moved and snapshot.step > 0:
        medians.append(moved)
    if math.isfinite(rank := snapshot.model.get("effective_rank/median", math.nan)):
        medians.append(f"rank {rank:.3g}")
    zero = sum(row.status == "zero" for row in snapshot.rows)
    missing = sum(row.status != "zero" and not is_measured(row.status) for row in snapshot.rows)
    always = [
        *([] if enough or not judged else ["α: too little evidence"]),
        *([f"{zero:,} all zero"] if zero else []),
        *([f"{missing:,} not measured"] if missing else []),
        *(
            [f"cost {_cost(snapshot.overhead, _spent(snapshot))}"]
            if costs_too_much(snapshot.overhead, snapshot.time, budget)
            else []
        ),
        *([_count(alerts, "alert")] if alerts else []),
        *([f"left out: {snapshot.left_out}"] if snapshot.left_out else []),
    ]
    shorter = [medians[:count] for count in range(len(medians), 0, -1)]
    shorter += [[medians[0].partition(" in ")[0]], []] if medians else [[]]
    lines = (
        "spectra: "
        + " · ".join(
            [
                _when(snapshot.step, snapshot.epoch),
                *([f"median{'s' if len(kept) > 1 else ''}: {', '.join(kept)}"] if kept else []),
                *always,
            ]
        )
        for kept in shorter
    )
    return min(lines, key=lambda line: max(len(line), WIDTH - 1))


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


def _moved(distances: Sequence[float | str]) -> str:
    """The median ‖W − W_0‖/‖W_0‖ of the layers that moved: where most are frozen, that of all would be 0."""
    known = [d for d in distances if isinstance(d, float) and math.isfinite(d)]
    moved = [d for d in known if d > 0.0]
    if not known:
        return ""
    if not moved:
        return "no layer moved"
    among = f" in {len(moved):,}/{len(known):,}" if len(moved) < len(known) else ""
    return f"moved {median(moved):.3g}{among}"


def for_terminal(line: str) -> str:
    """``line`` broken between words where standard output is a terminal, which would break it within one."""
    if sys.stdout is None or not sys.stdout.isatty():
        return line
    width = max(shutil.get_terminal_size().columns - 1, 40)
    return textwrap.fill(line, width, subsequent_indent=" " * 9, break_long_words=False, break_on_hyphens=False)


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


def near(directory: str | Path) -> str:
    """The folder as a person would type it from here."""
    path = Path(directory)
    try:
        return str(path.relative_to(Path.cwd()))
    except (ValueError, OSError):
        return str(path)
