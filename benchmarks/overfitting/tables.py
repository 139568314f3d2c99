"""Put the figures of the early-stopping benchmark into the README and docs/detectors.md, between their markers.

python -m benchmarks.overfitting.tables benchmarks/results/early_stopping.json
"""

# ruff: noqa: E501  (long lines of prose)

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
Row = dict[str, Any]


def table(head: Sequence[str], body: Iterable[Sequence[object]]) -> str:
    """A Markdown table; negative numbers get a minus sign instead of a hyphen."""
    lines = ["| " + " | ".join(head) + " |", "|" + " --- |" * len(head)]
    rows = ("| " + " | ".join(map(str, row)) + " |" for row in body)
    return "\n".join([*lines, *(re.sub(r"(?<![\w.])-(?=\d)", "−", row) for row in rows)])


HEAD = ["rule", "false alarms", "found, score falls", "found, loss rises", "points lost", "loss above lowest, %"]


def _cells(row: Row) -> list[str]:
    points = "" if row["mean_regret"] is None else f"{row['mean_regret']:.2f}"
    return [
        f"{row['false_alarms']} of {row['healthy']}",
        f"{row['detection_found']} of {row['detection_of']}",
        f"{row['detection_loss_found']} of {row['detection_loss_of']}",
        points,
        f"{row['loss_regret']:.1f}",
    ]


def rules(rows: Sequence[Row]) -> str:
    """Every rule on all runs."""
    return table(HEAD, [[r["rule"], *_cells(r)] for r in rows if r["table"] == "rules"])


def families(rows: Sequence[Row]) -> str:
    """The cautious judgement and never stopping, family by family."""
    wanted = ("cautious, average kept", "eager, average kept", "never stop, average kept")
    chosen = [r for r in rows if r["table"] == "families" and r["rule"] in wanted]
    return table(["family", *HEAD], [[r["family"], r["rule"], *_cells(r)] for r in chosen])


def reliability(rows: Sequence[Row]) -> str:
    """The reliability diagram."""
    chosen = [r for r in rows if r["table"] == "reliability"]
    head = ["probability", "mean predicted", "observed", "share of epochs"]
    body = [
        [f"{r['from']:.1f} to {r['from'] + 0.1:.1f}", f"{r['said']:.2f}", f"{r['was']:.2f}", f"{r['share']:.0%}"]
        for r in chosen
    ]
    return table(head, body)


def floors(f: Row) -> str:
    """What was aimed at, and what was reached."""
    lines = [
        ("false alarms, cautious", "at most 4 %", f"{f['false_alarm_rate']:.1%} (at most {f['false_alarm_upper95']:.1%})"),
        ("harm of alarms in healthy runs", "at most 0.2 points", f"{f['harm_of_alarms_in_healthy']:.2f}"),
        ("found where the score falls", "75 %", f"{f['detection_rate']:.0%} (eager {f['eager_detection_rate']:.0%})"),
        ("found where only the loss rises", "60 %", f"{f['detection_rate_loss']:.0%} (eager {f['eager_detection_rate_loss']:.0%})"),
        (
            "points lost, less those of validation patience",
            "below 0",
            f"{f['regret_less_val_patience']:.2f} ({f['regret_less_val_patience_lower95']:.2f} to "
            f"{f['regret_less_val_patience_upper95']:.2f})",
        ),
        (
            "loss, less that of validation patience",
            "at most 3",
            f"{f['loss_regret'] - f['loss_regret_val_patience_restored']:+.1f} (eager "
            f"{f['eager_loss_regret'] - f['loss_regret_val_patience_restored']:+.1f})",
        ),
        (
            "points lost with validation, less validation patience",
            "−0.4 or below",
            f"{f['regret_with_validation_less_val_patience']:.2f} ({f['regret_with_validation_less_val_patience_lower95']:.2f} to {f['regret_with_validation_less_val_patience_upper95']:.2f})",
        ),
        (
            "false alarms with validation, over those of validation patience",
            "at most 0.5",
            f"{f['false_alarm_rate_with_validation'] / f['false_alarm_rate_val_patience']:.2f}",
        ),
        ("found in runs of 3 to 8 epochs", "60 %", f"{f['short_run_detection']:.0%}"),
        ("calibration error", "at most 0.05", f"{f['calibration_error']:.3f}"),
        ("worst family, points over never stopping", "at most 0.5", f"{f['worst_family_cost']:.2f}"),
    ]  # fmt: skip
    return table(["", "aim", "reached, in families left out"], lines)


def missed(f: Row) -> str:
    """The shares that the verdict's text quotes, for short and for longer runs."""
    lines = [
        ("overtrained runs that cautious found", f"{f['found_short']:.0%}", f"{f['found_long']:.0%}"),
        ("runs without an alarm that were overtrained", f"{f['hidden_short']:.0%}", f"{f['hidden_long']:.0%}"),
    ]
    return table(["", "runs of 3 to 8 epochs", "longer runs"], lines)


def unseen(f: Row) -> str:
    """The figures on the seeds that the signals were not chosen on, beside those of all runs."""
    lines = [
        (name, f"{f[key]:.1%}", f"{f[f'unseen_seeds_{other}']:.1%}")
        for name, key, other in (
            ("false alarms", "false_alarm_rate", "false_alarm_rate"),
            ("found where the score falls", "detection_rate", "detection_rate"),
            ("found where only the loss rises", "detection_rate_loss", "detection_loss_rate"),
        )
    ]
    return table(["", f"all {f['runs']} runs", f"the {f['unseen_seeds_runs']} runs of other seeds"], lines)


def real(content: Row) -> str:
    """The trainings of ``real_loops.py``: where each preset alarms, and what it keeps."""
    figures, lines = content["figures"], []
    for row in (r for r in content["rows"] if r["loop"] == "replay"):
        others = [
            r
            for r in content["rows"]
            if r["loop"] != "replay" and all(r[k] == row[k] for k in ("scenario", "seed", "preset"))
        ]
        alarm = "none" if row["alarm"] is None else f"{row['alarm']:.0f}"
        lines.append(
            (
                f"{row['scenario']}, seed {row['seed']}, {row['preset']}",
                alarm,
                f"{sum(r['same'] for r in others)} of {len(others)}",
                f"{row['kept']:.1%} / {row['kept_average']:.1%}",
                f"{row['last']:.1%} / {row['last_average']:.1%}",
                f"{row['best']:.1%} (epoch {row['best_epoch']})",
            )
        )  # fmt: skip
    head = [
        "run",
        "alarm",
        "same epoch in the callbacks",
        "kept, raw / average",
        "at the end, raw / average",
        "best raw epoch",
    ]
    return (
        table(head, lines)
        + f"\n\nLargest difference of the probability between a callback and the replay, over all epochs: "
        f"{figures['largest_difference_of_probability']:.4f}."
    )


def verdict(f: Row) -> str:
    """The paragraph of the README."""
    return (
        f"On {f['runs']} small runs of {f['domains']} domains in {f['families']} families, the cautious judgement without "
        f"validation data\nraised an alarm in {f['false_alarm_rate']:.1%} of {f['healthy_runs']} healthy runs (at most "
        f"{f['false_alarm_upper95']:.1%} with 95 % confidence) and found\n{f['detection_rate']:.0%} of the runs whose score "
        f"fell and {f['detection_rate_loss']:.0%} of those whose loss rose; the eager one {f['eager_false_alarm_rate']:.0%}, "
        f"{f['eager_detection_rate']:.0%} and {f['eager_detection_rate_loss']:.0%} (aims: 75 % and 60 % at 4 % false alarms; not reached).\n**It misses most overtraining in runs of "
        f"3 to 8 epochs ({f['short_run_detection']:.0%} found), so log a validation loss if you can.** With one, it raised\n"
        f"{f['false_alarm_rate_with_validation'] / f['false_alarm_rate_val_patience']:.2f} times as many false alarms as "
        "patience (10 epochs) on the validation loss. The tables show the points that each\nrule loses: with the raw weights, and "
        'in the rows "average kept" with the average over the epoch kept, which the\ncallback keeps too.\nPooled rates hide families: regression and networks that may grok raise more false alarms; leave it off there.'
    )


def main(results: Path) -> None:
    """Replace what is between ``<!-- name -->`` and ``<!-- /name -->``."""
    content = json.loads(results.read_text())
    rows, figures = content["rows"], content["figures"]
    parts = {
        "verdict": verdict(figures),
        "rules": rules(rows),
        "families": families(rows),
        "reliability": reliability(rows),
        "floors": floors(figures),
        "missed": missed(figures),
        "unseen": unseen(figures),
    }
    if (loops := results.with_name("real_loops.json")).exists():
        parts["real"] = real(json.loads(loops.read_text()))
    for document in (ROOT / "README.md", ROOT / "docs" / "detectors.md"):
        text = document.read_text()
        for name, said in parts.items():
            marked = f"<!-- {name} -->\n{said}\n<!-- /{name} -->"
            text = re.sub(rf"<!-- {name} -->.*?<!-- /{name} -->", lambda _, m=marked: m, text, flags=re.S)
        document.write_text(text)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
