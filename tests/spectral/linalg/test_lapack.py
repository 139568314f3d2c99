import sys
import threading

import numpy as np
import pytest

from ww_callbacks.spectral.linalg import lapack
from ww_callbacks.spectral.linalg.lapack import leading_eigenvectors, symmetric_eigenvalues


def symmetric(side, seed=0):
    a = np.random.default_rng(seed).standard_normal((side + 3, side))
    return a.T @ a


@pytest.mark.parametrize("side", [1, 2, 3, 17, 64, 129, 300, 501])
def test_eigenvalues_agree_with_numpy(side):
    matrix = symmetric(side)
    expected = np.linalg.eigvalsh(matrix)
    np.testing.assert_allclose(symmetric_eigenvalues(matrix), expected, rtol=1e-11, atol=1e-12 * side)


@pytest.mark.parametrize(("side", "count"), [(1, 1), (2, 1), (5, 9), (40, 7), (200, 10), (600, 10)])
def test_leading_eigenvectors_span_what_numpy_finds(side, count):
    matrix = symmetric(side)
    expected = np.linalg.eigh(matrix)[1][:, -count:]
    found = leading_eigenvectors(matrix.copy(), count)
    assert found.shape == (side, min(side, count))
    np.testing.assert_allclose(found.T @ found, np.eye(found.shape[1]), atol=1e-12)
    np.testing.assert_allclose(np.abs(np.sum(found * expected, axis=0)), 1.0, rtol=1e-9)


def test_what_lapack_does_not_manage_is_an_error(monkeypatch):
    def fails(*places):
        lapack.ctypes.c_int.from_address(places[-1]).value = 3

    monkeypatch.setattr(lapack, "_routine", lambda name, arguments: fails)
    with pytest.raises(np.linalg.LinAlgError, match="did not converge: LAPACK's dsytrd ended with 3"):
        symmetric_eigenvalues(np.eye(2))


@pytest.fixture
def no_forced_switch():
    before = sys.getswitchinterval()
    sys.setswitchinterval(30)
    yield
    sys.setswitchinterval(before)


@pytest.mark.parametrize("decompose", [symmetric_eigenvalues, lambda matrix: leading_eigenvectors(matrix, 5)])
def test_python_goes_on_while_a_small_matrix_is_decomposed(decompose, no_forced_switch):
    """With no forced switches, this thread runs during the call only if the call gives the interpreter lock up."""
    matrices = [symmetric(400) for _ in range(50)]
    begun, ran = threading.Event(), threading.Event()
    seen = []

    def work():
        begun.set()
        for matrix in matrices:
            decompose(matrix)
            seen.append(ran.is_set())
            if seen[-1]:
                break

    thread = threading.Thread(target=work)
    thread.start()
    begun.wait()
    ran.set()
    thread.join()
    assert seen[-1]


@pytest.mark.parametrize("integer", ["int", "long", "int64_t"])
def test_a_lapack_with_other_integers_is_not_called(monkeypatch, integer):
    """An ILP64 LAPACK would read 64-bit integers where the calls pass 32-bit ones."""
    names = {n: s.replace("int *", f"{integer} *").encode() for n, s in lapack._SIGNATURES.items()}
    monkeypatch.setattr(lapack, "_capsules", lambda: names)
    monkeypatch.setattr(lapack, "_capsule_name", lambda: lambda capsule: capsule)
    lapack.callable_directly.cache_clear()
    assert lapack.callable_directly() is (integer == "int")
    if integer != "int":
        monkeypatch.setattr(lapack, "_call", lambda *_: pytest.fail("LAPACK was called"))
        matrix = symmetric(20)
        np.testing.assert_allclose(symmetric_eigenvalues(matrix.copy()), np.linalg.eigvalsh(matrix))
        assert leading_eigenvectors(matrix.copy(), 3).shape == (20, 3)


def test_without_scipys_capsules_numpy_is_used(monkeypatch):
    def gone():
        raise AttributeError("__pyx_capi__")

    monkeypatch.setattr(lapack, "_capsules", gone)
    lapack.callable_directly.cache_clear()
    assert not lapack.callable_directly()


@pytest.fixture(autouse=True)
def _fresh():
    yield
    lapack.callable_directly.cache_clear()
