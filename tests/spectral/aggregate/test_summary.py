import numpy as np
import pytest

from ww_callbacks.spectral.aggregate.summary import STATISTICS, summarise
from ww_callbacks.spectral.measuring.registry import all_quantities


def test_statistics_over_finite_values_only():
    rows = [{"effective_rank": v} for v in (1.0, 2.0, 3.0, 4.0, 5.0, np.nan, np.inf)]
    summary = summarise(rows)
    assert set(summary) == {f"effective_rank/{s}" for s in STATISTICS}
    assert summary["effective_rank/mean"] == summary["effective_rank/median"] == 3.0
    assert (summary["effective_rank/min"], summary["effective_rank/max"]) == (1.0, 5.0)
    assert summary["effective_rank/q10"] == pytest.approx(1.4)
    assert summary["effective_rank/q90"] == pytest.approx(4.6)


def test_alpha_counts_only_with_evidence():
    rows = [
        {"alpha": 3.0, "alpha_evidence": "sufficient"},
        {"alpha": 5.0, "alpha_evidence": "sufficient"},
        {"alpha": 40.0, "alpha_evidence": "short tail"},
        {"alpha": np.nan, "alpha_evidence": "no fit"},
        {"alpha": np.nan, "alpha_evidence": ""},
    ]
    summary = summarise(rows)
    assert summary["alpha/mean"] == 4.0
    assert summary["alpha/max"] == 5.0
    assert summary["alpha/share_sufficient"] == 0.5


def test_nothing_left_is_nan_and_nothing_there_is_absent():
    summary = summarise([{"alpha": 9.0, "alpha_evidence": "short tail"}])
    assert np.isnan(summary["alpha/mean"])
    assert summary["alpha/share_sufficient"] == 0.0
    assert summarise([]) == {}
    assert summarise([{"stable_rank": 1.0, "no such": 2.0}]) == {}


def test_headlines_are_the_few_that_are_streamed():
    headline = {q.name for q in all_quantities() if q.headline}
    assert {"alpha", "log_spectral_norm", "distance_from_init", "effective_rank", "scale_collapse"} <= headline
    assert len(headline) <= 10
