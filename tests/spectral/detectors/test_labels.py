"""Fixed thresholds inform, with their evidence, and the verdict says what the findings come to."""

import json

import pytest

from ww_callbacks.spectral.detectors import (
    AlphaRange,
    CorrelationTrap,
    DeadLayer,
    Explosion,
    Finding,
    Observation,
    RankCollapse,
    ScaleCollapse,
    verdict,
)


def _alpha(i, **layers):
    return Observation(
        i, float(i), {n: {"alpha": a, "sigma": s, "alpha_evidence": e} for n, (a, s, e) in layers.items()}
    )


def _series(detector, count=4, **layers):
    for i in range(count):
        found = detector.update(_alpha(i, **layers))
    return found


def test_alpha_outside_its_range_informs_where_the_evidence_suffices():
    found = _series(
        AlphaRange(),
        low=(1.5, 0.1, "sufficient"),
        unsure=(1.9, 0.1, "sufficient"),
        short=(1.2, 0.1, "short tail"),
        fine=(3.0, 0.1, "sufficient"),
        high=(9.0, 0.5, "sufficient"),
        missing=(float("nan"), float("nan"), "few eigenvalues"),
    )
    assert found[0].layers == ("low", "high")
    assert found[0].severity == "info" and not found[0].may_stop
    assert found[0].evidence["alpha"] == 1.5
    assert found[0].evidence["layers_below"] == found[0].evidence["layers_above"] == 1
    assert "a validation loss would tell" in found[0].recommendation
    assert "1.50 ± 0.10" in found[0].message and "9.00 ± 0.50" in found[0].message


def test_alpha_that_did_not_fall_in_fine_tuning():
    tuned, detector = AlphaRange(fine_tuning=True), AlphaRange()
    for i in range(5):
        observation = _alpha(i, still=(8.0, 0.2, "sufficient"), fell=(9.0 - 0.4 * i, 0.2, "sufficient"))
        found, plain = tuned.update(observation), detector.update(observation)
    assert "did not fall during fine-tuning in `still`." in found[0].message
    assert "more data or another protocol" in found[0].recommendation
    assert "fine-tuning" not in plain[0].message


def test_a_wrong_range_is_refused():
    with pytest.raises(ValueError, match="low"):
        AlphaRange(low=6, high=2)


def test_a_trap_informs_when_it_is_measured():
    detector = CorrelationTrap(quantity="z")
    assert not detector.update(Observation(0, 0.0, {"a": {"alpha": 2.0}}))
    for i in range(1, 4):
        found = detector.update(Observation(i, float(i), {"a": {"z": 5.0 + i}, "b": {"z": 1.0}}))
    assert found[0].layers == ("a",)
    assert found[0].severity == "info" and not found[0].may_stop
    assert found[0].evidence["highest_z"] == 8.0


def _finding(kind, severity, **values):
    return Finding(kind, severity, ("a",), {"x": 1.0}, 10, 1.0, f"{kind} seen.", f"Mend {kind}.", **values)


@pytest.mark.parametrize(
    ("findings", "state"),
    [
        ([("alpha out of range", "info")], "healthy"),
        ([("dead layer", "warning")], "watch"),
        ([("scale collapse", "warning")], "watch"),
        ([("scale collapse", "critical")], "collapsing"),
        ([("overtraining", "critical"), ("rank collapse", "critical")], "collapsing"),
        ([("overtraining", "critical"), ("alpha out of range", "info")], "overtraining"),
        ([("explosion", "critical"), ("non-finite", "critical")], "broken"),
    ],
)
def test_the_worst_finding_decides(findings, state):
    judged = verdict([_finding(*f) for f in findings], insufficient="")
    assert judged.state == state
    assert judged.signals[f"{findings[0][0]}/x"] == 1.0 or state == "broken"


def test_a_verdict_takes_over_what_its_finding_says():
    judged = verdict([_finding("overtraining", "critical", confidence=0.9, best_step=7, best_epoch=0.7)])
    assert (judged.since_step, judged.confidence, judged.best_step, judged.best_epoch) == (10, 0.9, 7, 0.7)
    assert judged.layers == ("a",)


def test_too_little_known_is_not_called_healthy():
    assert verdict([], insufficient="only 2 snapshots so far").state == "not judged"
    # what was found counts whatever else is unknown
    assert verdict([_finding("non-finite", "critical")], insufficient="only 2 snapshots so far").state == "broken"


@pytest.mark.parametrize("damage", [{"layers": {"a": {"unknown": 1}}}, {"run": {"unknown": 1}}, {"layers": [1]}])
def test_a_state_of_another_version_is_refused(damage):
    detector = RankCollapse()
    with pytest.raises(ValueError, match="another version"):
        detector.load_state_dict({**detector.state_dict(), **damage})


@pytest.mark.parametrize("kind", [AlphaRange, CorrelationTrap, DeadLayer, Explosion, RankCollapse, ScaleCollapse])
def test_the_state_is_plain_json_before_anything_was_measured(kind):
    detector, other = kind(), kind()
    detector.update(Observation(0, 0.0, {"a": {"alpha": float("nan")}}))
    other.load_state_dict(json.loads(json.dumps(detector.state_dict(), allow_nan=False)))
    for each in (detector, other):
        each.update(Observation(1, 1.0, {"a": {"alpha": 2.5, "frobenius_norm": 1.0, "trap_z_centred": 3.0}}))
    assert json.dumps(other.state_dict()) == json.dumps(detector.state_dict())


def test_an_alpha_that_is_not_measured_again_says_nothing():
    """With a tolerance the row has no α while the layer hardly changes: its finding stays and counts no snapshot."""
    detector = AlphaRange(persistence=2)
    known = {"w": {"alpha": 1.2, "sigma": 0.1, "alpha_evidence": "sufficient"}}
    waits: dict[str, dict[str, float | str]] = {"w": {"effective_rank": 10.0}}
    found = [
        bool(detector.update(Observation(step, float(step), layers)))
        for step, layers in enumerate([known, waits, waits, known, waits, waits])
    ]
    assert found == [False, False, False, True, True, True]
