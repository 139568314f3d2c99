"""Stopping overtraining runs without validation data: false alarms, detection and regret on small real runs.

Trains what is missing of the trajectories (an hour on one core; kept in ``.cache/early_stopping``), then replays every
rule on them, which takes a minute. ``--anti-grokking`` adds the long run in which test accuracy falls long after the
training data is fitted (half an hour).

    python -m benchmarks.early_stopping --json benchmarks/results/early_stopping.json
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks import _report
from benchmarks.trajectories import rules
from benchmarks.trajectories.cache import kept, trajectory
from benchmarks.trajectories.scenarios import (
    BROKEN,
    UNTOUCHED,
    Run,
    broken_runs,
    held_out_runs,
    long_runs,
    tied_runs,
    tuning_runs,
)
from benchmarks.trajectories.series import observations
from benchmarks.trajectories.signals import area_under_curve, statistics
from benchmarks.trajectories.truth import Arrays, Truth, group, truth, wilson
from ww_callbacks.spectral.detectors import PRESETS, Overtraining, default_detectors

RULES: Mapping[str, rules.Rule] = {
    "never stop": rules.never,
    "validation loss, patience 10, restored": rules.validation_patience,
    "validation loss, patience 10": rules.validation_patience_unrestored,
    "training accuracy ≥ 99 %": rules.accuracy_99,
    "any α < 2": rules.alpha_below_2,
    "shuffle trap, 99 %": rules.shuffle_trap,
    "effective rank −25 %": rules.rank_fall,
    "gate P alone": rules.gate_p,
    "published, weights only": rules.weights_only_published,
    "published A": rules.rule_a,
    "published G": rules.rule_g,
    "Overtraining, cautious": rules.detector(),
    "Overtraining, eager": rules.detector(**PRESETS["eager"]),
    "Overtraining, cautious, no training accuracy": rules.detector(("train_accuracy",)),
    "Overtraining, cautious, no learning rate": rules.detector(("learning_rate",)),
}

THRESHOLDS = (0.1, 0.15, 0.2, 0.25, 0.29, 0.33, 0.4, 0.5)


@dataclass(frozen=True)
class Judged:
    """A run, its trajectory and what really happened."""

    run: Run
    arrays: Arrays
    truth: Truth
    group: str


def load(runs: Iterable[Run], cached_only: bool = False) -> list[Judged]:
    """The runs with their trajectories, trained where missing (left out where only cached ones are wanted)."""
    out = []
    for run in runs:
        if cached_only and not kept(run):
            continue
        arrays = trajectory(run)
        judged = truth(arrays)
        out.append(Judged(run, arrays, judged, group(run, judged)))
    return out


def outcomes(rule: rules.Rule, judged: Iterable[Judged]) -> dict[str, rules.Outcome]:
    """What the rule does in each run, by the run's name."""
    return {j.run.name: rule(j.run, j.arrays) for j in judged}


def evaluate(did: Mapping[str, rules.Outcome], judged: Sequence[Judged]) -> dict[str, Any]:
    """False alarms, detection and regret of one rule."""
    healthy = [j for j in judged if j.group == "healthy"]
    overtrained = [j for j in judged if j.group == "overtrained"]
    nothing = [j for j in judged if j.group == "nothing lost"]
    false = sum(did[j.run.name][0] is not None for j in healthy)
    idle = sum(did[j.run.name][0] is not None for j in nothing)
    detected, early, regrets, ratios = 0, 0, [], []
    for j in overtrained:
        stop, restored = did[j.run.name]
        detected += stop is not None
        kept = j.truth.final if stop is None or restored is None else float(j.arrays["test_accuracy"][restored])
        regrets.append(100 * (j.truth.best - kept))
        if stop is not None:
            ratios.append(stop / max(j.truth.best_epoch, 1))
            at_stop = float(j.arrays["test_accuracy"][stop])
            early += stop < j.truth.best_epoch and j.truth.best - at_stop > j.truth.error
    low, high = wilson(false, len(healthy))
    return {
        "healthy": len(healthy),
        "false_alarms": false,
        "false_alarm_rate": false / max(len(healthy), 1),
        "false_alarm_lower95": low,
        "false_alarm_upper95": high,
        "overtrained": len(overtrained),
        "detected": detected,
        "detection_rate": detected / max(len(overtrained), 1),
        "stopped_too_early": early,
        "mean_regret": float(np.mean(regrets)) if regrets else None,
        "stop_over_best_epoch": float(np.median(ratios)) if ratios else None,
        "nothing_lost": len(nothing),
        "nothing_lost_stopped": idle,
    }


def by_domain(judged: Sequence[Judged]) -> dict[str, list[Judged]]:
    """All runs, and those of each domain."""
    parts: dict[str, list[Judged]] = {"all": list(judged)}
    for j in judged:
        parts.setdefault(j.run.domain, []).append(j)
    parts["untouched"] = [j for j in judged if j.run.domain in UNTOUCHED]
    return parts


def broken_rows(judged: Sequence[Judged], healthy: Sequence[Judged]) -> list[dict[str, Any]]:
    """Which detector of breakage found which runs, and in how many others it spoke up or could have stopped."""
    rows = []
    for scenario in (*BROKEN, "healthy"):
        runs = [j for j in judged if j.run.scenario == scenario] if scenario != "healthy" else healthy
        said: dict[str, int] = {}
        found = 0
        stops: dict[str, int] = {}
        for j in runs:
            detectors = [d for d in default_detectors("off") if not isinstance(d, Overtraining)]
            spoke, stopped = set(), set()
            for observation in observations(j.run, j.arrays):
                for d in detectors:
                    for finding in d.update(observation):
                        if finding.severity != "info":
                            spoke.add(finding.kind)
                        if finding.may_stop:
                            stopped.add(finding.kind)
            found += bool(spoke)
            for kind in spoke:
                said[kind] = said.get(kind, 0) + 1
            for kind in stopped:
                stops[kind] = stops.get(kind, 0) + 1
        rows.append(
            {
                "table": "broken",
                "scenario": scenario,
                "runs": len(runs),
                "found": found,
                "said": said,
                "may_stop": stops,
            }
        )
    return rows


def signal_rows(tuning: Sequence[Judged], held_out: Sequence[Judged]) -> list[dict[str, Any]]:
    """Area under the curve of every signal: the best form and sign on the tuning runs, and the same on the others."""
    measured = {}
    for name, judged in (("tuning", tuning), ("held out", held_out)):
        measured[name] = [statistics(j.arrays) for j in judged]

    def areas(which: str, judged: Sequence[Judged], key: tuple[str, str, int]) -> dict[str, float]:
        out = {}
        for domain, part in by_domain(judged).items():
            rows = {id(j): i for i, j in enumerate(judged)}
            values = {
                g: [measured[which][rows[id(j)]][key] for j in part if j.group == g] for g in ("healthy", "overtrained")
            }
            if values["healthy"] and values["overtrained"]:
                out[domain] = area_under_curve(values["healthy"], values["overtrained"])
        return out

    best: dict[str, tuple[float, tuple[str, str, int], dict[str, float]]] = {}
    for key in measured["tuning"][0]:
        found = areas("tuning", tuning, key)
        if key[0] not in best or found["all"] > best[key[0]][0]:
            best[key[0]] = (found["all"], key, found)
    return [
        {
            "table": "signals",
            "signal": name,
            "form": key[1],
            "sign": key[2],
            "tuning": found,
            "held_out": areas("held out", held_out, key),
        }
        for name, (_, key, found) in sorted(best.items(), key=lambda item: -item[1][0])
    ]


def long_rows(long: Sequence[Judged]) -> list[dict[str, Any]]:
    """Whether the score drifts in long healthy runs."""
    names = ("Overtraining, cautious", "Overtraining, eager", "validation loss, patience 10, restored")
    return [{"table": "long", "rule": name, **evaluate(outcomes(RULES[name], long), long)} for name in names]


def tied_rows(tied: Sequence[Judged]) -> list[dict[str, Any]]:
    """What becomes of a tied language model where its embedding, or its last matrix, is taken for the output layer."""
    return [
        {
            "table": "tied",
            "output": output,
            **evaluate(outcomes(rules.detector(output=name), tied), tied),
        }
        for output, name in (("embedding", "embedding.weight"), ("last matrix", None))
    ]


def cost_per_layer(layers: int = 200, snapshots: int = 60) -> float:
    """Milliseconds that all default detectors take for one layer of one snapshot."""
    from ww_callbacks.spectral.detectors import Observation

    names = [f"block.{i}.weight" for i in range(layers)]
    rng = np.random.default_rng(0)
    detectors = default_detectors("cautious")
    series = [
        Observation(
            step=100 * i,
            epoch=float(i),
            layers={
                n: {
                    "frobenius_norm": 10 + i**0.3 + 0.01 * rng.standard_normal(),
                    "distance_from_init": (i + 1) ** 0.3,
                    "relative_update_norm": 0.1,
                    "effective_rank": 80.0,
                    "scale_collapse": 0.1,
                    "alpha": 3.0,
                    "sigma": 0.3,
                    "alpha_evidence": "sufficient",
                }
                for n in names
            },
            metrics={"train_loss": 1 / (i + 1), "train_accuracy": 0.9, "learning_rate": 1e-3},
        )
        for i in range(snapshots)
    ]
    start = time.perf_counter()
    for observation in series:
        for d in detectors:
            d.update(observation)
    return 1000 * (time.perf_counter() - start) / (layers * snapshots)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the benchmark."""
    import torch

    parser = _report.arguments(__doc__)
    parser.add_argument("--seeds", type=int, default=4, help="held-out seeds a scenario and domain")
    parser.add_argument("--tuning-seeds", type=int, default=8, help="tuning seeds a scenario and domain")
    parser.add_argument("--anti-grokking", action="store_true", help="add the long run (half an hour if not cached)")
    parser.add_argument("--no-signals", action="store_true", help="leave out the account of every signal")
    parser.add_argument("--cached-only", action="store_true", help="train nothing; leave out what is not cached")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)

    wanted = [*held_out_runs(options.seeds)]
    tuning = load(tuning_runs(options.tuning_seeds), options.cached_only)
    held_out = load(wanted, options.cached_only)
    broken = load(broken_runs(), options.cached_only)
    long = load(long_runs(), options.cached_only)
    rows: list[dict[str, Any]] = []
    results: dict[tuple[str, str, str], dict[str, Any]] = {}
    for split, judged in (("tuning", tuning), ("held out", held_out)):
        for name, rule in RULES.items():
            did = outcomes(rule, judged)
            for domain, part in by_domain(judged).items():
                if part:
                    found = results[split, domain, name] = evaluate(did, part)
                    rows.append({"table": "rules", "split": split, "domain": domain, "rule": name, **found})
        for threshold in THRESHOLDS:
            found = evaluate(outcomes(rules.detector(threshold=threshold), judged), judged)
            rows.append({"table": "sweep", "split": split, "threshold": threshold, **found})
    rows += long_rows(long) + tied_rows(load(tied_runs(), options.cached_only))
    rows += broken_rows(broken, [j for j in [*tuning, *held_out] if j.group == "healthy"])
    if not options.no_signals:
        rows += signal_rows(tuning, held_out)
    if options.anti_grokking:
        from benchmarks.trajectories.anti_grokking import anti_grokking

        rows.append({"table": "anti-grokking", **anti_grokking()})

    ours = results["held out", "all", "Overtraining, cautious"]
    untouched = results["held out", "untouched", "Overtraining, cautious"]
    eager = results["held out", "all", "Overtraining, eager"]
    figures = {
        "healthy_runs": ours["healthy"],
        "overtrained_runs": ours["overtrained"],
        "false_alarm_rate": ours["false_alarm_rate"],
        "false_alarm_upper95": ours["false_alarm_upper95"],
        "detection_rate": ours["detection_rate"],
        "mean_regret": ours["mean_regret"],
        "mean_regret_val_patience_restored": results["held out", "all", "validation loss, patience 10, restored"][
            "mean_regret"
        ],
        "mean_regret_never": results["held out", "all", "never stop"]["mean_regret"],
        "untouched_detection_rate": untouched["detection_rate"],
        "untouched_false_alarm_rate": untouched["false_alarm_rate"],
        "eager_false_alarm_rate": eager["false_alarm_rate"],
        "eager_detection_rate": eager["detection_rate"],
        "eager_mean_regret": eager["mean_regret"],
        "milliseconds_per_layer": cost_per_layer(),
    }
    settings = {
        "tuning_seeds": options.tuning_seeds,
        "held_out_seeds": options.seeds,
        "held_out_wanted": len(wanted),
        "held_out_judged": len(held_out),
        "untouched_domains": list(UNTOUCHED),
        "regret": "points of test accuracy, best of the run less the weights kept",
    }
    _report.write(options.json, settings, rows, figures)


if __name__ == "__main__":
    main()
