"""The quantities of random matrices, shuffles, traps, phases and localisation, as a layer's sample gives them."""

import numpy as np
import pytest

from ww_callbacks.spectral.measuring.layer_weights import LayerWeights
from ww_callbacks.spectral.measuring.registry import all_quantities, resolve
from ww_callbacks.spectral.measuring.values import measure_quantities
from ww_callbacks.spectral.random_matrix.nulls.random_nulls import generator, shuffled, shuffling_generator
from ww_callbacks.spectral.random_matrix.spikes import critical_strength
from ww_callbacks.spectral.random_matrix.weightwatcher_mp import density_fit

QUANTITIES = tuple(q for q in all_quantities() if q.family in ("random matrix", "localisation"))
OF_SCALE = {
    "bulk_variance",
    "bulk_edge",
    "bulk_min",
    "bulk_max",
    "rand_bulk_min",
    "rand_bulk_max",
    "max_rand_eval",
    "ww_maxdist",
}


def values_of(matrices, seed=0, quantities=QUANTITIES):
    values, status = measure_quantities(LayerWeights(matrices, seed=seed), quantities)
    assert status in ("ok", "zero"), status
    return values


def trained(shape=(120, 80), seed=0):
    """Noise, a decaying low-rank part and a mean: something of everything."""
    rng = generator(seed)
    low_rank = rng.standard_normal((shape[0], 6)) @ np.diag([9, 7, 5, 4, 3, 3]) @ rng.standard_normal((6, shape[1]))
    return 0.02 * (rng.standard_normal(shape) + low_rank / np.sqrt(max(shape)) + 0.2)


def test_every_quantity_has_a_value_on_a_layer_that_has_everything():
    values = values_of([trained()])
    for name, value in values.items():
        assert value != "" and (isinstance(value, str) or np.isfinite(value)), name


@pytest.mark.parametrize(
    "matrices",
    [
        [np.zeros((60, 50))],
        [np.full((60, 50), 0.3)],
        [np.ones((1, 7))],
        [np.array([[2.0]])],
        [np.outer(np.arange(1.0, 61), np.arange(1.0, 71))],
        [np.eye(64)],
        [generator(0).standard_normal((4, 9)), generator(1).standard_normal((50, 60))],
        [1e-160 * generator(0).standard_normal((60, 50))],
        [generator(0).standard_normal((3, 60000))],
        [generator(0).standard_cauchy((80, 60))],
    ],
    ids=["zero", "constant", "row", "one", "rank one", "identity", "unequal", "tiny", "wide", "cauchy"],
)
def test_awkward_layers_give_values_or_nan_and_no_error(matrices):
    values_of(matrices)


def test_what_is_beyond_float64_is_said_and_the_rest_is_given():
    values, status = measure_quantities(LayerWeights([1e160 * generator(0).standard_normal((60, 50))]), QUANTITIES)
    assert status.startswith("failed: ") and status.endswith(": OverflowError: beyond the range of float64")
    assert np.isnan(values["max_rand_eval"]) and np.isfinite(values["rand_distance"])


def test_non_finite_weights():
    w = trained()
    w[3, 4] = np.nan
    values, status = measure_quantities(LayerWeights([w]), QUANTITIES)
    assert status == "non-finite"
    assert all(value == "" or np.isnan(value) for value in values.values())


@pytest.mark.parametrize("factor", [1e-6, 2.0**40])
def test_scale(factor):
    one, other = values_of([trained()]), values_of([factor * trained()])
    for q in QUANTITIES:
        if q.text:
            assert other[q.name] == one[q.name]
            continue
        expected = one[q.name] * factor**2 if q.name in OF_SCALE else one[q.name]
        expected = expected / factor if q.name == "rand_W_scale" or q.name == "W_scale" else expected
        # the density fit's simplex stops at 1e-4, and may stop elsewhere; z of traps is computed in float32
        assert other[q.name] == pytest.approx(expected, rel=1e-3, abs=1e-12), q.name


def test_the_orientation_matters_to_nothing_but_the_shuffle():
    one, other = values_of([trained()]), values_of([trained().T])
    for q in QUANTITIES:
        if not q.text and not q.name.startswith(("rand_", "trap", "num_traps", "max_rand", "ww_")):
            assert other[q.name] == pytest.approx(one[q.name], rel=1e-6), q.name


def test_same_seed_same_numbers_and_nothing_else_is_touched():
    w = trained().astype(np.float32)
    before = w.copy()
    np.random.seed(1)
    state = np.random.get_state()[1].copy()
    one, again, other = values_of([w], seed=3), values_of([w], seed=3), values_of([w], seed=4)
    np.testing.assert_equal(one, again)
    assert other["rand_distance"] != one["rand_distance"]
    np.testing.assert_array_equal(w, before)
    np.testing.assert_array_equal(np.random.get_state()[1], state)


def test_columns_of_the_shuffle_under_the_same_permutation():
    w = trained()
    values = values_of([w], seed=8)
    null = np.linalg.svd(shuffled(w, shuffling_generator(8, 0)), compute_uv=False) ** 2
    fit = density_fit(null, w.shape)
    for name in ("sigma_mp", "bulk_min", "bulk_max", "num_spikes", "mp_softrank", "W_scale"):
        assert values[f"rand_{name}"] == pytest.approx(getattr(fit, name), rel=1e-6), name
    assert values["num_traps"] == fit.num_spikes
    assert values["rand_W_scale"] == pytest.approx(values_of([w], quantities=resolve("W_scale"))["W_scale"])


def test_several_matrices_of_one_shape():
    rng = generator(3)
    noise = [rng.standard_normal((64, 48)) for _ in range(5)]
    values = values_of(noise)
    assert values["phase"] == "random-like"
    assert values["bulk_variance"] == pytest.approx(1, rel=0.05)
    assert values["tw_p"] > 0.01
    assert values["traps_uncentred"] == 0
    shifted = values_of([w + 3 * critical_strength((64, 48)) / np.sqrt(64 * 48) for w in noise])
    assert (shifted["traps_centred"], shifted["traps_uncentred"]) == (0, 5)
    assert shifted["mean_strength"] == pytest.approx(3, rel=0.1)


def test_trap_level_is_that_of_the_layer_and_not_of_each_matrix():
    layers = [[generator(i, j).standard_normal((40, 30)) for j in range(20)] for i in range(60)]
    found = [
        values_of(layer, seed=i, quantities=resolve("traps_centred"))["traps_centred"] for i, layer in enumerate(layers)
    ]
    # 0.6 of 60 layers at 1 % a layer; at 1 % a matrix it would be 11
    assert np.count_nonzero(found) <= 4


def test_equal_elements_have_no_strength():
    values = values_of([np.full((60, 50), 0.25)])
    for name in ("mean_strength", "spike_strength", "traps_uncentred"):
        assert np.isnan(values[name]), name


def test_matrices_of_unequal_shapes_have_no_common_law():
    values = values_of([generator(0).standard_normal((60, 50)), generator(1).standard_normal((40, 60))])
    assert values["phase"] == "undecided"
    assert np.isnan(
        [values[name] for name in ("bulk_variance", "tw_z", "sigma_mp", "rand_sigma_mp", "mp_distance")]
    ).all()


def test_largest_eigenvalue_of_the_shuffle_is_left_for_the_views():
    for name in ("trap_z_uncentred", "rand_distance"):
        sample = LayerWeights([trained()], seed=2)
        measure_quantities(sample, resolve(name))
        exact = np.linalg.norm(shuffled(trained(), shuffling_generator(2, 0)), 2) ** 2
        assert sample.scratch["shuffled_max"] == pytest.approx(exact, rel=1e-5)


def test_torch_weights():
    torch = pytest.importorskip("torch")
    w = trained().astype(np.float32)
    one, other = values_of([w]), values_of([torch.nn.Parameter(torch.from_numpy(w))])
    np.testing.assert_equal(one, other)
    values_of([torch.from_numpy(w).to(torch.bfloat16)])
