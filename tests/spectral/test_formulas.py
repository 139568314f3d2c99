"""The formulas are functions of arrays: exported, documented, safe at every scale, and what the quantities use."""

import inspect

import numpy as np
import pytest

from ww_callbacks import spectral
from ww_callbacks.spectral.measuring.layer_weights import LayerWeights
from ww_callbacks.spectral.measuring.registry import resolve
from ww_callbacks.spectral.measuring.values import measure_quantities

W = np.random.default_rng(0).normal(size=(40, 25))
W0 = np.random.default_rng(1).normal(size=(40, 25))
S = np.linalg.svd(W, compute_uv=False)


@pytest.mark.parametrize("name", sorted(spectral.FORMULAS))
def test_each_is_exported_and_documented(name):
    function = getattr(spectral, name)
    text = inspect.getdoc(function)
    assert name in spectral.__all__ and name in dir(spectral)
    for part in ("Args:", "Returns:", ">>>"):
        assert part in text, f"{name} has no `{part}`"


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("effective_rank", spectral.effective_rank(S), np.exp(-np.sum(S / S.sum() * np.log(S / S.sum())))),
        ("stable_rank", spectral.stable_rank(S), (W**2).sum() / S[0] ** 2),
        ("participation_ratio", spectral.participation_ratio(S), (S**2).sum() ** 2 / (S**4).sum()),
        ("matrix_rank", spectral.matrix_rank(S, 40), np.linalg.matrix_rank(W)),
        ("log_spectral_norm", spectral.log_spectral_norm(S), 2 * np.log10(np.linalg.norm(W, 2))),
        ("log_norm", spectral.log_norm(S), np.log10((W**2).sum())),
        ("log_median_singular_value", spectral.log_median_singular_value(S, 40), np.log(np.median(S))),
        ("distance_from_init", spectral.distance_from_init(W, W0), np.linalg.norm(W - W0)),
        ("relative_distance_from_init", spectral.relative_distance_from_init(W, W0),
         np.linalg.norm(W - W0) / np.linalg.norm(W0)),
        ("cosine_to_init", spectral.cosine_to_init(W, W0), (W * W0).sum() / np.linalg.norm(W) / np.linalg.norm(W0)),
        ("detX_num", spectral.determinant_tail(S**2), np.flatnonzero(np.cumprod(S**2 * 25 / (S**2).sum()) < 1)[0] + 1),
        ("alpha", spectral.fit_power_law(S**2).alpha, None),
        ("alpha_hill", spectral.hill_alpha(S**2), 1 + 12 / np.sum(np.log(S[:12] ** 2 / S[12] ** 2))),
    ],
)  # fmt: skip
def test_the_definition_and_the_layers_quantity_agree(name, value, expected):
    measured = measure_quantities(LayerWeights([W], initial=[W0]), resolve(name))[0][name]
    assert value == pytest.approx(measured, rel=1e-9)
    if expected is not None:
        assert value == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("scale", [1e-160, 1.0, 1e160])
@pytest.mark.parametrize("name", ["effective_rank", "stable_rank", "participation_ratio", "matrix_entropy"])
def test_ranks_do_not_depend_on_scale(name, scale):
    formula = getattr(spectral, name)
    assert formula(S * scale) == pytest.approx(formula(S), rel=1e-12)


@pytest.mark.parametrize("name", ["effective_rank", "stable_rank", "participation_ratio", "matrix_entropy"])
def test_zeros_and_nan_give_nan_and_no_warning(name, recwarn):
    formula = getattr(spectral, name)
    assert np.isnan(formula(np.zeros(3))) and np.isnan(formula([1.0, np.nan])) and np.isnan(formula([]))
    assert not recwarn.list


def test_wrong_arguments_are_refused_with_what_came():
    with pytest.raises(ValueError, match="non-negative singular values but got -1"):
        spectral.effective_rank([1.0, -1.0])
    with pytest.raises(ValueError, match=r"one shape but got \(40, 25\) and \(25, 40\)"):
        spectral.distance_from_init(W, W0.T)
    with pytest.raises(ValueError, match="`larger_side` to be at least 1"):
        spectral.matrix_rank(S, 0)
