"""A tolerance: every value within it or exact, and each says which."""

from __future__ import annotations

import numpy as np
import pytest

from ww_callbacks import SpectralMonitor
from ww_callbacks.spectral import analyze
from ww_callbacks.spectral.estimates.lanczos import BlockLanczos
from ww_callbacks.spectral.measuring.accuracy import SMALLEST, check_accuracy, estimates, measure_within
from ww_callbacks.spectral.measuring.layer_weights import LayerWeights
from ww_callbacks.spectral.measuring.registry import all_quantities, resolve

LEADING = [
    "log_spectral_norm",
    "stable_rank",
    "sv_max",
    "alpha_hill_top",
    "norm",
    "log_norm",
    "W_scale",
    "frobenius_norm",
]
TOLERANCE = 0.01


def trained(rows: int = 1600, columns: int = 1200, seed: int = 0) -> np.ndarray:
    """A layer with a heavy tail over a bulk, as training leaves it."""
    rng = np.random.default_rng(seed)
    scale = np.sqrt(0.05 + rng.pareto(3.0, columns))
    return (rng.standard_normal((rows, columns)) * scale / np.sqrt(rows)).astype(np.float32)


W = trained()
INITIAL = (np.random.default_rng(9).standard_normal(W.shape) / 40.0).astype(np.float32)

BEFORE = INITIAL + np.float32(0.5) * (W - INITIAL)


def test_every_estimate_lies_within_its_error_and_the_tolerance() -> None:
    """Against the exact spectrum; what needs only the elements is exact."""
    wanted = [q for q in all_quantities() if q.estimate is not None or q.cost == "cheap"]
    exact = measure_within(LayerWeights([W], initial=[INITIAL], previous=[BEFORE]), wanted, None)
    sample = LayerWeights([W], initial=[INITIAL], previous=[BEFORE])
    got = measure_within(sample, wanted, 0.03)
    assert exact.errors == {} and "singular_values" not in sample.__dict__
    for q in wanted:
        value, known = got.values[q.name], exact.values[q.name]
        assert isinstance(value, float) and isinstance(known, float)
        error = got.errors.get(q.name, 1e-6 * abs(known))
        assert abs(value - known) <= error + 1e-12, q.name
        allowed = np.log10(1.03) if q.logarithm else 0.03 * abs(value)
        assert error <= allowed, q.name
    assert {"effective_rank", "stable_rank", "scale_collapse", "alpha_hill_top"} <= set(got.errors)
    assert not {"norm", "frobenius_norm", "distance_from_init", "update_norm"} & set(got.errors)


@pytest.mark.parametrize(
    ("matrices", "names"),
    [
        ([W], [*LEADING, "alpha"]),  # the Clauset fit needs the whole tail
        ([W], [*LEADING, "sv_min"]),
        ([trained(1600, SMALLEST - 1)], LEADING),
        ([trained(64, 40), trained(64, 40)], LEADING),
        ([np.zeros((1100, 1100), np.float32)], LEADING),
        ([np.full((1100, 1100), np.nan, np.float32)], LEADING),
    ],
)
def test_what_cannot_be_estimated_is_exact(matrices: list[np.ndarray], names: list[str]) -> None:
    """A quantity of the whole spectrum, small layers, several matrices, nothing to estimate."""
    quantities = resolve(names)
    got = measure_within(LayerWeights(matrices), quantities, TOLERANCE)
    assert got.errors == {}
    assert got.values == pytest.approx(measure_within(LayerWeights(matrices), quantities, None).values, nan_ok=True)


def test_a_tolerance_that_cannot_be_kept_gives_the_exact_spectrum() -> None:
    """The effective rank of 1200 values to 0.01 %: no number of probes that pays gives it."""
    got = measure_within(LayerWeights([W]), resolve(["effective_rank", "stable_rank"]), 1e-4)
    assert got.errors == {}


@pytest.mark.parametrize(("side", "most"), [(1100, 0), (1500, 5)])
def test_an_effective_rank_that_costs_too_much_is_given_up_at_once(
    side: int, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By its size before the first step, or by its first errors: the spectrum of this one has no end in sight."""
    steps: list[int] = []
    extend = BlockLanczos.extend
    monkeypatch.setattr(BlockLanczos, "extend", lambda space, more: (steps.append(more), extend(space, more))[1])
    rng = np.random.default_rng(0)
    w = rng.standard_normal((side, side)) * np.exp(-np.arange(side) / (side / 6))
    sample = LayerWeights([w.astype(np.float32)], seed=1)
    both = resolve(["effective_rank", "stable_rank"])
    assert estimates(sample, both, TOLERANCE) == ({}, ("effective_rank",))
    assert sum(steps) <= most
    assert estimates(sample, resolve(["stable_rank"]), TOLERANCE)[0], "the others are estimated all the same"
    found, failed = estimates(sample, both, TOLERANCE, may_fail=["effective_rank"])
    assert set(found) == {"stable_rank"} and failed == ("effective_rank",)


def test_the_same_weights_give_the_same_estimates() -> None:
    """Seed, transposition and a second run."""
    one, two = (measure_within(LayerWeights([W], seed=4), resolve(LEADING), TOLERANCE) for _ in range(2))
    other = measure_within(LayerWeights([W], seed=5), resolve(LEADING), TOLERANCE)
    assert one == two and one.errors
    assert other.values == pytest.approx(one.values, rel=1e-2)


def test_analyze_says_what_is_estimated() -> None:
    """Columns of errors, ± in the table, and the heading; the workers change nothing."""
    model = {"large.weight": W, "small.weight": trained(200, 100)}
    one, two = (analyze(model, LEADING, accuracy=TOLERANCE, workers=workers) for workers in (1, 2))
    assert one.layers.equals(two.layers)
    errors = one.layers.set_index("layer")["stable_rank_error"]
    assert 0.0 < errors["large.weight"] < 0.01 * one.layers["stable_rank"][0] and np.isnan(errors["small.weight"])
    assert "norm_error" not in one.layers
    assert "1 estimated" in one.heading()
    shown = dict(zip(one.shown()["layer"], one.shown()["stable_rank"], strict=True))
    assert "±" in shown["large.weight"] and "±" not in shown["small.weight"]
    exact = analyze(model, LEADING)
    assert not any(column.endswith("_error") for column in exact.layers)
    assert "estimated" not in exact.heading()


@pytest.mark.parametrize(("quantities", "said"), [("alpha", 1), ("estimable", 0)])
def test_a_tolerance_without_effect_is_said_once(quantities, said, tmp_path, caplog) -> None:
    model = {"large.weight": np.eye(SMALLEST)}
    analyze(model, quantities, accuracy=TOLERANCE)
    assert caplog.text.count("accuracy=0.01 has no effect with alpha") == said
    caplog.clear()
    with SpectralMonitor(model, quantities=quantities, accuracy=TOLERANCE, log_dir=tmp_path, verbose=0):
        pass
    assert caplog.text.count("accuracy=0.01 has no effect on a layer") == said


def test_estimable_stands_for_what_needs_no_whole_spectrum() -> None:
    """The default ones without the family of α, with Hill's α of the top."""
    names = {q.name for q in resolve("estimable")}
    assert {"effective_rank", "scale_collapse", "alpha_hill_top", "frobenius_norm"} <= names
    assert not {"alpha", "alpha_evidence", "xmin", "D", "sigma"} & names


@pytest.mark.parametrize("wrong", ["fast", 0.0, 1e-9, 0.5, -0.01, True, None, float("nan"), "0.01"])
def test_other_accuracies_are_refused(wrong: object) -> None:
    """With what is expected."""
    with pytest.raises(ValueError, match=r"'exact' or a relative error from 0.0001 to 0.1"):
        check_accuracy(wrong)
    with pytest.raises(ValueError, match="accuracy"):
        analyze(np.eye(3), accuracy=wrong)
