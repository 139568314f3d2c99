import math

import numpy as np
import orjson
import pytest

from ww_callbacks.integrations.record.format import SIGNIFICANT, density_lines
from ww_callbacks.integrations.schema import LayerRow, Snapshot


def written(**density):
    row = LayerRow("w", 0, {}, "ok", True, density=density)
    snapshot = Snapshot(3, 1.0, "full", (row,), {}, {}, 0.0, 0.0, 0.0)
    return orjson.loads(density_lines(snapshot))


@pytest.mark.parametrize("exponents", [(-3, 3), (-11, 15), (-300, 300)])
def test_densities_are_rounded_to_significant_digits_one_by_one_or_all_at_once(exponents):
    generator = np.random.default_rng(0)
    values = generator.standard_normal(3000) * 10.0 ** generator.uniform(*exponents, 3000)
    values = [*values.tolist(), 0.0, -0.5, 999999.5, 9.999995, 1e-10]
    line = written(edges=values, one=values[0], count=[1, 20, 300], nested={"array": np.array(values[:5])})
    assert line["edges"] == [float(f"{value:.{SIGNIFICANT}g}") for value in values]
    assert line["one"] == line["edges"][0] and line["count"] == [1, 20, 300]
    assert line["nested"]["array"] == line["edges"][:5]


def test_what_json_has_no_number_for_is_null():
    assert written(edges=[1.0, math.nan, math.inf])["edges"] == [1.0, None, None]
    assert written(edges=[])["edges"] == []


def test_a_snapshot_shows_itself_in_one_line():
    rows = tuple(LayerRow(f"layer{i}", i, {"alpha": 3.0}, "ok", True) for i in range(300))
    model = {f"quantity{i}/median": 1.0 for i in range(50)}
    text = repr(Snapshot(40, 2.5, "full", rows, model, {}, 0.1, 0.01, 9.0))
    assert text.startswith("Snapshot(step=40, epoch=2.5, full, 300 layers: quantity0/median=1")
    assert len(text) < 200 and "\n" not in text
