import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from ww_callbacks.spectral.measuring import layer_weights as sample_module
from ww_callbacks.spectral.measuring import registry
from ww_callbacks.spectral.measuring.layer_weights import LayerWeights
from ww_callbacks.spectral.measuring.registry import Quantity, all_quantities, quantity, resolve
from ww_callbacks.spectral.measuring.values import measure_quantities


def heavy(rows: int = 200, columns: int = 120, seed: int = 0) -> np.ndarray:
    """A matrix whose eigenvalues have a heavy tail."""
    rng = np.random.default_rng(seed)
    sigma = rng.pareto(3.0, min(rows, columns)) + 1.0
    left = np.linalg.qr(rng.standard_normal((rows, len(sigma))))[0]
    right = np.linalg.qr(rng.standard_normal((columns, len(sigma))))[0]
    return (left * sigma) @ right.T


def test_all_quantities_on_a_healthy_layer():
    w = heavy()
    layer = LayerWeights([w], initial=[heavy(seed=1)], previous=[w + 0.01 * heavy(seed=2)])
    values, status = measure_quantities(layer, all_quantities())
    assert status == "ok"
    assert list(values) == [q.name for q in all_quantities()]
    assert values["num_pl_spikes"] == values["num_evals"]
    no_bulk_left = {q.name for q in all_quantities() if q.family == "localisation" and q.name.endswith("_bulk")}
    for q in all_quantities():
        value = values[q.name]
        assert isinstance(value, str) if q.text else np.isfinite(value) or q.name in no_bulk_left, q.name
    assert values["alpha_evidence"] == "sufficient"


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_non_finite_weights_give_a_status_and_no_number(bad):
    w = heavy()
    w[3, 4] = bad
    values, status = measure_quantities(LayerWeights([w]), all_quantities())
    assert status == "non-finite"
    assert all(value == "" if isinstance(value, str) else np.isnan(value) for value in values.values())


def test_a_zero_layer_has_sizes_and_distances_only():
    w = heavy()
    values, status = measure_quantities(LayerWeights([0.0 * w], initial=[w]), resolve("all"))
    assert status == "zero"
    assert values["frobenius_norm"] == 0.0
    assert values["matrix_rank"] == 0.0
    assert values["distance_from_init"] == pytest.approx(np.linalg.norm(w))
    assert np.isnan(values["alpha"]) and np.isnan(values["effective_rank"]) and np.isnan(values["log_spectral_norm"])
    assert values["alpha_evidence"] == "no fit"


@pytest.mark.parametrize(
    "w", [np.ones((30, 20)), np.ones((1, 9)), np.ones((9, 1)), np.ones((1, 1)), np.eye(60), np.zeros((3, 3))]
)
def test_degenerate_layers_never_fail(w):
    values, status = measure_quantities(LayerWeights([w], initial=[w], previous=[w]), all_quantities())
    assert status in ("ok", "zero")
    assert np.isnan(values["alpha"])
    assert values["alpha_evidence"] == "no fit"
    if status == "ok":
        assert values["effective_rank"] == pytest.approx(np.linalg.matrix_rank(w))


def test_a_quantity_that_fails_hides_no_other():
    def fails(_: LayerWeights) -> float:
        raise np.linalg.LinAlgError("did not converge")

    wrong = Quantity(name="wrong", title="wrong", family="norm", cost="cheap", function=fails)
    values, status = measure_quantities(LayerWeights([np.eye(3)]), [wrong, *resolve("frobenius_norm")])
    assert status == "partly: wrong: LinAlgError: did not converge"
    assert np.isnan(values["wrong"]) and values["frobenius_norm"] == pytest.approx(np.sqrt(3.0))


def test_what_needs_other_weights_is_missing_without_them():
    values, status = measure_quantities(LayerWeights([np.eye(3)]), resolve("default"))
    assert status == "ok"
    for q in resolve("default"):
        if q.needs:
            assert np.isnan(values[q.name]), q.name


class Unreadable:
    """A baseline whose elements cannot be had."""

    shape = (20, 10)

    def __array__(self, dtype=None, copy=None):
        raise OSError("the file is gone")


@pytest.mark.parametrize("before", [[np.ones((4, 4))], [Unreadable()]])
def test_a_baseline_that_cannot_be_used_costs_only_what_needs_it(before):
    sample = LayerWeights([np.random.default_rng(0).standard_normal((20, 10))], initial=before)
    values, status = measure_quantities(sample, resolve(["norm", "distance_from_init"]))
    assert status.startswith("failed: distance_from_init: ") and "norm" not in status.split(":")[1]
    assert np.isfinite(values["norm"]) and np.isnan(values["distance_from_init"])


def test_cheap_quantities_compute_no_spectrum(monkeypatch):
    monkeypatch.setattr(sample_module, "gram_singular_values", lambda w: pytest.fail("computed a spectrum"))
    cheap = [q for q in all_quantities() if q.cost == "cheap"]
    w = heavy()
    values, status = measure_quantities(LayerWeights([w], initial=[2.0 * w], previous=[1.5 * w]), cheap)
    assert status == "ok" and len(values) >= 8


def test_default_quantities_need_one_decomposition_even_at_low_rank(monkeypatch):
    calls = []
    original = sample_module.gram_singular_values
    monkeypatch.setattr(sample_module, "gram_singular_values", lambda w: calls.append(1) or original(w))
    monkeypatch.setattr(sample_module, "svd_singular_values", lambda w: pytest.fail("computed an SVD"))
    w = heavy()
    w[:, 60:] = w[:, :60]
    reference = {"frobenius_norm": 1.0, "log_spectral_norm": 0.0}
    _, status = measure_quantities(
        LayerWeights([w], initial=[w], previous=[w], reference=reference), resolve("default")
    )
    assert status == "ok" and len(calls) == 1


def test_pools_the_matrices_of_a_layer():
    first, second = heavy(seed=1), 2.0 * heavy(seed=2)
    layer = LayerWeights([first, second])
    expected = [np.linalg.svd(w, compute_uv=False) ** 2 for w in (first, second)]
    assert layer.eigenvalues == pytest.approx(np.sort(np.concatenate(expected)))
    assert layer.norm == pytest.approx(np.sqrt(np.sum(expected)))
    assert layer.element_mean == pytest.approx(np.mean([first, second]))
    assert layer.element_variance == pytest.approx(np.var([first, second]))


def test_global_random_state_is_left_alone():
    before = np.random.get_state()[1].copy()
    measure_quantities(LayerWeights([heavy()], seed=3), all_quantities())
    assert np.array_equal(np.random.get_state()[1], before)


def test_the_seed_alone_decides_what_is_random():
    names = ["alpha_p_value", "alpha_bootstrap_low", "alpha_bootstrap_high"]
    first, again, other = (measure_quantities(LayerWeights([heavy()], seed=s), resolve(names))[0] for s in (1, 1, 2))
    assert first == again != other


finite = st.floats(-1e6, 1e6, allow_nan=False, width=64)
scalable = finite.map(lambda x: x if abs(x) > 1e-250 else 0.0)  # with k below, no digit is lost
anything = st.floats(allow_nan=True, allow_infinity=True, width=64)


@settings(max_examples=80)
@given(w=arrays(np.float64, st.tuples(st.integers(1, 6), st.integers(1, 6)), elements=anything))
def test_never_raises_for_what_is_in_the_weights(w):
    with np.errstate(all="raise"):  # measure_quantities() sets its own
        values, status = measure_quantities(LayerWeights([w]), resolve("default"))
    assert status in ("ok", "zero", "non-finite") or status.endswith(": OverflowError: beyond the range of float64")
    assert not any(np.isinf(value) for value in values.values() if not isinstance(value, str))
    assert (status == "non-finite") == (not np.isfinite(w).all())
    assert set(values) == {q.name for q in resolve("default")}


@settings(max_examples=60)
@given(w=arrays(np.float64, st.tuples(st.integers(1, 8), st.integers(1, 8)), elements=scalable), k=st.integers(-30, 30))
def test_scale_laws(w, k):
    names = ["alpha", "effective_rank", "stable_rank", "participation_ratio", "matrix_entropy", "matrix_rank", "D"]
    values, status = measure_quantities(LayerWeights([w]), resolve([*names, "frobenius_norm", "sv_max", "norm"]))
    scaled, scaled_status = measure_quantities(
        LayerWeights([w * 2.0**k]), resolve([*names, "frobenius_norm", "sv_max", "norm"])
    )
    assert status == scaled_status
    for name in names:  # a power of two is exact, so these are too
        assert scaled[name] == values[name] or (np.isnan(scaled[name]) and np.isnan(values[name])), name
    for name, power in (("frobenius_norm", 1), ("sv_max", 1), ("norm", 2)):
        assert scaled[name] == pytest.approx(values[name] * 2.0 ** (power * k), rel=1e-15, abs=1e-300)


@settings(max_examples=80)
@example(w=np.diag([1.9, 1.0, 3.4e-157, 0.0]))  # the share of σ_3² is below the normal float64s
@given(w=arrays(np.float64, st.tuples(st.integers(1, 8), st.integers(1, 8)), elements=finite))
def test_bounds_between_the_ranks(w):
    names = ["stable_rank", "participation_ratio", "effective_rank", "matrix_entropy", "matrix_rank", "entropy"]
    values, status = measure_quantities(LayerWeights([w]), resolve(names))
    if status == "zero":
        return
    # Rényi entropies of p = λ/Σλ fall with their order: ∞ (stable rank), 2 (participation), 1 (entropy), 0 (rank);
    # and p = σ/Σσ is flatter than p = λ/Σλ.
    slack = 1.0 + 1e-9
    assert values["stable_rank"] * slack >= 1.0
    assert values["stable_rank"] <= values["participation_ratio"] * slack
    assert values["participation_ratio"] <= np.exp(values["matrix_entropy"]) * slack
    assert np.exp(values["matrix_entropy"]) <= values["effective_rank"] * slack
    assert values["effective_rank"] <= min(w.shape) * slack
    assert values["entropy"] >= -1e-9


def test_alpha_is_scale_free_for_any_factor():
    w = heavy()
    alpha = LayerWeights([w]).power_law.alpha
    for factor in (1e-12, 1e-3, 0.1, 3.0, 1e9):
        assert LayerWeights([factor * w]).power_law.alpha == pytest.approx(alpha, rel=1e-9)


def test_only_your_own_quantity_can_be_declared_again(monkeypatch):
    monkeypatch.setattr(registry, "_QUANTITIES", {q.name: q for q in all_quantities()})
    with pytest.raises(ValueError, match="`alpha` is already a built-in quantity"):
        quantity("alpha", title="", definition="", family="norm")(lambda sample: 0.0)
    for value in (1.0, 2.0):
        quantity("mine", title="", definition="", family="norm")(lambda sample, value=value: value)
    assert measure_quantities(LayerWeights([np.eye(3)]), resolve("mine")) == ({"mine": 2.0}, "ok")


def test_resolve_tells_near_names():
    with pytest.raises(ValueError, match=r"Did you mean .*`effective_rank`"):
        resolve("efective_rank")
    with pytest.raises(ValueError) as near:
        resolve("efective_rank")
    assert "docs/quantities.md" in str(near.value) and "frobenius_norm" not in str(near.value)
    with pytest.raises(ValueError, match=r"some of: .*frobenius_norm"):
        resolve("0000")
    assert {q.name for q in resolve("default")} == {q.name for q in all_quantities() if q.default}
    assert [q.name for q in resolve(["stable_rank", "alpha"])] == ["alpha", "stable_rank"]


def test_every_quantity_is_described():
    for q in all_quantities():
        assert q.title and q.definition and q.family, q.name
        assert not q.headline or q.default, q.name
