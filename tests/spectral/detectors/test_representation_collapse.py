import json

import pytest

from ww_callbacks.spectral.detectors.base import Observation
from ww_callbacks.spectral.detectors.layerwise.representation_collapse import RepresentationCollapse


def play(detector, series, losses=None):
    """Findings per snapshot; ``series`` is layer → values, None where no probe ran."""
    found = []
    for i in range(len(next(iter(series.values())))):
        layers = {
            name: {} if values[i] is None else {"feature_effective_rank": values[i]} for name, values in series.items()
        }
        metrics = {} if losses is None or losses[i] is None else {"train_loss": losses[i]}
        found.append(detector.update(Observation(i, float(i), layers, metrics)))
    return found


# Measured with the probe on digits (ten classes; the last one two classes), healthy and collapsed runs.
HEALTHY = {"a": [46.2, 36.1, 18.9, 20.2, 21.2], "b": [26.7, 14.4, 7.3, 7.7, 7.8], "out": [7.5, 4.5, 5.1, 5.1, 5.4]}
TWO_CLASSES = {"a": [26.7, 2.1, 1.5, 1.5, 1.5], "out": [1.6, 1.0, 1.1, 1.1, 1.0]}
RATE_TOO_HIGH = {"a": [46.2, 1.5, 1.4, 1.5, 1.5], "b": [26.7, 1.1, 1.0, 1.0, 1.0], "out": [7.5, 1.1, 1.5, 1.7, 2.3]}


@pytest.mark.parametrize("series", [HEALTHY, TWO_CLASSES])
def test_a_healthy_fall_towards_the_number_of_classes_is_none(series):
    falling = [2.3, 1.0, 0.4, 0.1, 0.05]
    assert not any(play(RepresentationCollapse(), series, falling))
    assert not any(play(RepresentationCollapse(), series))


def test_below_what_the_untrained_network_passed_on_is_one():
    found = play(RepresentationCollapse(), RATE_TOO_HIGH, [None, 2.0, 1.3, 1.2, 1.1])
    assert not found[1] and found[2]
    (finding,) = found[2]
    assert finding.kind == "representation collapse" and set(finding.layers) == {"a", "b", "out"}
    assert finding.severity == "warning" and not finding.may_stop and finding.since_epoch == 1.0
    assert finding.evidence["baseline"] == 7.5 and "7.5" in finding.message


def test_constant_features_are_critical_and_stop_only_with_a_lost_loss():
    dead = {"a": [33.3, 17.8, 17.6, 17.6], "out": [8.9, 0.0, 0.0, 0.0]}
    (learning,) = play(RepresentationCollapse(), dead, [None, 5.0, 2.33, 2.33])[-1]
    assert learning.severity == "critical" and not learning.may_stop and learning.layers == ("out",)
    (lost,) = play(RepresentationCollapse(), dead, [None, 2.33, 2.33, 2.33])[-1]
    assert lost.may_stop and "same for every input" in lost.message


def test_two_classes_that_are_not_learned():
    series = {"a": [26.7, 2.3, 1.7, 1.2, 1.0], "out": [1.6, 1.0, 1.0, 1.0, 1.0]}
    (finding,) = play(RepresentationCollapse(), series, [None, 0.6935, 0.6939, 0.6939, 0.6939])[-1]
    assert finding.layers == ("a",) and finding.may_stop


def test_a_layer_that_starts_at_zero_sets_no_baseline_and_has_nothing_to_lose():
    series = {"branch": [0.0, 0.0, 0.0], "out": [8.0, 7.0, 6.0]}
    assert not any(play(RepresentationCollapse(), series))


def test_snapshots_between_probes_keep_what_holds():
    series = {"out": [8.0, None, 0.0, None, 0.0, None, 7.0, None, 7.0]}
    found = play(RepresentationCollapse(), series)
    assert [bool(f) for f in found] == [False, False, False, False, True, True, True, True, False]


def test_the_state_goes_through_json_and_on():
    whole = RepresentationCollapse()
    expected = play(whole, RATE_TOO_HIGH)
    first = RepresentationCollapse()
    play(first, {k: v[:2] for k, v in RATE_TOO_HIGH.items()})
    second = RepresentationCollapse()
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    rest = [
        second.update(Observation(i, float(i), {k: {"feature_effective_rank": v[i]} for k, v in RATE_TOO_HIGH.items()}))
        for i in range(2, 5)
    ]
    assert rest == expected[2:]
    with pytest.raises(ValueError, match="rank collapse"):
        second.load_state_dict({"detector": "rank collapse"})


def test_bad_arguments():
    with pytest.raises(ValueError, match="share"):
        RepresentationCollapse(share=1.2)
    with pytest.raises(ValueError, match="persistence"):
        RepresentationCollapse(persistence=0)
