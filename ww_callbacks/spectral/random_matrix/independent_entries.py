r"""Whether a matrix is noise of independent entries, of whatever sizes: unequal variances, zeros, heavy tails.

For entries w_ij of independent random signs and any given magnitudes, with r_i and c_j the squared norms of rows and
columns,

    E Σλ² = E ‖WᵀW‖_F² = Σ_i r_i² + Σ_j c_j² − Σ_ij w_ij⁴ ,

for of the products w_ij·w_i'j·w_ij'·w_i'j' only those with i = i' or j = j' keep their sign. About this value Σλ²
varies by

    4 Σ_{i≠i'} Σ_{j≠j'} w_ij² w_i'j² w_ij'² w_i'j'² ≤ about (2 Σr_i² Σc_j² / (Σw²)²)²

(equal where the variance of an entry is a product of one of its row and one of its column). So the ratio of Σλ² to
this expectation is 1 on noise whose eigenvalues are as unequal as one likes: zeros at random, rows and columns of
unequal variance, blocks, a Student's t without a variance. What training writes into a layer is correlation between
entries, and moves it: in 30 of 31 layers of MiniLM the ratio is 1.12 or more, in one 0.90.

Entries with a mean, as of one sign, are correlated without any structure. Each column is therefore centred, and then
each row instead, and the ratio taken again. With u = 1/√N, centred columns are W − u(uᵀW), and for b = Wᵀu

    Σλ² of the rest = Σλ² − 2 ‖Wb‖² + ‖b‖⁴ ,

so that no second product WᵀW is needed; for rows the same of Wᵀ.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from ww_callbacks.spectral.layers.spec import Array
from ww_callbacks.spectral.linalg.arrays import dot, row_blocks
from ww_callbacks.spectral.linalg.spectrum import scaled

MARGIN = 0.05
"""The ratio of structure differs from 1 by at least this: below it lies what no tail can rest on."""

DEVIATIONS = 5.0
"""Standard deviations of noise that are added to it."""


class Moment(NamedTuple):
    """Σλ² beside what independent entries of the same magnitudes have.

    Attributes:
        found: Σλ².
        expected: its expectation over random signs.
        deviation: its standard deviation over random signs, about.
        equal: its expectation where all magnitudes are equal.
    """

    found: float
    expected: float
    deviation: float
    equal: float

    @property
    def inequality(self) -> float:
        """By how much unequal magnitudes make Σλ² larger: 1 for equal ones."""
        return self.expected / self.equal if self.equal > 0.0 else float("nan")

    @property
    def ratio(self) -> float:
        """Σλ² over its expectation; NaN for W = 0."""
        return self.found / self.expected if self.expected > 0.0 else float("nan")

    @property
    def tolerance(self) -> float:
        """How far the ratio of noise may be from 1."""
        return MARGIN + DEVIATIONS * self.deviation / self.expected if self.expected > 0.0 else float("nan")

    def __add__(self, other: tuple[float, ...]) -> Moment:  # type: ignore[override]
        """Of two matrices together."""
        return Moment(*(a + b for a, b in zip(self, other, strict=True)))


_NOTHING = Moment(0.0, 0.0, 0.0, 0.0)


def independent_entries(matrices: Sequence[Array], squares: Sequence[float], exponent: int = 0) -> Moment | None:
    """The moment of W, or of W with its mean taken off, if Σλ² is what entries of independent signs have.

    Args:
        matrices: W, one or several.
        squares: Σλ² of each, in units of W·2^−exponent.
        exponent: see :func:`ww_callbacks.spectral.linalg.spectrum.scaling_exponent`.

    Returns:
        None where the entries are correlated. One moment does not tell noise from every correlation: where its
        ``inequality`` is near 1, noise has another mark, the Marchenko–Pastur law.

    >>> import numpy as np
    >>> noise = np.random.default_rng(0).standard_t(2, (200, 100)) * (np.arange(200)[:, None] % 7)
    >>> trained = np.cumsum(noise, axis=1)
    >>> found = [independent_entries([w], [float(np.sum((w.T @ w) ** 2))]) for w in (noise, trained, 3 + noise)]
    >>> [moment is not None for moment in found]
    [True, False, True]
    """
    pairs = [_moments(w, square, exponent) for w, square in zip(matrices, squares, strict=True)]
    whole = sum((moment for moment, _, _ in pairs), _NOTHING)
    if abs(whole.ratio - 1.0) <= whole.tolerance:
        return whole
    if whole.ratio < 1.0:  # a mean can only make it larger
        return None
    centred = [
        _centred(w, square, exponent, rows, columns)
        for w, square, (_, rows, columns) in zip(matrices, squares, pairs, strict=True)
    ]
    rests = (sum((pair[i] for pair in centred), _NOTHING) for i in (0, 1))
    return next((rest for rest in rests if rest.ratio <= 1.0 + rest.tolerance), None)


def _moments(matrix: Array, square: float, exponent: int) -> tuple[Moment, list[Any], Any]:
    """The moment of W, the sums of its rows, block by block, and those of its columns."""
    sums = _Sums(matrix.shape)
    rows: list[Any] = []
    columns: Any = 0.0
    for (stored,) in row_blocks(matrix):
        block: Any = scaled(stored, exponent)
        sums.add(block)
        rows.append(block.sum(1))
        columns = columns + block.sum(0)
    return sums.moment(square), rows, columns


def _centred(matrix: Array, square: float, exponent: int, rows: list[Any], columns: Any) -> tuple[Moment, Moment]:
    """The moments of W with its columns centred, and with its rows centred."""
    height, width = matrix.shape
    by_column, by_row = _Sums(matrix.shape), _Sums(matrix.shape)
    through_b = 0.0
    through_a: Any = 0.0
    b = columns / height**0.5  # Wᵀu with u = 1/√N
    for (stored,), sums in zip(row_blocks(matrix), rows, strict=True):
        block: Any = scaled(stored, exponent)
        a = sums / width**0.5
        along = block @ b
        through_b += float(dot(along, along))
        through_a = through_a + block.T @ a
        by_column.add(block - columns / height)
        by_row.add(block - sums[:, None] / width)
    length = sum(float(dot(sums, sums)) for sums in rows) / width
    return (
        by_column.moment(square - 2.0 * through_b + float(dot(b, b)) ** 2),
        by_row.moment(square - 2.0 * float(dot(through_a, through_a)) + length**2),
    )


class _Sums:
    """Σr_i², Σc_j², Σw² and Σw⁴ over blocks of rows."""

    def __init__(self, shape: Sequence[int]) -> None:
        self._rows, self._all, self._fourth = 0.0, 0.0, 0.0
        self._columns: Any = 0.0
        self._shape = shape

    def add(self, block: Any) -> None:
        energies: Any = block * block
        rows = energies.sum(1)
        self._rows += float(dot(rows, rows))
        self._all += float(rows.sum())
        self._fourth += float(dot(energies, energies))
        self._columns = self._columns + energies.sum(0)

    def moment(self, square: float) -> Moment:
        columns = float(dot(self._columns, self._columns))
        deviation = 2.0 * self._rows * columns / self._all**2 if self._all > 0.0 else 0.0
        height, width = self._shape
        equal = self._all**2 * (1.0 / height + 1.0 / width - 1.0 / (height * width))
        return Moment(square, self._rows + columns - self._fourth, deviation, equal)
