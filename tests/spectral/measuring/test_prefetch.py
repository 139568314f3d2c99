from threading import Barrier, get_ident

import numpy as np
import pandas as pd
import pytest

from ww_callbacks import spectral
from ww_callbacks.spectral.linalg import spectrum
from ww_callbacks.spectral.measuring.layer_weights import LayerWeights
from ww_callbacks.spectral.quantities import shuffle
from ww_callbacks.spectral.quantities.shared import once

WANTED = ["norm", "rand_distance", "max_rand_eval", "rand_sigma_mp"]


@pytest.fixture
def weights():
    rng = np.random.default_rng(0)
    shapes = {"large": (400, 300), "small": (5, 4), "same": (400, 300)}
    return {name: rng.standard_normal(shape) for name, shape in shapes.items()}


def test_as_many_workers_as_one_likes_give_the_same_numbers(weights):
    one, two, five = (spectral.analyze(weights, WANTED, workers=n, seed=3).layers for n in (1, 2, 5))
    pd.testing.assert_frame_equal(one, two, check_exact=True)
    pd.testing.assert_frame_equal(one, five, check_exact=True)


def test_the_two_decompositions_of_a_layer_are_on_two_workers_at_once(weights, monkeypatch):
    both, workers = Barrier(2, timeout=60), set()
    decompose = spectrum.symmetric_eigenvalues

    def together(gram):
        both.wait()
        workers.add(get_ident())
        return decompose(gram)

    monkeypatch.setattr(spectrum, "symmetric_eigenvalues", together)
    row = spectral.analyze({"large": weights["large"]}, [*WANTED, "log_spectral_norm"], workers=2).layers.iloc[0]
    assert row["status"] == "ok"
    assert len(workers) == 2


@pytest.mark.parametrize("workers", [1, 2])
def test_each_layer_is_shuffled_once(weights, monkeypatch, workers):
    drawn, shuffled = [], shuffle.shuffled
    monkeypatch.setattr(shuffle, "shuffled", lambda w, rng: drawn.append(w.shape) or shuffled(w, rng))
    spectral.analyze(weights, WANTED, workers=workers)
    assert sorted(drawn) == sorted(w.shape for w in weights.values())


def test_a_part_that_fails_costs_only_what_needs_it(weights, monkeypatch):
    monkeypatch.setattr(shuffle, "shuffled", lambda *_: (_ for _ in ()).throw(MemoryError("no room")))
    for _, row in spectral.analyze(weights, WANTED, workers=2).layers.iterrows():
        assert "MemoryError: no room" in row["status"] and "norm" not in row["status"].split(":")[1]
        assert np.isfinite(row["norm"]) and np.isnan(row["rand_distance"])


@pytest.mark.filterwarnings("error")
def test_numbers_beyond_the_range_warn_of_nothing(weights):
    extreme = {name: w * 1e200 for name, w in weights.items()}
    rows = spectral.analyze(extreme, WANTED, workers=2).layers
    assert np.isfinite(rows["rand_distance"]).all()


def test_progress_counts_layers_and_no_parts(weights):
    told = []
    spectral.analyze(weights, WANTED, workers=2, progress=lambda *state: told.append(state))
    assert [done for done, *_ in told] == [1, 2, 3] and {name for *_, name in told} == set(weights)


def test_what_is_shared_is_computed_once_a_sample():
    calls = []

    @once
    def shared(sample):
        calls.append(sample)
        return len(calls)

    first, second = LayerWeights([np.eye(2)]), LayerWeights([np.eye(2)])
    assert [shared(first), shared(first), shared(second)] == [1, 1, 2]
