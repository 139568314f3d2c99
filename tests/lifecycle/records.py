"""What two records must have in common for the runs to count as the same."""

from __future__ import annotations

import dataclasses

import pandas as pd

from ww_callbacks.integrations.record import read_run

COSTS = ["seconds", "overhead", "time"]


def assert_same(one, other, rounded: tuple[str, ...] = ()) -> None:
    """The two folders hold the same record, bit for bit, but for times and costs, and ``rounded`` to seven digits."""
    a, b = read_run(one), read_run(other)
    assert len(a.model) > 1
    pd.testing.assert_frame_equal(a.layers, b.layers, check_exact=True)
    left = COSTS + [name for name in a.model.columns if name in rounded]
    pd.testing.assert_frame_equal(a.model.drop(columns=left), b.model.drop(columns=left), check_exact=True)
    for name in left[len(COSTS) :]:
        pd.testing.assert_series_equal(a.model[name], b.model[name], rtol=1e-6)
    if not rounded:
        assert [dataclasses.asdict(x) for x in a.alerts] == [dataclasses.asdict(x) for x in b.alerts]
        assert a.verdict == b.verdict
    assert [(x.kind, x.step, x.layers) for x in a.alerts] == [(x.kind, x.step, x.layers) for x in b.alerts]
    assert a.verdict.state == b.verdict.state
    for layer in a.layers["layer"].unique():
        assert a.density(layer) == b.density(layer)


class Stop(Exception):
    """Raised by a user's code in the middle of training."""
