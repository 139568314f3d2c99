"""``ww_callbacks.spectral.compare``: what changed, and what broke."""

import numpy as np
import pytest

from tests.spectral.golden import power_law
from ww_callbacks import spectral
from ww_callbacks.spectral.comparison import NOTES
from ww_callbacks.spectral.number_text import with_error

RNG = np.random.default_rng(0)


@pytest.fixture
def before():
    return {f"h.{i}.weight": RNG.standard_normal((40, 30)) for i in range(6)}


def findings(before, after, **options):
    result = spectral.compare(before, after, **options)
    return dict(zip(result.findings["layer"], result.findings["finding"], strict=True))


def test_nothing_changed(before):
    result = spectral.compare(before, {name: w.copy() for name, w in before.items()})
    assert not result.layers["changed"].any()
    assert result.findings.empty
    assert result.heading() == "6 layers compared, 0 changed, no finding"


def test_each_way_of_breaking_is_named(before):
    after = {name: w.copy() for name, w in before.items()}
    after["h.0.weight"][0, 0] = np.inf
    after["h.1.weight"][:] = 0
    after["h.2.weight"] = after["h.2.weight"] * 0.05
    after["h.3.weight"] = after["h.3.weight"] * 12
    u, s, v = np.linalg.svd(after["h.4.weight"], full_matrices=False)
    s[4:] *= 1e-3
    after["h.4.weight"] = (u * s) @ v
    found = findings(before, after)
    assert found["h.0.weight"] == "non-finite"
    assert found["h.1.weight"] == "zero"
    assert found["h.2.weight"] == "norm ×0.05"
    assert found["h.3.weight"] == "largest singular value ×12"
    assert found["h.4.weight"].startswith("effective rank")
    assert "h.5.weight" not in found


def test_what_was_bad_before_is_no_finding(before):
    before["h.0.weight"][0, 0] = np.nan
    assert findings(before, {name: w.copy() for name, w in before.items()}) == {}


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_weights_that_were_unusable_before_are_said_and_not_held_against_the_later_ones(before, bad):
    after = {name: w.copy() for name, w in before.items()}
    before["h.0.weight"][0, 0] = bad
    after["h.1.weight"][0, 0] = np.nan
    before["h.2.weight"][0, 0] = bad
    after["h.2.weight"][:] = 0
    result = spectral.compare(before, after)
    assert dict(zip(result.findings["layer"], result.findings["finding"], strict=True)) == {"h.1.weight": "non-finite"}
    rows = result.layers.set_index("layer")
    assert list(rows["status"][:3]) == ["ok", "non-finite", "zero"]
    assert list(rows["unusable_before"]) == ["non-finite", "", "non-finite", "", "", ""]
    assert np.isnan(rows.loc["h.0.weight", "distance_from_init"])
    alone = spectral.analyze(after, "effective_rank", layers="h.0.*").layers
    assert rows.loc["h.0.weight", "effective_rank_after"] == alone["effective_rank"][0]
    assert (
        "1 with a finding, 2 unusable before (h.0.weight, h.2.weight); look at h.1.weight (non-finite)"
        in result.heading()
    )
    assert "unusable_before" in result.shown()


def test_earlier_weights_whose_squares_overflow_are_unusable(before):
    result = spectral.compare({name: 1e300 * w for name, w in before.items()}, before)
    assert result.findings.empty
    assert set(result.layers["unusable_before"]) == {"norm overflows"}
    assert set(result.layers["status"]) == {"ok"}


def test_the_table_has_no_column_of_unusable_weights_where_there_are_none(before):
    assert "unusable_before" not in spectral.compare(before, before).shown()


def test_a_label_from_alpha_is_no_finding():
    """A heavy tail gives α < 2 with sufficient evidence; it is shown with its error, and that is all."""
    before, after = power_law(2.2), power_law(1.7)
    after_weights = {"w": after}
    result = spectral.compare({"w": before}, after_weights)
    (row,) = result.layers.to_dict("records")
    assert row["alpha_after"] < 2 < row["alpha_before"] and row["alpha_evidence_after"] == "sufficient"
    assert row["finding"] == ""
    before, after = (with_error(row[f"alpha_{when}"], row[f"sigma_{when}"], digits=2) for when in ("before", "after"))
    assert result.shown()["alpha"][0] == f"{before} → {after}"
    assert spectral.compare(after_weights, after_weights).shown()["alpha"][0] == after
    assert "validation data" in repr(result) and "trained" not in repr(result).replace(NOTES, "")


def test_a_change_is_told_relative_to_the_weights_to_noise_and_in_rank(before):
    """A rank-one step and noise of the same norm differ in `change_to_noise` and `change_rank` only."""
    rng, name = np.random.default_rng(1), "h.3.weight"
    noise = rng.standard_normal((40, 30))
    step = np.outer(rng.standard_normal(40), rng.standard_normal(30))
    sizes = {}
    for label, direction in (("noise", noise), ("step", step)):
        size = 0.1 * np.linalg.norm(before[name]) / np.linalg.norm(direction)
        result = spectral.compare(before, {**before, name: before[name] + size * direction})
        row = result.layers.set_index("layer").loc[name]
        assert row["relative_distance_from_init"] == pytest.approx(0.1)
        assert result.shown()["layer"].iloc[0] == name
        assert f"1 changed by a median of 10 % of their norm (most: {name} 10 %), no finding" in result.heading()
        sizes[label] = row["change_to_noise"], row["change_rank"]
    assert sizes["noise"][0] == pytest.approx(1.0, abs=0.1)
    assert sizes["step"] == (pytest.approx(np.sqrt(1200) / (np.sqrt(40) + np.sqrt(30))), pytest.approx(1.0))
    assert sizes["noise"][1] > 5
    unchanged = spectral.compare(before, before).layers
    assert unchanged["change_to_noise"].isna().all()


def test_the_order_of_the_table(before):
    after = {**before, "h.4.weight": 30 * before["h.4.weight"], "h.2.weight": 1.1 * before["h.2.weight"]}
    result = spectral.compare(before, after)
    assert list(result.layers["layer"]) == list(before)
    assert list(result.shown()["layer"])[:3] == ["h.4.weight", "h.2.weight", "h.0.weight"]
    assert list(result.shown("depth")["layer"]) == list(before)
    ranks = result.layers.set_index("layer")["effective_rank_after"]
    assert list(result.shown("effective_rank_after")["layer"]) == list(ranks.sort_values(ascending=False).index)
    assert list(result.shown(changed=True)["layer"]) == ["h.4.weight", "h.2.weight"]
    with pytest.raises(ValueError, match=r"concern, depth, layer.*but got 'zzz'"):
        result.shown("zzz")


def test_layers_of_one_side_only(before):
    after = dict(before)
    after["new"] = np.eye(3)
    after["h.1.weight"] = np.eye(3)
    del after["h.0.weight"]
    result = spectral.compare(before, after)
    assert result.only_before == ("h.0.weight",)
    assert set(result.only_after) == {"new", "h.1.weight"}
    assert "1 only before (h.0.weight), 2 only after" in result.heading()
    with pytest.raises(ValueError, match=r"in common: the earlier ones are a \(3×3\), the later ones b"):
        spectral.compare({"a": np.eye(3)}, {"b": np.eye(3)})


def test_distances_and_spectra_are_those_of_analyze(before):
    after = {name: w + 0.1 * RNG.standard_normal(w.shape) for name, w in before.items()}
    rows = spectral.compare(before, after, layers="h.1.*").layers
    there = spectral.analyze(after, baseline=before, layers="h.1.*").layers
    old = spectral.analyze(before, layers="h.1.*").layers
    assert list(rows["layer"]) == ["h.1.weight"]
    for name in ("distance_from_init", "cosine_to_init"):
        assert rows[name][0] == there[name][0]
    assert (rows["alpha_before"][0], rows["alpha_after"][0]) == (old["alpha"][0], there["alpha"][0])


def test_representations(before):
    result = spectral.compare({"<b>": np.eye(3)}, {"<b>": 2 * np.eye(3)})
    assert "<b>" in repr(result)
    assert "<b>" not in result._repr_html_()
