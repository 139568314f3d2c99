"""Quantities against their definitions, written out plainly."""

import numpy as np
import pytest

from ww_callbacks.spectral.measuring.layer_weights import LayerWeights
from ww_callbacks.spectral.measuring.registry import resolve
from ww_callbacks.spectral.measuring.values import measure_quantities


def gaussian(rows: int, columns: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((rows, columns))


def value(name: str, matrices, **others):
    values, status = measure_quantities(LayerWeights(matrices, **others), resolve(name))
    assert status in ("ok", "zero"), status
    return values[name]


def test_gaussian_512_as_published():
    w = gaussian(512, 512)
    assert value("effective_rank", [w]) == pytest.approx(412, abs=2)
    assert value("stable_rank", [w]) == pytest.approx(131, abs=4)
    assert value("participation_ratio", [w]) == pytest.approx(256, abs=3)
    assert value("entropy", [w]) == pytest.approx(0.92, abs=0.005)


@pytest.mark.parametrize(("shape", "tail"), [((200, 160), 16), ((50, 40), 10), ((9, 8), 2)])
def test_hill_over_the_top(shape, tail):
    w = gaussian(*shape)
    values = np.linalg.svd(w, compute_uv=False) ** 2
    expected = 1.0 + tail / np.sum(np.log(values[:tail] / values[tail]))
    assert value("alpha_hill_top", [w]) == pytest.approx(expected)
    assert np.isnan(value("alpha_hill_top", [gaussian(30, 7)]))


def test_norms():
    w = gaussian(40, 30)
    sigma = np.linalg.svd(w, compute_uv=False)
    expected = {
        "frobenius_norm": np.linalg.norm(w),
        "norm": np.sum(sigma**2),
        "log_norm": np.log10(np.sum(sigma**2)),
        "spectral_norm": sigma[0] ** 2,
        "lambda_max": sigma[0] ** 2,
        "log_spectral_norm": np.log10(sigma[0] ** 2),
        "sv_max": sigma[0],
        "sv_min": sigma[-1],
        "log_median_singular_value": np.log(np.median(sigma)),
        "W_scale": np.sqrt(30 / np.sum(sigma**2)),
        "N": 40,
        "M": 30,
        "Q": 4 / 3,
        "rf": 1,
        "num_evals": 30,
    }
    for name, wanted in expected.items():
        assert value(name, [w]) == pytest.approx(wanted, rel=1e-10), name


def test_log_alpha_norm_does_not_overflow():
    w = 1e100 * gaussian(80, 60)
    sample = LayerWeights([w])
    alpha = sample.power_law.alpha
    logs = np.log10(LayerWeights([gaussian(80, 60)]).eigenvalues) + 200.0
    plain = np.max(alpha * logs) + np.log10(np.sum(10.0 ** (alpha * logs - np.max(alpha * logs))))
    assert value("log_alpha_norm", [w]) == pytest.approx(plain, rel=1e-9)
    assert value("alpha_weighted", [w]) == pytest.approx(alpha * (np.max(logs)), rel=1e-9)


def test_ranks_count():
    w = gaussian(40, 6) @ gaussian(6, 30)
    assert value("matrix_rank", [w]) == 6.0
    assert value("rank_loss", [w]) == 24.0
    assert value("weak_rank_loss", [w]) == 24.0
    small = np.diag([1.0, 1e-2, 1e-4, 1e-14, 1e-17])
    assert value("matrix_rank", [small]) == 4.0  # 5·eps = 1.1e-15
    assert value("weak_rank_loss", [small]) == 3.0  # λ = 1e-8, 1e-28, 1e-34


@pytest.mark.parametrize(
    ("w", "rank"), [(np.ones((60, 60)), 1.0), (gaussian(60, 29) @ gaussian(29, 60, 1), 29.0)], ids=["ones", "product"]
)
def test_median_singular_value_that_is_rounding_noise_is_none(w, rank):
    """More than half of the σ are zero as `matrix_rank` counts zeros, whatever the SVD leaves in their place."""
    assert value("matrix_rank", [w]) == rank
    assert np.isnan(value("log_median_singular_value", [w]))


def test_median_singular_value_that_is_small_but_no_noise_is_given():
    small = np.diag([1.0, 1e-13, 1e-17])  # 3·eps = 6.7e-16
    assert value("log_median_singular_value", [small]) == pytest.approx(np.log(1e-13), rel=1e-6)


def test_distances():
    first, second = [gaussian(20, 15, s) for s in (1, 2)], [gaussian(20, 15, s) for s in (3, 4)]
    difference = [w - v for w, v in zip(first, second, strict=True)]
    whole = np.linalg.norm(difference)
    assert value("distance_from_init", first, initial=second) == pytest.approx(whole)
    assert value("relative_distance_from_init", first, initial=second) == pytest.approx(whole / np.linalg.norm(second))
    cosine = np.sum(np.multiply(first, second)) / np.linalg.norm(first) / np.linalg.norm(second)
    assert value("cosine_to_init", first, initial=second) == pytest.approx(cosine)
    mean = np.mean([np.linalg.norm(d) for d in difference])
    assert value("mean_distance_from_init", first, initial=second) == pytest.approx(mean)
    cka = np.mean(
        [
            np.linalg.norm(v.T @ w) / np.sqrt(np.linalg.norm(w.T @ w) * np.linalg.norm(v.T @ v))
            for w, v in zip(first, second, strict=True)
        ]
    )
    assert value("cka_to_init", first, initial=second) == pytest.approx(cka)


def test_small_distances_do_not_cancel():
    w = gaussian(300, 200)
    change = 1e-12 * gaussian(300, 200, 1)
    moved = w + change
    expected = np.linalg.norm(moved - w)
    assert value("distance_from_init", [moved], initial=[w]) == pytest.approx(expected, rel=1e-12)
    assert value("update_norm", [moved], previous=[w]) == pytest.approx(expected, rel=1e-12)


def test_cka_is_blind_to_rotation_and_scale():
    w = gaussian(30, 20)
    rotation = np.linalg.qr(gaussian(20, 20, 1))[0]
    assert value("cka_to_init", [3.0 * w @ rotation], initial=[w]) == pytest.approx(1.0)
    assert value("cosine_to_init", [3.0 * w], initial=[w]) == pytest.approx(1.0)
    assert value("cosine_to_init", [-w], initial=[w]) == pytest.approx(-1.0)


def test_updates():
    first, previous, now = gaussian(30, 20, 1), gaussian(30, 20, 2), gaussian(30, 20, 3)
    others = {"initial": [first], "previous": [previous]}
    assert value("update_norm", [now], **others) == pytest.approx(np.linalg.norm(now - previous))
    relative = np.linalg.norm(now - previous) / np.linalg.norm(previous)
    assert value("relative_update_norm", [now], **others) == pytest.approx(relative)
    update, before = now - previous, previous - first
    cosine = np.sum(update * before) / np.linalg.norm(update) / np.linalg.norm(before)
    assert value("update_displacement_cosine", [now], **others) == pytest.approx(cosine)
    sigma = np.linalg.svd(update, compute_uv=False)
    assert value("update_stable_rank", [now], **others) == pytest.approx(np.sum(sigma**2) / sigma[0] ** 2)
    right = np.linalg.svd(previous)[2][:10].T
    share = np.linalg.norm(update @ right) ** 2 / np.linalg.norm(update) ** 2
    assert value("update_leading_share", [now], **others) == pytest.approx(share)
    transposed = {"initial": [first.T], "previous": [previous.T]}
    assert value("update_leading_share", [now.T], **transposed) == pytest.approx(share)
    moved = np.linalg.svd(now - first, compute_uv=False) ** 2
    assert value("displacement_top10_share", [now], **others) == pytest.approx(np.sum(moved[:10]) / np.sum(moved))


def test_a_layer_that_did_not_move():
    w = gaussian(20, 10)
    same = {"initial": [w], "previous": [w.copy()]}
    assert value("update_norm", [w], **same) == 0.0
    assert value("relative_distance_from_init", [w], **same) == 0.0
    for name in (
        "update_displacement_cosine",
        "update_stable_rank",
        "update_leading_share",
        "displacement_top10_share",
    ):
        assert np.isnan(value(name, [w], **same)), name


def test_scale_collapse_takes_the_smaller_ratio():
    w = gaussian(30, 20)
    assert value("scale_collapse", [w], initial=[w]) == pytest.approx(0.0, abs=1e-12)
    assert value("scale_collapse", [0.01 * w], initial=[w]) == pytest.approx(-2.0)
    left, sigma, right = np.linalg.svd(w, full_matrices=False)
    sigma[0] *= 10.0
    spiked = (left * sigma) @ right
    # Without its spike the layer's σ_1 has fallen tenfold and more, its Frobenius norm by less.
    expected = np.log10(np.linalg.norm(w, 2) / np.linalg.norm(spiked, 2))
    assert value("scale_collapse", [w], initial=[spiked]) == pytest.approx(expected)
    reference = measure_quantities(LayerWeights([spiked]), resolve("default"))[0]
    assert value("scale_collapse", [w], reference=reference) == pytest.approx(expected)


def test_detX_in_the_log_domain():
    w = gaussian(90, 60)
    eigenvalues = np.sort(np.linalg.svd(w, compute_uv=False) ** 2)[::-1]
    scaled = eigenvalues / np.mean(eigenvalues)
    k = next(k for k in range(1, 61) if np.prod(scaled[:k]) < 1.0)
    assert value("detX_num", [w]) == value("num_ERG_spikes", [w]) == k
    assert value("detX_val", [w]) == pytest.approx(eigenvalues[k - 1])
    assert value("detX_val_unrescaled", [w]) == pytest.approx(scaled[k - 1])
    assert value("ERG_gap", [w]) == k - value("num_pl_spikes", [w])


def test_detX_where_a_plain_product_overflows():
    # 1500 eigenvalues of 8 and 2600 of e^-1.3: the product of the first ones is 8^1500.
    sample = LayerWeights([np.zeros((1, 1))])
    eigenvalues = np.sort(np.concatenate([np.full(1500, 8.0), np.full(2600, np.exp(-1.3))]))
    sample.__dict__["relative_eigenvalues"] = eigenvalues / eigenvalues[-1]
    logs = np.cumsum(np.log(eigenvalues[::-1] / np.mean(eigenvalues)))
    expected = int(np.flatnonzero(logs < 0)[0]) + 1
    assert measure_quantities(sample, resolve("detX_num"))[0]["detX_num"] == expected
    with np.errstate(over="ignore"):
        assert np.isinf(np.prod(eigenvalues[-1500:] / np.mean(eigenvalues)))


def test_evidence_says_random_bulk():
    # Noise whose fitted tail would pass the other tests is found out by its largest eigenvalue.
    reasons = [value("alpha_evidence", [gaussian(300, 200, seed)]) for seed in range(40)]
    assert "random bulk" in reasons
    assert reasons.count("sufficient") <= 2


def noise(kind, seed, shape=(256, 128)):
    """Independent entries whose eigenvalues are unequal without any structure."""
    rng = np.random.default_rng(seed)
    normal = rng.standard_normal(shape)
    return {
        "zeros": normal * (rng.random(shape) < 0.05),
        "rows": normal * rng.lognormal(size=(shape[0], 1)),
        "columns": normal * rng.lognormal(size=(1, shape[1])),
        "rows with a mean": rng.lognormal(size=shape) * rng.lognormal(size=(shape[0], 1)),
        "Student": rng.standard_t(2, shape),
        "log-normal": rng.lognormal(size=shape),
    }[kind]


@pytest.mark.parametrize("kind", ["zeros", "rows", "columns", "rows with a mean", "Student", "log-normal"])
def test_evidence_says_independent_entries(kind):
    reasons = [value("alpha_evidence", [noise(kind, seed)]) for seed in range(20)]
    assert "sufficient" not in reasons and reasons.count("independent entries") > 4
    scaled = [value("alpha_evidence", [1e-300 * noise(kind, seed)]) for seed in range(5)]
    assert scaled == reasons[:5], "at every scale"


@pytest.mark.parametrize("mean", [0.0, 0.02, 0.2, 3.0])
def test_evidence_without_a_second_pass_is_that_with_one(mean, monkeypatch):
    """A bound on the rest spares most passes over matrices from which a mean is taken off, and changes no answer."""
    from ww_callbacks.spectral.random_matrix import independent_entries as module

    passes = []

    def told(self, axis, measure=module._Measured.without_mean):
        passes.append(axis)
        return measure(self, axis)

    monkeypatch.setattr(module._Measured, "without_mean", told)
    rows = np.random.default_rng(7).standard_normal((384, 1))
    for seed in range(5):
        directions = np.arange(1, 201)[:, None] ** -0.4 * gaussian(200, 200, seed)
        w = gaussian(384, 200, 10 + seed) @ directions
        for name, matrix in (
            ("trained", w + mean * np.std(w)),
            ("rows", w + mean * np.std(w) * rows),
            ("noise", noise("rows", seed) + mean),
        ):
            values = [np.linalg.svd(matrix, compute_uv=False)]
            passes.clear()
            found = module.independent_entries([matrix], values)
            few = len(passes)
            turned = module.independent_entries([np.ascontiguousarray(matrix.T)], values)
            with monkeypatch.context() as without_bound:
                without_bound.setattr(
                    module._Measured, "bound_without_mean", lambda self, axis: module._NOTHING._replace(expected=1.0)
                )
                sure = module.independent_entries([matrix], values)
            assert (found is None) == (sure is None) == (turned is None)
            assert found == sure
            if name == "trained" and mean <= 0.02:
                assert few == 0


@pytest.mark.parametrize("kind", ["zeros", "rows", "Student"])
def test_correlation_in_unequal_noise_is_still_evidence(kind):
    """The same magnitudes, with a few directions written into them."""
    found = []
    for seed in range(10):
        rng = np.random.default_rng(seed)
        directions = np.arange(1, 129)[:, None] ** -0.7 * rng.standard_normal((128, 128))
        found.append(value("alpha_evidence", [noise(kind, seed) @ directions]))
    assert "independent entries" not in found and "sufficient" in found


def test_evidence_of_several_matrices_is_of_all_together():
    parts = [noise("rows", seed, (120, 60)) for seed in range(4)]
    assert value("alpha_evidence", parts) in ("independent entries", "poor fit")
    trained = [part @ (np.diag(np.arange(1, 61) ** -0.8) @ gaussian(60, 60, 7)) for part in parts]
    assert value("alpha_evidence", trained) != "independent entries"


@pytest.mark.parametrize("exponent", [1.8, 2.5, 3.5])
@pytest.mark.parametrize("side", [100, 400])
def test_a_power_law_over_the_whole_spectrum_is_no_random_bulk(exponent, side):
    # few of its eigenvalues are beyond the edge that their median implies, but the others are no bulk
    found = []
    for seed in range(10):
        left, right = (np.linalg.qr(gaussian(side, side, 2 * seed + k))[0] for k in (0, 1))
        eigenvalues = np.random.default_rng(seed).pareto(exponent - 1.0, side) + 1.0
        w = (left * np.sqrt(eigenvalues)) @ right.T
        found.append((value("alpha_evidence", [w]), value("phase", [w])))
    assert found.count(("sufficient", "heavy-tailed")) >= 9


def test_noise_with_a_mean_is_no_power_law():
    found = [value("alpha_evidence", [gaussian(300, 200, seed) + 0.3]) for seed in range(20)]
    assert found.count("sufficient") == 0


def test_evidence_does_not_depend_on_scale():
    w = gaussian(300, 200, 3)
    assert len({value("alpha_evidence", [factor * w]) for factor in (1e-290, 1e-6, 1.0, 1e150)}) == 1


def test_weightwatchers_alpha_depends_on_scale_and_ours_does_not():
    w = gaussian(300, 200)
    assert (
        value("alpha_weightwatcher", [w]) == value("alpha", [w])
        or abs(value("alpha_weightwatcher", [w]) - value("alpha", [w])) < 1e-9
    )
    assert np.isnan(value("alpha_weightwatcher", [1e-6 * w]))
    assert value("alpha", [1e-6 * w]) == pytest.approx(value("alpha", [w]))


def test_label_only_with_evidence():
    rng = np.random.default_rng(0)
    sigma = np.sqrt(rng.pareto(0.6, 300) + 1.0)  # α = 1.6 in λ
    left, right = np.linalg.qr(gaussian(400, 300))[0], np.linalg.qr(gaussian(300, 300, 1))[0]
    assert value("warning", [(left * sigma) @ right.T]) == "over-trained"
    assert value("warning", [gaussian(300, 300)]) == ""


@pytest.mark.parametrize("shape", [(200, 120), (256, 256), (512, 256)])
@pytest.mark.parametrize("mean", [0.0, 0.2, 0.5])
def test_noise_with_a_mean_is_no_evidence_for_a_power_law(shape, mean):
    """The mean's one spike stands out of the bulk, and makes no tail of it."""
    rng = np.random.default_rng(0)
    reasons = [value("alpha_evidence", [rng.standard_normal(shape) + mean]) for _ in range(20)]
    assert "sufficient" not in reasons


def test_many_spikes_are_evidence():
    rng = np.random.default_rng(0)
    heavy = (rng.pareto(1.5, 300) + 1)[:, None] * rng.standard_normal((300, 200))
    assert value("alpha_evidence", [heavy]) == "independent entries"  # rows of unequal variance are no spikes
    turned = np.linalg.qr(rng.standard_normal((300, 300)))[0] @ heavy
    assert value("alpha_evidence", [turned]) == "sufficient"
