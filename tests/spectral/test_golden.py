"""Agreement with WeightWatcher 0.7.7's golden values."""

import pytest

from tests.spectral.golden import golden, matrix, quantiles
from ww_callbacks.spectral.fits.clauset import clauset_fit
from ww_callbacks.spectral.fits.weightwatcher import weightwatcher_fit
from ww_callbacks.spectral.measuring.layer_weights import LayerWeights
from ww_callbacks.spectral.measuring.registry import resolve
from ww_callbacks.spectral.measuring.values import measure_quantities

TOLERANCE = {
    "entropy": 1e-7,  # WeightWatcher adds 1e-10 to every p and to the rank.
}
EXCUSED = {
    # Its fit below 20 eigenvalues is another formula, silently: offered as `weightwatcher_fit` and tested below.
    "40x15": {"alpha", "xmin", "D", "sigma", "num_pl_spikes", "alpha_weighted", "log_alpha_norm", "ERG_gap"},
}
TEXTS_OF_ITS_OWN = {"layer_type", "longname", "name", "status", "warning"}
"""`warning` is given only where the evidence for α suffices, which it does on none of these random matrices."""
NOT_A_QUANTITY = {"layer_id", "has_esd"}
RANDOM_MATRIX = {"sigma_mp", "bulk_min", "bulk_max", "mp_softrank", "num_spikes"}
"""WeightWatcher's brute-force fit; compared to 2 % with the random-matrix quantities."""


@pytest.mark.parametrize("key", golden()["wwfit"])
def test_fit_on_exact_quantiles(key):
    alpha, D, sigma, xmin, tail = golden()["wwfit"][key]
    for fit in (clauset_fit(quantiles(key)), weightwatcher_fit(quantiles(key))):
        assert fit.alpha == pytest.approx(alpha, rel=1e-9)
        assert pytest.approx(D, rel=1e-9) == fit.D
        assert fit.sigma == pytest.approx(sigma, rel=1e-9)
        assert fit.xmin == pytest.approx(xmin, rel=1e-9)
        assert fit.tail == tail


@pytest.mark.parametrize("key", golden()["matrix"])
def test_every_column_of_the_table(key):
    columns = golden()["matrix"][key]
    names = set(columns) - TEXTS_OF_ITS_OWN - NOT_A_QUANTITY - RANDOM_MATRIX
    values, status = measure_quantities(LayerWeights([matrix(key)]), resolve(names))
    assert status == "ok"
    compared = names - EXCUSED.get(key, set())
    assert len(compared) >= 20
    for name in compared:
        assert values[name] == pytest.approx(columns[name], rel=TOLERANCE.get(name, 1e-9), abs=1e-300), name


def test_small_sample_formula_by_its_name():
    columns = golden()["matrix"]["40x15"]
    fit = weightwatcher_fit(LayerWeights([matrix("40x15")]).eigenvalues)
    assert fit.alpha == pytest.approx(columns["alpha"], rel=1e-9)
    assert pytest.approx(columns["D"], rel=1e-9) == fit.D
    assert fit.sigma == pytest.approx(columns["sigma"], rel=1e-9)
    assert fit.xmin == pytest.approx(columns["xmin"], rel=1e-9)
    assert fit.tail == columns["num_pl_spikes"]
