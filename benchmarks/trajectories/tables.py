"""Put the results of the early-stopping benchmark into the documentation, between its markers.

python -m benchmarks.trajectories.tables benchmarks/results/early_stopping.json docs/detectors.md
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

Row = dict[str, Any]
ORDER = ("all", "digits", "mnist", "pydoc", "cnn", "moby", "untouched")


def table(head: Sequence[str], body: Iterable[Sequence[object]]) -> str:
    """A Markdown table."""
    lines = ["| " + " | ".join(head) + " |", "|" + " --- |" * len(head)]
    lines += ["| " + " | ".join(str(cell) for cell in row) + " |" for row in body]
    return "\n".join(lines)


def _counts(row: Row) -> list[str]:
    return [
        f"{row['false_alarms']} of {row['healthy']} (≤ {row['false_alarm_upper95']:.1%})",
        f"{row['detected']} of {row['overtrained']}",
        "" if row["mean_regret"] is None else f"{row['mean_regret']:.2f}",
        f"{row['stop_over_best_epoch']:.1f}" if row["detected"] else "",
        f"{row['nothing_lost_stopped']} of {row['nothing_lost']}",
    ]


HEAD = ["false alarms (Wilson 95 %)", "detected", "mean regret, points", "stop / best epoch", "stopped, nothing lost"]


def rules(rows: Sequence[Row], split: str) -> str:
    """Every rule on all runs of a split."""
    chosen = [r for r in rows if r["table"] == "rules" and r["split"] == split and r["domain"] == "all"]
    return table(["rule", *HEAD], [[r["rule"], *_counts(r)] for r in chosen])


def domains(rows: Sequence[Row]) -> str:
    """Ours and its rival, held out, domain by domain."""
    body = []
    for domain in ORDER:
        for name in (
            "Overtraining, cautious",
            "Overtraining, eager",
            "validation loss, patience 10, restored",
            "never stop",
        ):
            found = [
                r
                for r in rows
                if r["table"] == "rules" and r["split"] == "held out" and r["domain"] == domain and r["rule"] == name
            ]
            body += [[domain, name, *_counts(r)] for r in found]
    return table(["domain", "rule", *HEAD], body)


def sweep(rows: Sequence[Row]) -> str:
    """Thresholds."""
    chosen = [r for r in rows if r["table"] == "sweep"]
    return table(["split", "threshold", *HEAD], [[r["split"], r["threshold"], *_counts(r)] for r in chosen])


def long(rows: Sequence[Row]) -> str:
    """Long runs."""
    return table(["rule", *HEAD], [[r["rule"], *_counts(r)] for r in rows if r["table"] == "long"])


def broken(rows: Sequence[Row]) -> str:
    """Detectors of breakage."""

    def words(counts: dict[str, int]) -> str:
        return ", ".join(f"{kind} {n}" for kind, n in sorted(counts.items(), key=lambda item: -item[1])) or "nothing"

    chosen = [r for r in rows if r["table"] == "broken"]
    return table(
        ["runs", "number", "something said", "said (warning or critical), in how many", "could have stopped"],
        [
            [r["scenario"].replace("_", " "), r["runs"], r["found"], words(r["said"]), words(r["may_stop"])]
            for r in chosen
        ],
    )


def signals(rows: Sequence[Row]) -> str:
    """Separation of every signal."""

    def areas(found: dict[str, float]) -> list[str]:
        return [f"{found[d]:.2f}" if d in found else "" for d in ORDER[:-1]]

    chosen = [r for r in rows if r["table"] == "signals"]
    body = [
        [
            ("−" if r["sign"] < 0 else "") + r["signal"],
            r["form"],
            " / ".join(areas(r["tuning"])[:4]),
            " / ".join(areas(r["held_out"])),
        ]
        for r in chosen
    ]
    head = [
        "signal",
        "best form",
        "tuning: all / digits / mnist / pydoc",
        "held out: all / digits / mnist / pydoc / cnn / moby",
    ]
    return table(head, body)


def main(results: Path, document: Path) -> None:
    """Replace what lies between ``<!-- name -->`` and ``<!-- /name -->``."""
    rows = json.loads(results.read_text())["rows"]
    parts = {
        "rules": rules(rows, "held out"),
        "rules-tuning": rules(rows, "tuning"),
        "domains": domains(rows),
        "sweep": sweep(rows),
        "long": long(rows),
        "tied": table(
            ["output layer taken", *HEAD], [[r["output"], *_counts(r)] for r in rows if r["table"] == "tied"]
        ),
        "broken": broken(rows),
        "signals": signals(rows),
    }
    text = document.read_text()
    for name, content in parts.items():
        text, count = re.subn(
            rf"<!-- {name} -->.*?<!-- /{name} -->",
            lambda _, n=name, c=content: f"<!-- {n} -->\n{c}\n<!-- /{n} -->",
            text,
            flags=re.S,
        )
        if not count and content.count("\n") > 1:
            print(f"no place for `{name}` in {document}")
    document.write_text(text)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
