"""The detectors of breakage on real runs: each has one that triggers it, and the healthy ones do not."""

import math

import pytest

from tests.spectral.detectors.series import BROKEN, HEALTHY, OVERTRAINED, observations, replay
from ww_callbacks.spectral.detectors import (
    DeadLayer,
    Explosion,
    NonFinite,
    Observation,
    Overtraining,
    RankCollapse,
    ScaleCollapse,
    default_detectors,
    verdict,
)

DETECTORS = {d.kind: d for d in (NonFinite, Explosion, ScaleCollapse, RankCollapse, DeadLayer)}


@pytest.mark.parametrize(("name", "kind"), BROKEN.items())
def test_a_broken_run_is_found(name, kind):
    found = replay(DETECTORS[kind](), name)
    first = next(i for i, findings in enumerate(found) if findings)
    finding = found[first][0]
    assert finding.kind == kind
    assert finding.severity in {"warning", "critical"}
    assert finding.since_step <= list(observations(name))[first].step
    assert finding.layers or kind == "non-finite"
    assert finding.message.endswith(".") and finding.recommendation.endswith(".")
    assert all(math.isfinite(v) for v in finding.evidence.values())


@pytest.mark.parametrize("kind", DETECTORS)
@pytest.mark.parametrize("name", [*HEALTHY, *OVERTRAINED])
def test_other_runs_are_let_alone(name, kind):
    assert not any(replay(DETECTORS[kind](), name))


def test_the_layer_and_the_time_are_named():
    # the last but one of three layers was frozen after epoch 5, and turned NaN there in the other run
    dead = replay(DeadLayer(), "digits-dead_layer-0")
    finding = next(f[0] for f in dead if f)
    assert finding.layers == ("3.weight",)
    assert finding.since_epoch == 6
    assert not finding.may_stop
    broken = replay(NonFinite(), "digits-nan-0")
    finding = next(f[0] for f in broken if f)
    assert finding.since_epoch == 5
    assert finding.best_epoch == 4
    assert "3.weight" in finding.layers
    assert finding.may_stop


def test_an_explosion_may_stop_the_run_only_where_the_loss_shows_it():
    known = [f[0] for f in replay(Explosion(), "digits-rate_too_high-1") if f]
    unknown = [f[0] for f in replay(Explosion(), "digits-rate_too_high-1", without=("train_loss",)) if f]
    assert known[0].may_stop and known[0].severity == "critical"
    assert not unknown[0].may_stop and unknown[0].severity == "warning"


def test_growth_that_the_loss_gains_by_is_no_explosion():
    series = [
        Observation(
            100 * i, float(i), {"a": {"frobenius_norm": 1.6**i, "relative_update_norm": 0.6}}, {"train_loss": 0.9**i}
        )
        for i in range(1, 12)
    ]
    detector = Explosion()
    assert not any(detector.update(o) for o in series)


def _norms(step, **layers):
    return Observation(step, float(step), {n: {"frobenius_norm": v} for n, v in layers.items()})


def test_a_model_that_shrinks_as_a_whole_is_no_scale_collapse():
    together, alone = ScaleCollapse(), ScaleCollapse()
    for i in range(20):
        shrunk = 10 * math.exp(-0.1 * i)
        said = together.update(_norms(i, a=shrunk, b=shrunk, c=shrunk))
        found = alone.update(_norms(i, a=shrunk, b=10.0, c=10.0))
    assert not said
    assert found[0].layers == ("a",)
    assert found[0].evidence["fraction_of_own_maximum"] == pytest.approx(math.exp(-1.9))


def test_the_fixed_ratio_informs_and_stops_nothing():
    detector = ScaleCollapse(ratio=0.5)
    for i in range(4):
        found = detector.update(Observation(i, float(i), {"a": {"frobenius_norm": 1.0, "scale_collapse": -0.4}}))
    assert found and not found[0].may_stop


def test_one_noisy_snapshot_neither_raises_nor_clears_a_finding():
    ranks = [40, 40, 5, 40, 5, 5, 5, 40, 5, 40, 40, 40]
    detector = RankCollapse()
    said = [
        bool(detector.update(Observation(i, float(i), {"a": {"effective_rank": float(r)}})))
        for i, r in enumerate(ranks)
    ]
    assert said == [False] * 6 + [True] * 5 + [False]


def test_a_cheap_snapshot_without_spectra_changes_nothing():
    detector = RankCollapse(persistence=2)
    full = {"a": {"effective_rank": 4.0}}
    detector.update(Observation(0, 0.0, {"a": {"effective_rank": 40.0}}))
    detector.update(Observation(1, 1.0, full))
    assert not detector.update(Observation(2, 1.5, {"a": {"frobenius_norm": 1.0}}, full=False))
    assert detector.update(Observation(3, 2.0, full))


@pytest.mark.parametrize(("error", "found"), [(0.0, True), (0.5, True), (1.5, False)])
def test_an_estimate_counts_only_with_all_of_its_error(error, found):
    """A rank of 7 is below a fifth of 40, but not if it may be 8.5; likewise a scale of -1.2."""
    rank, scale = RankCollapse(), ScaleCollapse()
    for i, value in enumerate([40.0, 7.0, 7.0, 7.0]):
        errors = {"a": {"effective_rank": error, "scale_collapse": error / 5}}
        layers = {"a": {"effective_rank": value, "frobenius_norm": 1.0, "scale_collapse": -1.2}}
        observation = Observation(i, float(i), layers, errors=errors)
        said = [bool(rank.update(observation)), bool(scale.update(observation))]
    assert said == [found, found]


def test_a_finished_schedule_is_not_death_and_a_frozen_layer_is_told_apart():
    detector = DeadLayer()
    for i in range(1, 12):
        change = 0.1 if i < 7 else 0.0
        found = detector.update(
            Observation(
                i,
                float(i),
                {"a": {"relative_update_norm": change}, "b": {"relative_update_norm": change}},
                {"learning_rate": change},
            )
        )
    assert not found
    frozen = DeadLayer()
    for i in range(1, 6):
        found = frozen.update(
            Observation(i, float(i), {"a": {"relative_update_norm": 0.1}, "b": {"relative_update_norm": 0.0}})
        )
    assert found[0].layers == ("b",)
    assert found[0].severity == "info"
    assert verdict(found).state == "healthy"


def test_all_layers_halting_under_a_positive_rate_is_found():
    detector = DeadLayer()
    for i in range(1, 12):
        values = {"relative_update_norm": 0.1 if i < 6 else 0.0}
        found = detector.update(Observation(i, float(i), {"a": values, "b": values}, {"learning_rate": 0.1}))
    assert set(found[0].layers) == {"a", "b"}


def test_a_loss_that_is_infinite_once_is_said_and_stops_nothing():
    detector = NonFinite()
    layers = {"a": {"frobenius_norm": 1.0}}
    assert not detector.update(Observation(1, 1.0, layers, {"train_loss": 1.0}))
    found = detector.update(Observation(2, 2.0, layers, {"train_loss": math.inf}))
    assert found[0].layers == () and not found[0].may_stop
    assert not detector.update(Observation(3, 3.0, layers, {"train_loss": 0.9}))


def test_no_healthy_run_gets_another_verdict_than_healthy():
    for name in HEALTHY:
        detectors = [d for d in default_detectors("cautious") if not isinstance(d, Overtraining)]
        last = []
        for observation in observations(name):
            last = [f for d in detectors for f in d.update(observation)]
            assert not any(f.may_stop for f in last)
        assert verdict(last).state == "healthy"


@pytest.mark.parametrize(
    ("name", "state"),
    [("digits-nan-0", "broken"), ("digits-rate_too_high-1", "diverging")],
)
def test_the_verdict_of_a_run(name, state):
    detectors = default_detectors("cautious")
    for observation in observations(name):
        last = [f for d in detectors for f in d.update(observation)]
    judged = verdict(last)
    assert judged.state == state
    assert judged.since_epoch is not None and judged.reason and judged.recommendation
