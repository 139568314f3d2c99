import pytest

from ww_callbacks.spectral.layers.selection import select
from ww_callbacks.spectral.layers.spec import LayerSpec


def spec(name, kind="dense", type="Linear", n=10, skipped=""):
    shapes = () if skipped else ((n, 2 * n),)
    return LayerSpec(name, (name,), kind, type, (n, 2 * n), shapes, skipped=skipped)


SPECS = [
    spec("encoder.0.weight"),
    spec("encoder.1.weight", "conv", "Conv2d", 4),
    spec("head.weight", n=30),
    spec("head.bias", "bias", skipped="a vector: it has no spectrum"),
]


def names(**filters):
    return [s.name for s in select(SPECS, **filters)]


def test_everything_eligible_without_filters():
    assert names() == ["encoder.0.weight", "encoder.1.weight", "head.weight"]


def test_filters_combine():
    assert names(include=["encoder.*"]) == ["encoder.0.weight", "encoder.1.weight"]
    assert names(include=["encoder.*"], types=["Linear"]) == ["encoder.0.weight"]
    assert names(types=["conv"]) == ["encoder.1.weight"]
    assert names(exclude=["head.*"]) == ["encoder.0.weight", "encoder.1.weight"]
    assert names(min_eigenvalues=10) == ["encoder.0.weight", "head.weight"]


def test_a_pattern_that_matches_nothing_names_near_matches():
    with pytest.raises(ValueError, match=r"'encodr\.0\.weight'.*matches nothing.*'encoder\.0\.weight'"):
        names(include=["encodr.0.weight"])


def test_a_type_that_matches_nothing_names_the_known_ones():
    with pytest.raises(ValueError, match=r"'Lineer'.*matches nothing.*'Linear'"):
        names(types=["Lineer"])


def test_too_many_eigenvalues_asked_for():
    with pytest.raises(ValueError, match=r"`head\.weight`, has 30"):
        names(min_eigenvalues=31)


def test_filters_that_leave_nothing_together():
    with pytest.raises(ValueError, match="leave no layer"):
        names(include=["head.*"], exclude=["head.*"])


def test_a_model_without_a_matrix():
    with pytest.raises(ValueError, match=r"no layer whose weights form a matrix.*a vector"):
        select([SPECS[-1]])


def test_a_pattern_of_what_is_left_out_says_why():
    with pytest.raises(ValueError, match=r"'\*bias' in `layers` matches only .* left out \(a vector: it has"):
        names(include=["*bias"])
