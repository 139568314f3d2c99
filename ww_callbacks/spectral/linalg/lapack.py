"""LAPACK's symmetric eigenvalues and eigenvectors, called so that other threads keep running.

NumPy releases the interpreter lock only for matrices with sides above 500, and SciPy's wrappers never do: a thread that
decomposes smaller layers with them blocks the training, and several such threads are no faster than one. SciPy
publishes its LAPACK's addresses (``scipy.linalg.cython_lapack``), and a call through ctypes runs without the lock.
"""

from __future__ import annotations

import ctypes
import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any

import numpy as np

_BLOCK = 16
"""Block size of LAPACK's reduction to tridiagonal form, set by the size of the workspace.

The default is 32; 16 is 3 to 8 % faster for sides of 128 to 1000 and as fast for others.
"""


def symmetric_eigenvalues(matrix: np.ndarray) -> np.ndarray:
    """Eigenvalues of a symmetric matrix, by dsytrd and dsterf.

    dsyevd calls these, after a check of every element for over- and underflow, which takes 3 % of the time; the
    matrices here are already scaled.

    Args:
        matrix: square, at least 1×1, float64, C-contiguous; it is overwritten.

    Returns:
        The eigenvalues, ascending.

    Raises:
        numpy.linalg.LinAlgError: if the iteration does not converge.

    >>> symmetric_eigenvalues(np.array([[2.0, 1.0], [1.0, 2.0]])).round(12).tolist()
    [1.0, 3.0]
    """
    if not callable_directly():
        return np.linalg.eigvalsh(matrix)
    side = len(matrix)
    values, off_diagonal, reflectors, workspace = (
        np.empty(side),
        np.empty(side),
        np.empty(side),
        np.empty(_BLOCK * side),
    )
    _call("dsytrd", b"L", side, matrix, side, values, off_diagonal, reflectors, workspace, len(workspace))
    _call("dsterf", side, values, off_diagonal)
    return values


def symmetric_eigenvalues_of_stack(matrices: np.ndarray) -> np.ndarray:
    """:func:`symmetric_eigenvalues` of several matrices of one size, with one setup of the calls.

    Args:
        matrices: shape (matrices, side, side), float64, C-contiguous; they are overwritten.

    Raises:
        numpy.linalg.LinAlgError: if the iteration does not converge.

    >>> symmetric_eigenvalues_of_stack(np.array([[[2.0, 1.0], [1.0, 2.0]]])).round(12).tolist()
    [[1.0, 3.0]]
    """
    count, side, _ = matrices.shape
    if not callable_directly():
        return np.linalg.eigvalsh(matrices)
    values, off_diagonal, reflectors, workspace = (
        np.empty((count, side)),
        np.empty(side),
        np.empty(side),
        np.empty(_BLOCK * side),
    )
    given = [_as_c(value) for value in (b"L", side, len(workspace), 0)]
    uplo, order, length, status = map(ctypes.addressof, given)
    e, tau, work = (array.ctypes.data for array in (off_diagonal, reflectors, workspace))
    reduce, iterate = _routine("dsytrd", 10), _routine("dsterf", 4)
    matrix, row = matrices.ctypes.data, values.ctypes.data
    for _ in range(count):
        reduce(uplo, order, matrix, order, row, e, tau, work, length, status)
        iterate(order, row, e, status)
        if given[-1].value != 0:
            raise np.linalg.LinAlgError(f"Eigenvalues did not converge: LAPACK's dsterf ended with {given[-1].value}.")
        matrix += 8 * side * side
        row += 8 * side
    return values


def symmetric_product(blocks: Iterable[np.ndarray]) -> np.ndarray:
    """Σ BᵀB over blocks of rows B, summed in place by dsyrk.

    Args:
        blocks: at least one, float64, all with the same number of columns.

    Raises:
        ValueError: if there is none.

    >>> symmetric_product([np.array([[1.0, 2.0]]), np.array([[0.0, 3.0]])]).tolist()
    [[1.0, 2.0], [2.0, 13.0]]
    """
    product: np.ndarray | None = None
    for block in map(np.ascontiguousarray, blocks):
        rows, side = block.shape
        if product is None:
            product = np.zeros((side, side))
        # Fortran sees the block's transpose, side × rows, so in C order it fills the upper triangle.
        _call("dsyrk", b"L", b"N", side, rows, 1.0, block, side, 1.0, product, side, status=False)
    if product is None:
        raise ValueError("Expected at least one block of rows but got none.")
    for start in range(0, len(product), _TILE):
        rows_ = slice(start, start + _TILE)
        product[rows_.stop :, rows_] = product[rows_, rows_.stop :].T
        tile = product[rows_, rows_]
        tile[:] = np.triu(tile) + np.triu(tile, 1).T
    return product


def leading_eigenvectors(matrix: np.ndarray, count: int) -> np.ndarray:
    """The eigenvectors of a symmetric matrix's ``count`` largest eigenvalues, by dsyevr.

    Args:
        matrix: square, at least 1×1, float64, C-contiguous; it is overwritten.
        count: how many; all if there are fewer.

    Returns:
        Orthonormal columns, in the order of ascending eigenvalues.

    Raises:
        numpy.linalg.LinAlgError: if the iteration does not converge.

    >>> abs(leading_eigenvectors(np.array([[2.0, 1.0], [1.0, 2.0]]), 1)).round(4).tolist()
    [[0.7071], [0.7071]]
    """
    side, nothing = len(matrix), np.zeros(1)
    count = min(count, side)
    if not callable_directly():
        return np.linalg.eigh(matrix)[1][:, side - count :]
    vectors, values, supports = np.empty((count, side)), np.empty(side), np.empty(2 * side, np.int32)
    workspace, whole = np.empty((26 + _BLOCK) * side), np.empty(10 * side, np.int32)
    matrix_given = (b"L", side, matrix, side)
    span = (nothing, nothing, side - count + 1, side)  # of range I: eigenvalues by their numbers, from 1
    output = (np.empty(1, np.int32), values, vectors, side, supports)
    scratch = (workspace, len(workspace), whole, len(whole))
    _call("dsyevr", b"V", b"I", *matrix_given, *span, nothing, *output, *scratch)
    return vectors.T


def _call(name: str, *arguments: bytes | int | float | np.ndarray, status: bool = True) -> None:
    """Call a LAPACK routine with arguments by reference, followed by the status.

    BLAS routines have no ``status``.
    """
    outcome = ctypes.c_int(0)
    given: list[Any] = [_as_c(argument) for argument in arguments] + [outcome] * status
    places = [a.ctypes.data if isinstance(a, np.ndarray) else ctypes.addressof(a) for a in given]
    _routine(name, len(places))(*places)
    if outcome.value != 0:
        raise np.linalg.LinAlgError(f"Eigenvalues did not converge: LAPACK's {name} ended with {outcome.value}.")


def _as_c(argument: bytes | int | float | np.ndarray) -> Any:
    if isinstance(argument, bytes):
        return ctypes.c_char(argument)
    if isinstance(argument, float):
        return ctypes.c_double(argument)
    return ctypes.c_int(argument) if isinstance(argument, int) else argument


_SIGNATURES = {
    "dsytrd": "void (char *, int *, d *, int *, d *, d *, d *, d *, int *, int *)",
    "dsterf": "void (int *, d *, d *, int *)",
    "dsyrk": "void (char *, char *, int *, int *, d *, d *, int *, d *, d *, int *)",
    "dsyevr": (
        "void (char *, char *, char *, int *, d *, int *, d *, d *, int *, int *, d *, int *, d *, d *, int *, int *, "
        "d *, int *, int *, int *, int *)"
    ),
}
"""The C signatures that the calls above assume; ``d`` is Cython's typedef of double. A LAPACK with 64-bit integers has
others."""

_TILE = 64
"""Side of the tiles for mirroring a triangle, so that they fit into a core's cache."""


@lru_cache(maxsize=1)
def callable_directly() -> bool:
    """Whether SciPy's LAPACK has the C signatures that the calls assume; NumPy's routines are used otherwise."""
    try:
        return all(_signature(name) == expected for name, expected in _SIGNATURES.items())
    except (ImportError, AttributeError, KeyError):
        return False


def _signature(name: str) -> str:
    """The C signature that the capsule's name carries, its typedefs of double shortened to ``d``."""
    found: bytes = _capsule_name()(_capsules()[name])
    return re.sub(r"__pyx_t_5scipy_6linalg_1[13]cython_(lapack|blas)_d\b|\bdouble\b|\bd\b", "d", found.decode())


@lru_cache(maxsize=1)
def _capsules() -> Mapping[str, object]:
    from scipy.linalg import cython_blas, cython_lapack

    return {**cython_blas.__pyx_capi__, **cython_lapack.__pyx_capi__}


def _capsule_name() -> Any:
    return ctypes.PYFUNCTYPE(ctypes.c_char_p, ctypes.py_object)(("PyCapsule_GetName", ctypes.pythonapi))


@lru_cache(maxsize=8)
def _routine(name: str, arguments: int) -> Any:
    capsule = _capsules()[name]
    address = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.py_object, ctypes.c_char_p)(
        ("PyCapsule_GetPointer", ctypes.pythonapi)
    )
    return ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * arguments)(address(capsule, _capsule_name()(capsule)))
