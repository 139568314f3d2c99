"""Small layers measured together come out as each does alone."""

import numpy as np
import pytest

from ww_callbacks.engine.engine import Engine
from ww_callbacks.spectral.layers.spec import LayerSpec
from ww_callbacks.spectral.linalg.density import spectral_density
from ww_callbacks.spectral.measuring import batched as module
from ww_callbacks.spectral.measuring.batched import stackable, together
from ww_callbacks.spectral.measuring.layer_weights import LayerWeights
from ww_callbacks.spectral.measuring.registry import resolve

ATTRIBUTES = ("largest", "norm", "element_mean", "element_variance", "eigenvalues", "relative_eigenvalues")


def matrices(shape, dtype=np.float32, count=7):
    rng = np.random.default_rng(0)
    found = [rng.standard_normal(shape) * rng.lognormal(size=(shape[0], 1)) for _ in range(count)]
    found[1][0] = found[1][-1]  # of deficient rank
    found[2] *= 1e-30
    return [matrix.astype(dtype) for matrix in found]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shape", [(64, 64), (20, 90), (90, 20), (1, 8), (100, 120), (2, 2)])
def test_the_same_bits_as_one_by_one(shape, dtype):
    given = matrices(shape, dtype)
    assert all(map(stackable, given))
    quantities = [q for q in resolve("all") if q.of_spectra is not None]
    assert len(quantities) > 1
    for matrix, found in zip(given, together(given, quantities=quantities), strict=True):
        alone, batched = LayerWeights([matrix]), LayerWeights([matrix])
        batched.__dict__.update(found)
        np.testing.assert_array_equal(found["singular_values"][0], alone.singular_values[0])
        for name in ATTRIBUTES:
            np.testing.assert_array_equal(found[name], getattr(alone, name), err_msg=name)
        assert found["known"] == {q.name: q.function(alone) for q in quantities}
        assert repr(batched.relative_power_law) == repr(alone.relative_power_law)
        here, there = spectral_density(batched), spectral_density(alone)
        curve, other = here.pop("candidates"), there.pop("candidates")
        assert repr(here) == repr(there)
        assert list(curve["xmin"]) == list(other["xmin"])
        for name in ("D", "alpha"):
            np.testing.assert_allclose(curve[name], other[name], rtol=1e-11, atol=1e-12)


def test_what_needs_more_is_left_to_be_measured_alone():
    given = [np.zeros((8, 8)), np.full((8, 8), np.nan), np.full((8, 8), 1e-200), np.eye(8), np.ones((8, 8)) + np.eye(8)]
    found = together(given)
    assert [bool(attributes) for attributes in found] == [False, False, False, True, True]
    assert "relative_power_law" not in found[3], "equal eigenvalues have checks of their own"
    transposed = np.ones((8, 9)).T
    assert not stackable(transposed) and not stackable(np.ones((300, 300))) and not stackable(np.ones(3))


def layers(arrays):
    return [
        LayerSpec(n, (n,), "dense", "", a.shape, (a.shape,), read=lambda a=a: [a], arrange=list)
        for n, a in arrays.items()
    ]


def test_a_snapshot_is_the_same_whatever_is_measured_beside_it(monkeypatch):
    arrays = {f"layer {i}": matrix for i, matrix in enumerate(matrices((30, 24), count=9))}
    arrays |= {"zero": np.zeros((30, 24), np.float32), "nan": np.full((30, 24), np.nan, np.float32)}
    arrays |= {"other": matrices((10, 60))[0], "large": np.random.default_rng(1).standard_normal((200, 190))}

    def rows(stack, workers):
        monkeypatch.setattr("ww_callbacks.engine.engine.STACK", stack)
        engine = Engine(layers(arrays), resolve(), workers=workers)
        return [repr(row.values) + row.status for row in engine.measure()]

    calls = []
    monkeypatch.setattr("ww_callbacks.engine.engine.together", lambda *a: calls.append(1) or module.together(*a))
    alone = rows(1, 1)
    assert not calls
    assert rows(64, 1) == rows(4, 1) == rows(64, 2) == alone and calls


def test_a_fault_in_the_stack_costs_no_layer(monkeypatch):
    arrays = {f"layer {i}": matrix for i, matrix in enumerate(matrices((30, 24)))}
    engine = Engine(layers(arrays), resolve())

    def broken(*_):
        raise RuntimeError("broken")

    monkeypatch.setattr("ww_callbacks.engine.engine.together", broken)
    assert [row.status for row in engine.measure()] == ["ok"] * len(arrays)
