"""Overtraining without validation data, and with it: false alarms, detection and regret on small real trainings.

Sixteen domains in fourteen families. Every figure of a family comes from a judgement that never saw it: coefficients,
threshold and calibration are chosen on the other families. Trains what is missing of the trajectories (about an hour on
one core; they are in the folder that WW_CALLBACKS_TRAJECTORIES names, or ``.cache/overfitting``).

    python -m benchmarks.early_stopping --json benchmarks/results/early_stopping.json
    python -m benchmarks.early_stopping --cached-only --write    # also write the shipped coefficients
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import _report
from benchmarks.overfitting import rules
from benchmarks.overfitting.fitting import calibrate, epoch_weights, fit, leave_family_out, scores
from benchmarks.overfitting.rows import Judged, families, gain_of_stopping, load
from benchmarks.overfitting.runs import SCENARIOS
from benchmarks.overfitting.truth import RAW, SHORT, wilson
from ww_callbacks.spectral.detectors.signals.judgement import probability

FALSE_ALARMS = {"cautious": 0.035, "eager": 0.12}
"""Share of healthy runs in which an alarm is accepted, on the families that a threshold is chosen on."""
WORSE = 0.2
"""Training on makes the weights worse if it costs this many points, or ten times as many per cent of loss."""
LOOKS = 230
"""How many sets of signals, penalties and alarm rules were compared by leave-one-family-out results: 14 before version
0.2, the others on the runs of the first two seeds."""
CHOSEN_ON = 2
"""Seeds whose runs the signals were chosen on."""
VALIDATION_RIVAL = "validation patience 10, raw"


def threshold_for(judged: Sequence[Judged], found: Sequence[np.ndarray], rate: float) -> float:
    """The lowest threshold at which at most this share of the healthy runs raises an alarm."""
    highest = [rules.highest_threshold(s) for j, s in zip(judged, found, strict=True) if j.truth.group == "healthy"]
    return sorted(highest, reverse=True)[int(rate * len(highest))]


@dataclass(frozen=True)
class Nested:
    """What is chosen for a family on the other families, by scores of coefficients that saw neither of the two.

    Attributes:
        thresholds: threshold of each preset.
        calibration: intercept and slope that turn a score into a probability.
    """

    thresholds: Mapping[str, float]
    calibration: tuple[float, float]


def nested(judged: Sequence[Judged]) -> dict[str, Nested]:
    """Thresholds and calibration for each family."""
    out: dict[str, Nested] = {}
    for family in families(judged):
        others = [j for j in judged if j.run.family != family]
        _, found, _ = leave_family_out(others)
        limits = {name: threshold_for(others, found, rate) for name, rate in FALSE_ALARMS.items()}
        worse = np.concatenate([gain_of_stopping(j) > WORSE for j in others])
        out[family] = Nested(limits, calibrate(np.concatenate(found), worse, epoch_weights(others)))
    return out


def summary(judged: Sequence[Judged], did: Sequence[rules.Outcome]) -> dict[str, Any]:
    """False alarms, detection and regret of one rule."""
    groups = [j.truth.group for j in judged]

    def alarms(group: str, short: bool | None = None) -> tuple[int, int]:
        chosen = [
            o.stop is not None
            for j, o, g in zip(judged, did, groups, strict=True)
            if g == group and short in (None, j.run.short)
        ]
        return sum(chosen), len(chosen)

    def mean(values: Sequence[float]) -> float | None:
        known = [v for v in values if math.isfinite(v)]
        return float(np.mean(known)) if known else None

    false, healthy = alarms("healthy")
    low, high = wilson(false, healthy)
    row: dict[str, Any] = {
        "runs": len(judged),
        "healthy": healthy,
        "false_alarms": false,
        "false_alarm_rate": false / max(healthy, 1),
        "false_alarm_lower95": low,
        "false_alarm_upper95": high,
    }
    for group, key in (("accuracy", "detection"), ("loss", "detection_loss")):
        found, of = alarms(group)
        lower, upper = wilson(found, of)
        row |= {f"{key}_found": found, f"{key}_of": of, f"{key}_rate": found / max(of, 1),
                f"{key}_lower95": lower, f"{key}_upper95": upper}  # fmt: skip
    short = [alarms(group, True) for group in ("accuracy", "loss")]
    row["short_found"], row["short_of"] = sum(s[0] for s in short), sum(s[1] for s in short)
    row["short_false_alarms"], row["short_healthy"] = alarms("healthy", True)
    row["mean_regret"], row["loss_regret"] = mean([o.points for o in did]), mean([o.loss for o in did])
    for group in ("healthy", "accuracy", "loss"):
        chosen = [o for o, g in zip(did, groups, strict=True) if g == group]
        row[f"regret_{group}"] = mean([o.points for o in chosen])
        row[f"loss_regret_{group}"] = mean([o.loss for o in chosen])
    return row


def paired(a: Sequence[float], b: Sequence[float], draws: int = 2000) -> tuple[float, float, float]:
    """Mean of a − b over the runs where both are known, with a 95 % bootstrap interval."""
    difference = np.array([x - y for x, y in zip(a, b, strict=True) if math.isfinite(x) and math.isfinite(y)])
    rng = np.random.default_rng(0)
    means = [float(np.mean(rng.choice(difference, len(difference)))) for _ in range(draws)]
    return float(np.mean(difference)), float(np.quantile(means, 0.025)), float(np.quantile(means, 0.975))


def reliability(
    judged: Sequence[Judged], found: Sequence[np.ndarray], chosen_for: Mapping[str, Nested]
) -> tuple[float, list[dict[str, float]]]:
    """Calibration error of the probability, and the reliability diagram."""
    worse = [gain_of_stopping(j) > WORSE for j in judged]
    predicted = [
        np.array([probability(float(x), chosen_for[j.run.family].calibration) for x in s])
        for j, s in zip(judged, found, strict=True)
    ]
    p, y = np.concatenate(predicted), np.concatenate(worse)
    weight = epoch_weights(judged)
    bins, error, rows = np.clip((p * 10).astype(int), 0, 9), 0.0, []
    for b in range(10):
        chosen = bins == b
        if not chosen.any():
            continue
        share = float(weight[chosen].sum() / weight.sum())
        said, was = (
            float(np.average(p[chosen], weights=weight[chosen])),
            float(np.average(y[chosen], weights=weight[chosen])),
        )
        error += share * abs(said - was)
        rows.append({"table": "reliability", "from": b / 10, "said": said, "was": was, "share": share})
    return error, rows


def gain_of_average(judged: Sequence[Judged]) -> dict[str, float]:
    """Points of test accuracy that the average over an epoch has more than the raw weights."""

    def gain(chosen: Sequence[Judged], epochs: Callable[[Judged], Sequence[int]]) -> float:
        gains = [j.regret(j.full, e, RAW)[0] - j.regret(j.full, e, SHORT)[0] for j in chosen for e in epochs(j)]
        return float(np.mean(gains))

    scored = [j for j in judged if j.scored]
    last = lambda j: [len(j.full["loss"]) - 1]  # noqa: E731
    return {
        "average_gain_at_end": gain(scored, last),
        "average_gain_at_end_of_short_runs": gain([j for j in scored if j.run.short], last),
        "average_gain_in_first_4_epochs_of_long_runs": gain(
            [j for j in scored if not j.run.short], lambda _: range(1, 5)
        ),
    }


def milliseconds_per_layer(layers: int = 100, epochs: int = 40) -> float:
    """Time of the default detectors for one layer of one snapshot."""
    from ww_callbacks.spectral.detectors import Observation, default_detectors

    detectors = default_detectors("cautious")
    series = [
        Observation(
            step=100 * i,
            epoch=float(i),
            layers={
                f"block.{n}.weight": {
                    "frobenius_norm": 10 + i**0.3, "distance_from_init": (i + 1) ** 0.3, "relative_update_norm": 0.1,
                    "effective_rank": 80.0, "scale_collapse": 0.1, "alpha": 3.0, "sigma": 0.3,
                    "alpha_evidence": "sufficient",
                }
                for n in range(layers)
            },
            metrics={"train_loss": 1 / (i + 1), "train_accuracy": 0.9, "learning_rate": 1e-3},
            epoch_losses=tuple(1 / (i + 1) for _ in range(10)),
        )
        for i in range(epochs)
    ]  # fmt: skip
    start = time.perf_counter()
    for observation in series:
        for detector in detectors:
            detector.update(observation)
    return 1000 * (time.perf_counter() - start) / (layers * epochs)


def write_coefficients(judged: Sequence[Judged], found: Sequence[np.ndarray], figures: Mapping[str, Any]) -> None:
    """Fit on all runs and write what is shipped."""
    from ww_callbacks.spectral.detectors.signals import coefficients as module

    shipped = fit(judged)
    all_scores = [scores(shipped, j.signals) for j in judged]
    weight = np.concatenate([np.full(len(s), 1 / len(s)) for s in all_scores])
    worse = np.concatenate([gain_of_stopping(j) > WORSE for j in judged])
    calibration = calibrate(np.concatenate(list(found)), worse, weight)
    limits = {name: threshold_for(judged, found, rate) for name, rate in FALSE_ALARMS.items()}

    def table(values: Mapping[str, float]) -> str:
        return "{\n" + "".join(f'        "{n}": {v:.4g},\n' for n, v in values.items()) + "    }"

    Path(module.__file__).write_text(
        '"""Written by ``python -m benchmarks.early_stopping --write``; do not edit. ``judgement.py`` says what they '
        'mean."""\n\nfrom ww_callbacks.spectral.detectors.signals.judgement import Coefficients\n\n'
        f"COEFFICIENTS = Coefficients(\n    intercept={shipped.intercept:.4g},\n    weights={table(shipped.weights)},\n"
        f"    typical={table(shipped.typical)},\n)\n\n"
        f'CALIBRATION = ({calibration[0]:.3g}, {calibration[1]:.3g})\n"""a and b of the probability."""\n\n'
        f"CAUTIOUS = {limits['cautious']:.3g}\n"
        f'"""Score above which an epoch counts towards an alarm: {figures["false_alarm_rate"]:.1%} false alarms in '
        'families that were left out."""\n\n'
        f"EAGER = {limits['eager']:.3g}\n"
        f'"""The same for {figures["eager_false_alarm_rate"]:.1%} false alarms."""\n\n'
        f'FOUND = {{"short": {figures["found_short"]:.2g}, "long": {figures["found_long"]:.2g}}}\n'
        '"""Share of the overtrained runs of left-out families in which the cautious judgement raised an alarm."""\n\n'
        f'HIDDEN = {{"short": {figures["hidden_short"]:.2g}, "long": {figures["hidden_long"]:.2g}}}\n'
        '"""Share of the runs without an alarm that were overtrained all the same. Short runs have 3 to 8 epochs."""\n',
        encoding="utf-8",
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the benchmark."""
    parser = _report.arguments(__doc__)
    parser.add_argument("--seeds", type=int, default=6, help="runs of each domain and scenario")
    parser.add_argument("--cached-only", action="store_true", help="train nothing; leave out what is not cached")
    parser.add_argument("--write", action="store_true", help="write the coefficients that the package ships")
    options = parser.parse_args(arguments)
    judged = load(options.seeds, options.cached_only)
    by_family, full, _ = leave_family_out(judged)
    picked = nested(judged)

    def replayed(preset: str, which: int = SHORT, validation: bool = False) -> list[rules.Outcome]:
        out = []
        for j in judged:
            with rules.using(by_family[j.run.family]):
                limit = picked[j.run.family].thresholds[preset]
                out.append(rules.ours(j, limit, which, validation, soft=preset == "eager" or validation))
        return out

    plain: Mapping[str, Callable[[Judged], rules.Outcome]] = {
        "never stop, raw": lambda j: rules.never(j, RAW),
        "never stop, average kept": lambda j: rules.never(j, SHORT),
        "training accuracy 99 %, raw": rules.fitted_data,
        "evidence criterion of the gradients, raw": rules.evidence_criterion,
        "gradient disparity, raw": rules.gradient_disparity,
        "mean α below 2, raw": rules.low_alpha,
        "version 0.1.0, epoch it names, raw": rules.former,
        "version 0.1.0, epoch it names, average kept": lambda j: rules.former(j, SHORT),
        VALIDATION_RIVAL: lambda j: rules.patience(j, 10),
        "validation patience scaled to the run, raw": lambda j: rules.patience(j, None),
        "validation patience 10 on the average's loss, average kept": lambda j: rules.patience(j, 10, SHORT),
        "validation patience scaled, on the average's loss, average kept": lambda j: rules.patience(j, None, SHORT),
        "validation patience 10, extra data, raw": lambda j: rules.patience(j, 10, charged=False),
        "validation patience scaled, extra data, raw": lambda j: rules.patience(j, None, charged=False),
        "validation patience 10 on the average's loss, extra data, average kept": lambda j: rules.patience(
            j, 10, SHORT, charged=False
        ),
    }
    did: dict[str, list[rules.Outcome]] = {name: [rule(j) for j in judged] for name, rule in plain.items()}
    did |= {
        "cautious, raw": replayed("cautious", RAW),
        "cautious, average kept": replayed("cautious"),
        "eager, average kept": replayed("eager"),
        "with validation, average kept": replayed("cautious", validation=True),
    }
    rows: list[dict[str, Any]] = []
    for name, outcomes in did.items():
        rows.append({"table": "rules", "rule": name, **summary(judged, outcomes)})
        for family in families(judged):
            chosen = [k for k, j in enumerate(judged) if j.run.family == family]
            part = summary([judged[k] for k in chosen], [outcomes[k] for k in chosen])
            rows.append({"table": "families", "family": family, "rule": name, **part})
    error, diagram = reliability(judged, full, picked)
    rows += diagram
    table = {r["rule"]: r for r in rows if r["table"] == "rules"}
    cautious, eager = table["cautious, average kept"], table["eager, average kept"]
    stopped, trained = did["cautious, average kept"], did["never stop, average kept"]
    healthy = [k for k, j in enumerate(judged) if j.truth.group == "healthy"]
    against = paired([o.points for o in stopped], [o.points for o in did[VALIDATION_RIVAL]])
    with_validation = paired(
        [o.points for o in did["with validation, average kept"]], [o.points for o in did[VALIDATION_RIVAL]]
    )
    harm = paired([stopped[k].points for k in healthy], [trained[k].points for k in healthy])
    worst = {}
    for family in families(judged):
        chosen = [k for k, j in enumerate(judged) if j.run.family == family and j.scored]
        if chosen:
            worst[family] = paired([stopped[k].points for k in chosen], [trained[k].points for k in chosen])[0]
    lengths = {"short": [j.run.short for j in judged], "long": [not j.run.short for j in judged]}
    missed = {}
    for length, belongs in lengths.items():
        part = [
            (j.truth.group != "healthy", o.stop is not None)
            for j, o, b in zip(judged, stopped, belongs, strict=True)
            if b
        ]
        found = [alarm for ill, alarm in part if ill]
        quiet = [ill for ill, alarm in part if not alarm]
        missed[length] = (float(np.mean(found)) if found else 0.0, float(np.mean(quiet)) if quiet else 0.0)
    validated = table["with validation, average kept"]
    fresh = [k for k, j in enumerate(judged) if j.run.seed >= CHOSEN_ON]
    unseen = summary([judged[k] for k in fresh], [stopped[k] for k in fresh]) if fresh else {}
    figures = {
        "runs": len(judged),
        "domains": len({j.run.domain for j in judged}),
        "families": len(families(judged)),
        "healthy_runs": cautious["healthy"],
        "false_alarm_rate": cautious["false_alarm_rate"],
        "false_alarm_upper95": cautious["false_alarm_upper95"],
        "harm_of_alarms_in_healthy": harm[0],
        "harm_of_alarms_in_healthy_lower95": harm[1],
        "harm_of_alarms_in_healthy_upper95": harm[2],
        "detection_rate": cautious["detection_rate"],
        "detection_rate_loss": cautious["detection_loss_rate"],
        "eager_false_alarm_rate": eager["false_alarm_rate"],
        "eager_detection_rate": eager["detection_rate"],
        "eager_detection_rate_loss": eager["detection_loss_rate"],
        "mean_regret": cautious["mean_regret"],
        "loss_regret": cautious["loss_regret"],
        "eager_mean_regret": eager["mean_regret"],
        "eager_loss_regret": eager["loss_regret"],
        "mean_regret_never": table["never stop, raw"]["mean_regret"],
        "mean_regret_never_average": table["never stop, average kept"]["mean_regret"],
        "mean_regret_val_patience_restored": table[VALIDATION_RIVAL]["mean_regret"],
        "loss_regret_val_patience_restored": table[VALIDATION_RIVAL]["loss_regret"],
        "false_alarm_rate_val_patience": table[VALIDATION_RIVAL]["false_alarm_rate"],
        "regret_less_val_patience": against[0],
        "regret_less_val_patience_lower95": against[1],
        "regret_less_val_patience_upper95": against[2],
        "mean_regret_with_validation": validated["mean_regret"],
        "loss_regret_with_validation": validated["loss_regret"],
        "regret_with_validation_less_val_patience": with_validation[0],
        "regret_with_validation_less_val_patience_lower95": with_validation[1],
        "regret_with_validation_less_val_patience_upper95": with_validation[2],
        "false_alarm_rate_with_validation": validated["false_alarm_rate"],
        "detection_rate_with_validation": validated["detection_rate"],
        "short_run_detection": cautious["short_found"] / max(cautious["short_of"], 1),
        "short_run_false_alarm_rate": cautious["short_false_alarms"] / max(cautious["short_healthy"], 1),
        "calibration_error": error,
        "worst_family_cost": max(worst.values()),
        **{f"found_{length}": share for length, (share, _) in missed.items()},
        **{f"hidden_{length}": share for length, (_, share) in missed.items()},
        "unseen_seeds_runs": len(fresh),
        **{
            f"unseen_seeds_{name}": unseen.get(name)
            for name in ("false_alarm_rate", "detection_rate", "detection_loss_rate", "mean_regret", "loss_regret")
        },
        **gain_of_average(judged),
        "milliseconds_per_layer": milliseconds_per_layer(),
    }
    settings = {
        "worst_family": max(worst, key=lambda f: worst[f]),
        "seeds": options.seeds,
        "scenarios": list(SCENARIOS),
        "looks_at_left_out_results": LOOKS,
        "regret": "points of test accuracy below the run's best raw epoch; per cent of test loss above the lowest",
        "thresholds": {family: dict(one.thresholds) for family, one in picked.items()},
    }
    _report.write(options.json, settings, rows, figures)
    if options.write:
        write_coefficients(judged, full, figures)


if __name__ == "__main__":
    main()
