"""The console: one line per snapshot, alerts with their reason, and the verdict."""

from __future__ import annotations

import importlib.util
import itertools
import math
import os
import re
import shutil
import sys
import textwrap
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import median

from ww_callbacks.integrations.quantity_info import quantity_info
from ww_callbacks.integrations.record import RECORD_NAME
from ww_callbacks.integrations.scalars import LAYERS_NAMED, costs_too_much, evidence_text, layers_text
from ww_callbacks.integrations.schema import Alert, RunInfo, Snapshot, Verdict
from ww_callbacks.integrations.sinks.already_said import AlreadySaid
from ww_callbacks.spectral.aggregate.summary import ESTIMATED
from ww_callbacks.spectral.detectors.base import epoch_text, keep_text
from ww_callbacks.spectral.measuring.accuracy import ERROR
from ww_callbacks.spectral.measuring.values import is_measured
from ww_callbacks.spectral.number_text import with_error

_ASCII = str.maketrans(
    {"α": "alpha", "σ": "sigma", "λ": "lambda", "Δ": "d", "‖": "||", "−": "-", "–": "-", "—": "-", "·": "|"}
    | {"×": "x", "≥": ">=", "≤": "<=", "→": "->", "…": "...", "₀": "0", "₁": "1", "±": "+/-", "√": "sqrt "}
)
_SIGNS = {"info": "note", "warning": "WARNING", "critical": "CRITICAL"}
WIDTH = 80
_NARROWEST = 20
"""Lines are not broken into shorter ones, however narrow the terminal is."""
_LONG_START = 12
"""Characters that all names of layers share at their start before alerts leave them out."""
_OTHERS_SHOWN = 2
"""Maximum number of quantities in a snapshot's line where neither α nor the effective rank is measured."""
_EVIDENCE_SHOWN = 4
"""Maximum number of values of an alert's evidence in the terminal; the record contains all."""


class ConsoleSink:
    """Prints what its columns mean, one line a snapshot, and alerts as they come.

    A snapshot's line has fewer than 80 characters; other lines are broken between words where standard output is a
    terminal, and nowhere else. What an alert said is not said again: a reminder and the verdict add their new values
    or name the earlier alert. It only ever writes whole lines, through ``write`` where a progress bar is drawn; it
    moves no cursor and uses no colour. Where the environment variable ``CI`` is set, it prints alerts and the end only.

    Args:
        write: prints one line (given without its newline) without breaking the progress bar: ``tqdm.write``, a rich
            console's ``print``, Keras's ``io_utils.print_msg``; None prints to standard output.
        verbose: 0 prints nothing.
    """

    name = "console"
    brief = False
    """Whether the run is one of many short ones, and gets only one line besides its alerts."""

    def __init__(self, write: Callable[[str], object] | None = None, verbose: int = 1) -> None:
        self._write = write
        self._verbose = verbose
        self._quiet = os.environ.get("CI", "").lower() not in ("", "0", "false")
        self._directory = self._line = self._since = ""
        self._alerts = self._notes = self._snapshots = 0
        self._said = AlreadySaid()
        self._shared = ""
        self._overhead = self._spent = 0.0
        self._budget: float | None = None

    def open(self, run: RunInfo, resumed: bool) -> None:
        """Print what is watched and where the record is."""
        self._directory = run.directory
        self._budget = run.settings.get("max_overhead")
        self._since = " since it was resumed" if resumed else ""
        self._alerts = self._notes = self._snapshots = 0
        self._said = AlreadySaid()
        self._shared = shared_start([layer.name for layer in run.layers])
        if not self._quiet and not self.brief:
            again = f", resumed at step {run.resumed_at}" if resumed and run.resumed_at is not None else ""
            self._say(f"spectra: watching {_count(len(run.layers), 'layer')}{again}; record in {near(self._directory)}")

    def snapshot(self, snapshot: Snapshot) -> None:
        """Print the snapshot's line."""
        self._snapshots += 1
        self._overhead = snapshot.overhead
        self._spent = _spent(snapshot)
        self._line = snapshot_line(snapshot, self._alerts, self._budget)
        if self._quiet or self.brief:
            return
        if self._snapshots == 1 and (meaning := legend(snapshot)):
            self._say(f"spectra: {meaning}")
        for line in self._line.split("\n"):
            self._say(line)

    def alert(self, alert: Alert) -> None:
        """Print the alert: where, what, since when, the evidence, and what to do."""
        if alert.severity == "info":
            self._notes += 1
        else:
            self._alerts += 1
        when = _when(alert.step, alert.epoch)
        explained = self._said.explained(alert.message)
        if alert.severity == "info" and explained and alert.action != "stop":
            return
        news = self._said.news(alert.message, when)
        evidence = "" if explained else ", ".join(evidence_text(alert).split(", ")[:_EVIDENCE_SHOWN])
        known = explained or alert.since_step == alert.step or "since epoch" in alert.message.lower()
        since = "" if known else f" Since {_when(alert.since_step, alert.since_epoch)}."
        stopped = " Training is being stopped." if alert.action == "stop" else ""
        named = bool(alert.layers) and all(f"`{layer}`" in news for layer in alert.layers[:LAYERS_NAMED])
        where = "" if named else f" in {layers_text(alert.layers)}"
        news = news or f"as at {self._said.when(alert.message)}."
        self._say_briefly(
            f"spectra: {_SIGNS[alert.severity]} at {when}: {alert.kind}{where}: {news}{since}"
            f"{f' ({evidence})' if evidence else ''}{stopped}"
        )
        if advice := self._said.advice(alert.recommendation, when):
            self._say_briefly(f"{' ' * 9}{advice}")

    def note(self, text: str) -> None:
        """Print another line in the same way as snapshots."""
        if not self._quiet and not self.brief:
            self._say(f"spectra: {text}")

    def give_up(self, why: str) -> None:
        """Print why the run ends, and nothing more of it."""
        self.note(why)
        self._snapshots = 0

    def close(self, verdict: Verdict | None) -> None:
        """Print the verdict, the cost, and how to see more."""
        if not self._snapshots:
            return
        if self.brief:
            self._say(f"{' '.join(self._line.split())} · verdict: {verdict.state if verdict else 'none'}")
            return
        if verdict is not None:
            self._say_briefly(f"spectra: verdict: {verdict.state}{self._conclusion(verdict)}")
        folder = near(self._directory)
        record = Path(folder, RECORD_NAME)
        there = Path(self._directory, RECORD_NAME).exists()
        said = _count(self._alerts, "alert") + (f", {_count(self._notes, 'note')}" if self._notes else "")
        self._say(
            f"spectra: {_count(self._snapshots, 'snapshot')}{self._since}, {said}, cost "
            f"{_cost(self._overhead, self._spent)}; {f'record: {record}' if there else 'there is no record'}"
        )
        if not there:
            return
        page = f"tensorboard --logdir {folder}  (tab SPECTRA), or " if importlib.util.find_spec("tensorboard") else ""
        self._say(f"spectra: to look inside: {page}ww-callbacks report {folder} -o report.html")

    def _conclusion(self, verdict: Verdict) -> str:
        """Why, and what to do, as far as no alert said it; the weights to keep in any case."""
        said = self._said.when(verdict.reason)
        reason, advice = (
            self._said.news(verdict.reason, "the end"),
            self._said.advice(verdict.recommendation, "the end"),
        )
        if not advice and verdict.recommendation and verdict.best_epoch is not None and verdict.best_step is not None:
            advice = keep_text(verdict.best_step, verdict.best_epoch)
        return " ".join(filter(None, (f", as at {said}." if said else ".", reason, advice)))

    def _say_briefly(self, text: str) -> None:
        """Print a line on layers, without what their names share."""
        self._say(text.replace(self._shared, "") if self._shared else text)

    def _say(self, text: str) -> None:
        if self._verbose < 1:
            return
        line = for_terminal(printable(text, getattr(sys.stdout, "encoding", None) or "utf-8"))
        if self._write is not None:
            self._write(line)
        else:
            print(line, flush=True)


def legend(snapshot: Snapshot) -> str:
    """What the columns of :func:`snapshot_line` mean, of those that the run measures."""
    measured = {name for row in snapshot.rows for name in row.values}
    estimated = f"effective_rank/{ESTIMATED}" in snapshot.model
    meanings = {
        "relative_distance_from_init": "moved: ‖W − W_0‖/‖W_0‖",
        "alpha_evidence": "α: exponent of the power law ± its standard error, where the evidence suffices "
        "(2/3: in 2 of 3 layers)",
        "effective_rank": "rank: effective rank" + (" ± the error of estimates (`accuracy=`)" if estimated else ""),
    }
    said = [text for name, text in meanings.items() if name in measured]
    return f"medians over the layers. {'; '.join(said)}" if said else ""


def snapshot_line(snapshot: Snapshot, alerts: int, budget: float | None = None) -> str:
    """A snapshot in fewer than 80 characters: medians over the layers, in columns that are the same in every line.

    Values that few snapshots have follow, on a second line if there is not enough space.

    Args:
        snapshot: the snapshot.
        alerts: number of alerts so far.
        budget: the share of the time that the callback may cost; a higher cost is shown.
    """
    zero = sum(row.status == "zero" for row in snapshot.rows)
    missing = sum(row.status != "zero" and not is_measured(row.status) for row in snapshot.rows)
    too_much = costs_too_much(snapshot.overhead, snapshot.time, budget)
    more = [
        *([_count(alerts, "alert")] if alerts else []),
        *([f"{zero:,} all zero"] if zero else []),
        *([f"{missing:,} not measured"] if missing else []),
        *([f"cost {_cost(snapshot.overhead, _spent(snapshot))}"] if too_much else []),
        *([f"left out: {snapshot.left_out}"] if snapshot.left_out else []),
    ]
    columns = "  ".join([f"{_when(snapshot.step, snapshot.epoch):10}", *filter(None, _columns(snapshot))]).rstrip()
    one_line = "  ".join([f"spectra: {columns}", *more])
    if not more or len(one_line) < WIDTH:
        return one_line
    return f"spectra: {columns}\n{' ' * 9}{', '.join(more)}"


def _columns(snapshot: Snapshot) -> tuple[str, str, str]:
    """How far the weights moved, α and the effective rank; empty what the run, or this snapshot, does not measure."""
    values = [row.values for row in snapshot.rows]
    moved = _moved([own.get("relative_distance_from_init", math.nan) for own in values], snapshot.step)
    judged = [own for own in values if own.get("alpha_evidence")]
    sure = [own for own in judged if own["alpha_evidence"] == "sufficient"]
    among = f"({len(sure):,}/{len(judged):,})"
    alpha = snapshot.model.get("alpha/median", math.nan)
    errors = [error for own in sure if math.isfinite(error := float(own.get("sigma", math.nan)))]
    if not judged:
        said = ""
    elif math.isfinite(alpha) and sure:
        said = f"α {alpha:.2f}{f'±{median(errors):.2f}' if errors else ''} {among}"
    else:
        said = f"α unsure {among}"
    width = len("α 2.50 ") + len("±0.25") * any("sigma" in own for own in judged) + len(among)
    rank = snapshot.model.get("effective_rank/median", math.nan)
    error = snapshot.model.get(f"effective_rank/median{ERROR}", 0.0)
    rank_text = with_error(rank, error).replace(" ", "") if error else f"{_three(rank):5}"
    return (
        f"{moved:12}" if moved else "",
        f"{said:{width}}" if said else "",
        f"rank {rank_text}" if math.isfinite(rank) else _others(values),
    )


def _others(values: Sequence[Mapping[str, float | str]]) -> str:
    """Medians of the first spectral quantities of a run that measures neither α nor the effective rank."""
    names = list(dict.fromkeys(name for own in values for name in own))
    if "alpha_evidence" in names or "effective_rank" in names:
        return ""
    shown = []
    for name in (name for name in names if quantity_info(name).cost == "spectrum"):
        known = [v for own in values if isinstance(v := own.get(name, math.nan), float) and math.isfinite(v)]
        if known:
            shown.append(f"{name} {_three(median(known))}")
    return "  ".join(shown[:_OTHERS_SHOWN])


def _three(value: float) -> str:
    """``value`` with three significant digits, the last one too if it is 0.

    >>> _three(45.0), _three(0.0707), _three(103.2)
    ('45.0', '0.0707', '103')
    """
    return f"{value:#.3g}".rstrip(".")


def printable(text: str, encoding: str) -> str:
    """``text`` with characters that ``encoding`` does not support written in ASCII.

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


def _moved(distances: Sequence[float | str], step: int) -> str:
    """The median ‖W − W_0‖/‖W_0‖ of the layers that moved: where most are frozen, that of all would be 0."""
    known = [d for d in distances if isinstance(d, float) and math.isfinite(d)]
    moved = [d for d in known if d > 0.0]
    if not known:
        return ""
    if not moved:
        return "no layer moved" if step else "moved 0"
    among = f" ({len(moved):,}/{len(known):,})" if len(moved) < len(known) else ""
    return f"moved {_three(median(moved))}{among}"


def for_terminal(line: str) -> str:
    """``line`` wrapped between words if standard output is a terminal."""
    if sys.stdout is None or not sys.stdout.isatty():
        return line
    width = max(shutil.get_terminal_size().columns - 1, _NARROWEST)
    return textwrap.fill(line, width, subsequent_indent=" " * 9, break_long_words=False, break_on_hyphens=False)


def shared_start(layers: Sequence[str]) -> str:
    """What the names of all layers share at their start, if it is long; it tells a reader nothing.

    The word before a number is kept.

    >>> shared_start(["base_model.model.model.layers.0.q", "base_model.model.lm_head"])
    'base_model.model.'
    >>> shared_start(["base_model.model.model.layers.0.q", "base_model.model.model.layers.1.q"])
    'base_model.model.model.'
    >>> shared_start(["model.layers.0.q", "model.lm_head"])
    ''
    """
    parts = [re.findall(r"[^./]+[./]?", name) for name in layers]
    levels = [set(level) for level in zip(*parts, strict=False)]
    same = sum(1 for _ in itertools.takewhile(lambda level: len(level) == 1, levels))
    same = min([same, *(len(own) - 1 for own in parts)])
    if same and any(own[same][0].isdigit() for own in parts):
        same -= 1
    start = "".join(parts[0][:same]) if len(layers) > 1 else ""
    return start if len(start) >= _LONG_START else ""


def _when(step: int, epoch: float) -> str:
    return f"epoch {epoch_text(epoch)}" if epoch > 0 or step == 0 else f"step {step:,}"


def _spent(snapshot: Snapshot) -> float:
    """Seconds spent in the callback so far, from its share of the time without it."""
    return snapshot.time * snapshot.overhead / (1.0 + snapshot.overhead)


def _cost(share: float, seconds: float) -> str:
    """The callback's cost as a share and in seconds, because a share of a short time is misleading."""
    if not math.isfinite(share):
        return "unknown"
    if share > 1.0:
        return f"{seconds:.2g} s, more than this short training"
    return f"{100 * share:.2g} % ({seconds:.2g} s)"


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def near(directory: str | Path) -> str:
    """The path relative to the working directory, if it is inside."""
    path = Path(directory)
    try:
        return str(path.relative_to(Path.cwd()))
    except (ValueError, OSError):
        return str(path)
