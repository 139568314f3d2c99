r"""Block Lanczos on the smaller Gram product of W, which is never formed.

With A = WᵀW (or WWᵀ, whichever is smaller, M×M) and a block G of b random orthonormal columns, q steps build an
orthonormal basis Q of the Krylov space span(G, AG, …, A^{q−1}G) with

.. math:: A Q = Q T + Q_{q+1} B_q E_q^\top, \qquad T \text{ block tridiagonal},

by q products with W and q with Wᵀ. T provides two approximations: its largest eigenvalues (Ritz values) converge to
those of A from below, and its eigenvalues with the squared first components of its eigenvectors are a Gauss quadrature
of A's spectrum. Randomised block Krylov methods use the first, stochastic Lanczos quadrature the second.

Products are computed in float32 on W's device; the basis is fully reorthogonalised on the host. ARPACK
(``scipy.sparse.linalg.eigsh``) provides neither the quadrature nor blocks, and a block of 16 columns takes hardly more
time than one, because reading W dominates.

References:
    G. H. Golub and R. Underwood: The block Lanczos method for computing eigenvalues. Mathematical Software III, 1977.

    C. Musco and C. Musco: Randomized block Krylov methods for stronger and faster approximate singular value
    decomposition. NeurIPS 2015.

    S. Ubaru, J. Chen and Y. Saad: Fast estimation of tr(f(A)) via stochastic Lanczos quadrature. SIAM J. Matrix Anal.
    Appl. 38 (2017).
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from math import frexp, ldexp

import numpy as np

from ww_callbacks.spectral.layers.spec import Array
from ww_callbacks.spectral.linalg.arrays import as_array, largest_magnitude, on_accelerator

BLOCK = 16
"""Number of random start columns."""

ROUNDING = 6e-6
"""Relative error of the largest eigenvalue due to products in float32."""

_INDEPENDENT = 1e-5
"""Columns with a longer part beside the others than this, in units of the longest, come out orthogonal by Cholesky."""

_TILE, _BAND = 128, 384
"""Columns and rows of the tiles of W in a product, the fastest of several for 16 columns on two processors."""

_SAFE_EXPONENT = 20
"""Products of W with itself are safe in float32 for |W| between 2^−20 and 2^20."""


@dataclass(frozen=True)
class Ritz:
    """Ritz values of A = WᵀW, in units of (2^exponent)².

    Attributes:
        values: Ritz values θ_1 ≥ θ_2 ≥ …; each is at most the eigenvalue of A with the same index.
        residuals: ‖A u − θ u‖ of each Ritz vector u.
        weights: squared components of T's eigenvectors along each random start column, of shape (b, number of values):
            the Gauss quadrature of that column's spectral measure.
    """

    values: np.ndarray
    residuals: np.ndarray
    weights: np.ndarray


class BlockLanczos:
    """A Krylov space of WᵀW that grows step by step.

    Args:
        matrix: W, finite and not zero, of shape (rows, columns) and any real dtype; NumPy array or torch tensor.
        block: number b of random start columns.
        seed: seed of these columns; the global random state does not change.

    Examples:
        >>> space = BlockLanczos(np.diag(np.linspace(1.0, 2.0, 64)), block=4)
        >>> space.extend(12)
        >>> bool(abs(space.ritz.values[0] - 4.0) < 1e-3)
        True
    """

    def __init__(self, matrix: Array, block: int = BLOCK, seed: int = 0) -> None:
        array = as_array(matrix)
        self.side = int(min(array.shape))
        self.block = min(block, self.side)
        exponent = frexp(largest_magnitude(array))[1]
        self.exponent = exponent if abs(exponent) > _SAFE_EXPONENT else 0
        self._multiply = _multiplication(array, self.exponent)
        first = np.random.Generator(np.random.SFC64(seed)).standard_normal((self.side, self.block), dtype=np.float32)
        next_, self._first = np.linalg.qr(first)
        self._basis = np.asfortranarray(next_)  # blocks in adjacent columns, with spare capacity
        self._diagonal: list[np.ndarray] = []
        self._below: list[np.ndarray] = []

    @property
    def steps(self) -> int:
        """Steps done."""
        return len(self._diagonal)

    @property
    def most_steps(self) -> int:
        """Number of steps until the basis spans half of all directions: beyond that the exact spectrum is no more
        expensive.
        """
        return self.side // (2 * self.block)

    def extend(self, steps: int) -> None:
        """Perform this many more steps."""
        self._make_room(self.steps + steps + 1)
        for end in range((self.steps + 1) * self.block, (self.steps + steps + 1) * self.block, self.block):
            basis = self._basis[:, :end]
            last = basis[:, -self.block :]
            product = self._multiply(last)
            diagonal = last.T @ product
            self._diagonal.append(0.5 * (diagonal + diagonal.T).astype(np.float64))
            # Two passes give orthogonality to rounding error, even if a block has lost rank.
            next_, upper = _orthonormal(product - basis @ (basis.T @ product))
            next_, again = _orthonormal(next_ - basis @ (basis.T @ next_))
            self._below.append((again @ upper).astype(np.float64))
            self._basis[:, end : end + self.block] = next_
        self.__dict__.pop("ritz", None)
        self.__dict__.pop("radau", None)

    def _make_room(self, blocks: int) -> None:
        kept = self._basis
        if blocks * self.block > kept.shape[1]:
            self._basis = np.empty((self.side, blocks * self.block), dtype=np.float32, order="F")
            self._basis[:, : kept.shape[1]] = kept

    @cached_property
    def ritz(self) -> Ritz:
        """Gauss quadrature with q nodes per column, exact up to degree 2q − 1, and the Ritz values."""
        return self._solve(self._tridiagonal(self.steps))

    @cached_property
    def radau(self) -> Ritz:
        """Gauss–Radau quadrature with one more node per column, fixed at 0, exact up to degree 2q; its residuals are
        meaningless.

        If every even derivative of f is negative and every odd one positive, as for √x, this is a lower bound of the
        quadratic form, and :attr:`ritz` an upper bound (Golub and Meurant: Matrices, moments and quadrature).
        """
        tridiagonal, width = self._tridiagonal(self.steps), self.block
        below = self._below[-1]
        last = np.zeros((len(tridiagonal), width))
        last[-width:] = np.eye(width)
        # The Schur complement of T must be zero; a tiny shift keeps T regular if A is singular.
        shift = 1e-12 * float(np.trace(tridiagonal)) / len(tridiagonal)
        inverse = np.linalg.solve(tridiagonal + shift * np.eye(len(tridiagonal)), last)[-width:]
        corner = below @ inverse @ below.T
        bordered = np.zeros((len(tridiagonal) + width,) * 2)
        bordered[:-width, :-width] = tridiagonal
        bordered[-width:, -width:] = 0.5 * (corner + corner.T)
        bordered[-width:, -2 * width : -width] = below
        bordered[-2 * width : -width, -width:] = below.T
        return self._solve(bordered)

    def _tridiagonal(self, steps: int) -> np.ndarray:
        width = self.block
        matrix = np.zeros((steps * width, steps * width))
        for i in range(steps):
            own = slice(i * width, (i + 1) * width)
            matrix[own, own] = self._diagonal[i]
            if i + 1 < steps:
                below = slice((i + 1) * width, (i + 2) * width)
                matrix[below, own] = self._below[i]
                matrix[own, below] = self._below[i].T
        return matrix

    def _solve(self, matrix: np.ndarray) -> Ritz:
        values, vectors = np.linalg.eigh(matrix)
        values, vectors = values[::-1], vectors[:, ::-1]
        # The random columns are the start block times the triangular factor of its QR decomposition.
        probes = (self._first / np.linalg.norm(self._first, axis=0)).astype(np.float64)
        weights = (probes.T @ vectors[: self.block]) ** 2
        residuals = np.linalg.norm(self._below[-1] @ vectors[-self.block :], axis=0)
        return Ritz(np.maximum(values, 0.0), residuals, weights)


def _orthonormal(block: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A float32 block of columns as Q·R by Cholesky of its Gram product, in a tenth of Householder's time.

    Householder's where the columns depend on each other so much that a float64 Gram product does not tell.
    """
    wide = block.astype(np.float64)
    try:
        upper = np.linalg.cholesky(wide.T @ wide).T
    except np.linalg.LinAlgError:
        return np.linalg.qr(block)
    lengths = np.abs(np.diagonal(upper))
    if not lengths.min() > _INDEPENDENT * lengths.max():
        return np.linalg.qr(block)
    return (wide @ np.linalg.inv(upper)).astype(np.float32), upper


def _multiplication(array: Array, exponent: int) -> Callable[[np.ndarray], np.ndarray]:
    """X ↦ WᵀW x on host arrays, for W scaled by 2^−exponent, on W's smaller side."""
    if on_accelerator(array):
        torch = sys.modules["torch"]
        # If the user allows TF32 (10 bits), float64 is used.
        rounded = array.device.type == "cuda" and torch.backends.cuda.matmul.allow_tf32
        kind = torch.float64 if rounded else torch.float32
        there = array.to(kind) if exponent == 0 else (array.to(torch.float64) * ldexp(1.0, -exponent)).to(kind)
        there = there if there.shape[0] >= there.shape[1] else there.T

        def multiply_there(x: np.ndarray) -> np.ndarray:
            column = torch.as_tensor(x, device=there.device, dtype=kind)
            return (there.T @ (there @ column)).to(torch.float32).cpu().numpy()

        return multiply_there
    kept = np.asarray(array)
    kept = (kept if exponent == 0 else np.ldexp(kept, -exponent)).astype(np.float32, copy=False)
    kept = kept if kept.shape[0] >= kept.shape[1] else kept.T
    return partial(_gram_product, kept)


def _gram_product(matrix: np.ndarray, x: np.ndarray) -> np.ndarray:
    """MᵀM x for M (rows, side), in float32.

    A band of rows is read once for both products, in tiles: BLAS would copy a large matrix into its own order for each
    product, which takes as long as multiplying it by so few columns, but multiplies small ones in place (OpenBLAS up to
    a million multiplications).
    """
    side, width = x.shape
    inner = side - side % _TILE
    product = np.zeros((side, width), np.float32)
    x = np.ascontiguousarray(x)
    tiled, columns = product[:inner].reshape(-1, _TILE, width), x[:inner].reshape(-1, _TILE, width)
    part = np.empty_like(tiled)
    for start in range(0, len(matrix), _BAND):
        band = matrix[start : start + _BAND]
        tiles = band[:, :inner].T.reshape(-1, _TILE, len(band))
        images = (tiles.transpose(0, 2, 1) @ columns).sum(axis=0)
        if inner < side:
            images += band[:, inner:] @ x[inner:]
            product[inner:] += band[:, inner:].T @ images
        tiled += np.matmul(tiles, images, out=part)
    return product
