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

Entries with a mean, as of one sign, are correlated without any structure. Each column is therefore centred, or else
each row, and the ratio taken again. With u = 1/√N and b = Wᵀu, centred columns are W − ubᵀ, and

    Σλ² of the rest = Σλ² − 2 ‖Wb‖² + ‖b‖⁴ ,

so that no second product WᵀW is needed; for rows the same of Wᵀ. In a trained layer the means are small, and a bound
tells that the ratio is no noise's without them either: ‖Wb‖² ≤ λ_1 ‖b‖², the squared norm of a column becomes
c_j − b_j², and of a row at most (√r_i + ‖b‖/√N)². Only where the bound leaves it open, W is gone through again.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from ww_callbacks.spectral.layers.spec import Array
from ww_callbacks.spectral.linalg.arrays import as_native, dot, on_accelerator, row_blocks, to_device_of
from ww_callbacks.spectral.linalg.spectrum import scaled

MARGIN = 0.05
"""The ratio of structure differs from 1 by at least this: below it lies what no tail can rest on."""

DEVIATIONS = 5.0
"""Standard deviations of noise that are added to it."""


class Moment(NamedTuple):
    """Σλ² and its expectation for independent entries of the same magnitudes.

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


def independent_entries(
    matrices: Sequence[Array], singular_values: Sequence[np.ndarray], exponent: int = 0
) -> Moment | None:
    """The moment of W, or of W with its mean taken off, if Σλ² is what entries of independent signs have.

    Args:
        matrices: W, one or several.
        singular_values: σ of each, descending.
        exponent: see :func:`ww_callbacks.spectral.linalg.spectrum.scaling_exponent`.

    Returns:
        None where the entries are correlated. One moment does not tell noise from every correlation: where its
        ``inequality`` is near 1, noise has another mark, the Marchenko–Pastur law.

    >>> noise = np.random.default_rng(0).standard_t(2, (200, 100)) * (np.arange(200)[:, None] % 7)
    >>> trained = np.cumsum(noise, axis=1)
    >>> found = [independent_entries([w], [np.linalg.svd(w)[1]]) for w in (noise, trained, 3 + noise)]
    >>> [moment is not None for moment in found]
    [True, False, True]
    """
    measured = [_Measured.of(w, s, exponent) for w, s in zip(matrices, singular_values, strict=True)]
    whole = _together(part.moment() for part in measured)
    if abs(whole.ratio - 1.0) <= whole.tolerance:
        return whole
    if whole.ratio < 1.0:  # a mean can only make it larger
        return None
    for axis in (0, 1):
        if _may_be_noise(_together(part.bound_without_mean(axis) for part in measured)):
            rest = _together(part.without_mean(axis) for part in measured)
            if _may_be_noise(rest):
                return rest
    return None


def _together(moments: Iterable[Moment]) -> Moment:
    return sum(moments, _NOTHING)


def _may_be_noise(moment: Moment) -> bool:
    """Whether Σλ² is no larger than independent entries make it."""
    return moment.ratio <= 1.0 + moment.tolerance


@dataclass(frozen=True)
class _Measured:
    """One matrix and what a pass over it gives, in units of W·2^−exponent.

    Attributes:
        matrix: W.
        exponent: its scaling exponent.
        eigenvalues: σ², descending.
        sums: the sums of the columns (axis 0) and of the rows (axis 1).
        energies: their squared norms.
        fourth: Σw⁴.
    """

    matrix: Array
    exponent: int
    eigenvalues: np.ndarray
    sums: tuple[np.ndarray, np.ndarray]
    energies: tuple[np.ndarray, np.ndarray]
    fourth: float

    @classmethod
    def of(cls, matrix: Array, singular_values: np.ndarray, exponent: int) -> _Measured:
        """Go through W once; all that is asked of it is the same of Wᵀ."""
        matrix = as_native(matrix)
        sums, energies, fourth = _Sums(), _Sums(), 0.0
        for block in _blocks(matrix, exponent):
            squared = block * block
            sums.add(block)
            energies.add(squared)
            fourth += float(dot(squared, squared))
        eigenvalues = np.ldexp(singular_values, -exponent) ** 2
        return cls(matrix, exponent, eigenvalues, sums.both(), energies.both(), fourth)

    def moment(self) -> Moment:
        """Of W as it is."""
        return _moment(self._found, self.energies, self.fourth)

    def bound_without_mean(self, axis: int) -> Moment:
        """Of W with its columns (axis 0) or its rows (axis 1) centred: at most its Σλ², and at least all else."""
        b, length = self._b(axis)
        shift = (length / self.matrix.shape[axis]) ** 0.5
        energies = self.energies[axis] - b * b, (np.sqrt(self.energies[1 - axis]) + shift) ** 2
        return _moment(self._found - 2.0 * float(self.eigenvalues[0]) * length + length**2, energies, 0.0)

    def without_mean(self, axis: int) -> Moment:
        """Of W with its columns (axis 0) or its rows (axis 1) centred; goes through W again."""
        b, length = self._b(axis)
        means = b / self.matrix.shape[axis] ** 0.5
        through: Any = 0.0  # ‖Wb‖², or for rows Wᵀb
        energies, fourth, start = _Sums(), 0.0, 0
        for block in _blocks(self.matrix, self.exponent):
            part = slice(None) if axis == 0 else slice(start, start + block.shape[0])
            start += block.shape[0]
            along = to_device_of(b[part], block)
            if axis == 0:
                along = block @ along
                through = through + float(dot(along, along))
            else:
                through = through + block.T @ along
            mean = to_device_of(means[part], block)
            squared = (block - (mean if axis == 0 else mean[:, None])) ** 2
            energies.add(squared)
            fourth += float(dot(squared, squared))
        through = through if axis == 0 else float(dot(through, through))
        return _moment(self._found - 2.0 * through + length**2, energies.both(), fourth)

    @property
    def _found(self) -> float:
        """Σλ²."""
        return float(np.dot(self.eigenvalues, self.eigenvalues))

    def _b(self, axis: int) -> tuple[np.ndarray, float]:
        """Wᵀu with u = 1/√N, or for rows Wu with u = 1/√M, and its squared norm."""
        b = self.sums[axis] / self.matrix.shape[axis] ** 0.5
        return b, float(np.dot(b, b))


def _blocks(matrix: Array, exponent: int) -> Iterator[Any]:
    """Rows of W·2^−exponent in float64."""
    return (scaled(block, exponent) for (block,) in row_blocks(matrix))


class _Sums:
    """Sums of the columns and of the rows over blocks of rows, on the host."""

    def __init__(self) -> None:
        self._columns: Any = 0.0
        self._rows: list[np.ndarray] = []

    def add(self, block: Any) -> None:
        if on_accelerator(block):
            columns, rows = block.sum(0).cpu().numpy(), block.sum(1).cpu().numpy()
        else:  # BLAS takes a half of the time of np.sum
            columns, rows = np.ones(block.shape[0]) @ block, block @ np.ones(block.shape[1])
        self._columns = self._columns + columns
        self._rows.append(rows)

    def both(self) -> tuple[np.ndarray, np.ndarray]:
        return self._columns, np.concatenate(self._rows)


def _moment(found: float, energies: tuple[np.ndarray, np.ndarray], fourth: float) -> Moment:
    """From Σλ², the squared norms of columns and of rows in either order (the first give Σw²), and Σw⁴."""
    first, second = (float(np.dot(values, values)) for values in energies)
    sizes = [len(values) for values in energies]
    whole = float(energies[0].sum())
    deviation = 2.0 * first * second / whole**2 if whole > 0.0 else 0.0
    equal = whole**2 * (1.0 / sizes[0] + 1.0 / sizes[1] - 1.0 / (sizes[0] * sizes[1]))
    return Moment(found, first + second - fourth, deviation, equal)
