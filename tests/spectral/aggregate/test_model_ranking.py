import numpy as np
import pytest
from scipy.stats import linregress

from ww_callbacks.spectral.aggregate.model_ranking import model_series
from ww_callbacks.spectral.random_matrix.nulls.random_nulls import generator


def test_against_scipy_and_definitions():
    rng = generator(0)
    metric = rng.uniform(2, 5, 15)
    accuracy = 90 - 4 * metric + rng.normal(0, 1, 15)
    series = model_series(metric, accuracy)
    line = linregress(metric, accuracy)
    assert (series.slope, series.intercept) == (pytest.approx(line.slope), pytest.approx(line.intercept))
    assert series.r2 == pytest.approx(line.rvalue**2)
    residual = accuracy - line.slope * metric - line.intercept
    assert series.rmse == pytest.approx(np.sqrt(np.mean(residual**2)))
    np.testing.assert_allclose(series.points["residual"], residual)
    assert series.kendall < -0.5
    assert series.kendall_p < 0.01
    assert series.spearman < -0.6


def test_models_without_a_number_are_left_out():
    series = model_series([1.0, np.nan, 2.0, 3.0], [1.0, 2.0, np.inf, 3.0], names=["a", "b", "c", "d"])
    assert series.models == 2
    assert list(series.points.index) == ["a", "d"]


@pytest.mark.parametrize("metric", [[1.0], [2.0, 2.0, 2.0]])
def test_nothing_to_compare(metric):
    series = model_series(metric, np.arange(len(metric)))
    assert np.isnan(series.slope)
    assert list(series.points.columns) == ["metric", "accuracy", "fitted", "residual"]


def test_equal_accuracies_have_no_rank_correlation():
    series = model_series([1.0, 2.0, 3.0], [5.0, 5.0, 5.0])
    assert series.rmse == pytest.approx(0, abs=1e-12)
    assert np.isnan(series.kendall)
    assert np.isnan(series.r2)


def test_refuses_unequal_lengths():
    with pytest.raises(ValueError, match="one accuracy per model"):
        model_series([1.0], [1.0, 2.0])
