import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ww_callbacks.spectral.aggregate.alpha_flow import correlation_flow

alphas = st.lists(st.floats(1.1, 12), min_size=3, max_size=40)


@given(alphas, st.floats(-5, 5))
def test_a_constant_changes_the_mean_alone(values, constant):
    one, other = correlation_flow(values), correlation_flow(np.array(values) + constant)
    for name in ("slope", "median_slope", "roughness", "spread"):
        assert getattr(other, name) == pytest.approx(getattr(one, name), abs=1e-9)
    assert other.mean == pytest.approx(one.mean + constant)


def test_slope_is_the_climb_over_the_whole_depth():
    flow = correlation_flow(np.linspace(2, 5, 12))
    assert (flow.slope, flow.median_slope) == (pytest.approx(3), pytest.approx(3))
    assert flow.slope_error == pytest.approx(0, abs=1e-9)
    assert flow.roughness == pytest.approx(3 / 11)


def test_one_bad_layer_moves_the_slope_and_not_the_median_slope():
    values = np.full(20, 3.0)
    values[-1] = 30.0
    flow = correlation_flow(values)
    assert flow.slope > 3
    assert flow.median_slope == 0


def test_layers_left_out_keep_the_others_places():
    values = np.array([2.0, np.nan, 3.0, 99.0, 4.0])
    flow = correlation_flow(values, usable=[True, True, True, False, True])
    assert flow.layers == 3
    assert flow.slope == pytest.approx(2.0)
    assert flow.roughness == pytest.approx(1.0)


def test_too_few_layers():
    assert correlation_flow([]).layers == 0
    assert np.isnan(correlation_flow([2.0]).slope)
    assert correlation_flow([2.0]).mean == 2.0
    assert np.isnan(correlation_flow([2.0, 3.0]).slope_error)


def test_refuses_another_length():
    with pytest.raises(ValueError, match="one per layer"):
        correlation_flow([1.0, 2.0], usable=[True])
