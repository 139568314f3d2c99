import numpy as np
import pytest

from ww_callbacks.spectral.linalg.singular_vectors import (
    localisation,
    localization_ratio,
    random_vector_entropy,
    tail_and_bulk,
    vector_entropy,
    vector_participation_ratio,
)
from ww_callbacks.spectral.random_matrix.nulls.random_nulls import generator


def test_ends_of_the_scales():
    one, all_alike = np.eye(1, 64)[0], np.ones(64)
    assert [vector_entropy(v).item() for v in (one, all_alike)] == pytest.approx([0, 1])
    assert [localization_ratio(v).item() for v in (one, all_alike)] == pytest.approx([1, 64])
    assert [vector_participation_ratio(v).item() for v in (one, all_alike)] == pytest.approx([1, 64**0.25])


def test_random_vectors_have_their_closed_form_values():
    n = 300
    vectors = generator(0).standard_normal((n, 4000))
    assert np.mean(vector_entropy(vectors)) == pytest.approx(random_vector_entropy(n), rel=1e-3)
    assert np.mean(vector_participation_ratio(vectors) ** -4) == pytest.approx(3 / (n + 2), rel=0.01)


@pytest.mark.parametrize("measure", [vector_entropy, localization_ratio, vector_participation_ratio])
def test_length_and_sign_do_not_matter(measure):
    v = generator(1).standard_normal((50, 3))
    np.testing.assert_allclose(measure(-7.5 * v), measure(v))
    np.testing.assert_allclose(measure(v[generator(2).permutation(50)]), measure(v))
    assert np.isnan(measure(np.zeros(5)))


@pytest.mark.parametrize("shape", [(60, 40), (40, 60), (50, 50)])
@pytest.mark.parametrize("side", ["inputs", "outputs", "smaller"])
def test_against_the_singular_vectors_themselves(shape, side):
    w = generator(3).standard_normal(shape)
    u, s, vt = np.linalg.svd(w, full_matrices=False)
    rows = {"inputs": False, "outputs": True, "smaller": shape[0] < shape[1]}[side]
    vectors = u if rows else vt.T
    found = localisation(w * 1e-100, side)
    np.testing.assert_allclose(found.eigenvalues, s**2 * 1e-200, rtol=1e-6)
    np.testing.assert_allclose(found.entropy, vector_entropy(vectors), rtol=1e-5)
    np.testing.assert_allclose(found.localization_ratio, localization_ratio(vectors), rtol=1e-5)
    np.testing.assert_allclose(found.participation_ratio, vector_participation_ratio(vectors), rtol=1e-5)
    assert found.length == len(vectors)


def test_a_localised_direction_shows_in_the_tail():
    w = 0.1 * generator(4).standard_normal((300, 200))
    w[7, 9] += 30.0
    found = localisation(w)
    assert found.entropy[0] < 0.1 < random_vector_entropy(200) - 0.1 < np.median(found.entropy)
    tail, bulk = tail_and_bulk(found.entropy, found.eigenvalues, tail=1)
    assert tail == found.entropy[0]
    assert bulk == pytest.approx(random_vector_entropy(200), abs=0.02)


def test_missing_part():
    assert np.isnan(tail_and_bulk([1.0], [1.0], 0)[0])
    assert np.isnan(tail_and_bulk([1.0], [1.0], 1)[1])


def test_refuses_another_side():
    with pytest.raises(ValueError, match="'inputs', 'outputs' or 'smaller'"):
        localisation(np.eye(2), "rows")
