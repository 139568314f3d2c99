"""The weights of one layer at one time, with cached intermediate results that several quantities share."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from math import isnan, sqrt

import numpy as np

from ww_callbacks.spectral.estimates.lanczos import BlockLanczos
from ww_callbacks.spectral.fits.clauset import PowerLawFit, clauset_fit
from ww_callbacks.spectral.layers.spec import Array
from ww_callbacks.spectral.linalg.arrays import dot, is_small, largest_magnitude, row_blocks
from ww_callbacks.spectral.linalg.spectrum import (
    gram_singular_values,
    resolved,
    scaled,
    scaling_exponent,
    svd_singular_values,
)
from ww_callbacks.spectral.measuring.cached import cached_attribute

Value = float | str
"""The value of a quantity: a number, or a short text."""


@dataclass
class LayerWeights:
    """The weights of one layer at one time: the argument of every quantity function.

    Attributes:
        matrices: the layer's matrices W (rows = outputs, columns = inputs), all finite.
        initial: the same matrices at the baseline, W_0, or None.
        previous: the same matrices at the last snapshot, or None.
        reference: the layer's quantity values at the baseline, or None; avoids a second spectrum of W_0.
        reference_errors: the errors of the reference values that are estimates.
        space: a Krylov space of the layer's only matrix, used by estimates; None if all values are exact.
        seed: seed of the generator from which random nulls of this layer are drawn.
        scratch: intermediate results that a family of quantities shares.
        known: values that were computed for several layers together, by quantity.
    """

    matrices: Sequence[Array]
    initial: Sequence[Array] | None = None
    previous: Sequence[Array] | None = None
    reference: Mapping[str, Value] | None = None
    reference_errors: Mapping[str, float] = field(default_factory=dict)
    space: BlockLanczos | None = None
    seed: int = 0
    scratch: dict[object, object] = field(default_factory=dict, repr=False)
    known: Mapping[str, Value] = field(default_factory=dict, repr=False)

    def release(self, needs: Collection[str]) -> None:
        """Drop the earlier weights that no quantity with these ``needs`` compares with."""
        if "previous" not in needs:
            self.previous = None
        if "initial" not in needs and not ("reference" in needs and self.reference is None):
            self.initial = None

    @cached_attribute
    def largest(self) -> float:
        """Largest |W_ij| over all matrices; NaN or inf if an element is."""
        magnitudes = [largest_magnitude(w) for w in self.matrices]
        return float("nan") if any(map(isnan, magnitudes)) else max(magnitudes, default=0.0)

    @cached_attribute
    def shape(self) -> tuple[int, int]:
        """(N, M): larger and smaller side of the layer's first matrix."""
        rows, columns = self.matrices[0].shape
        return max(rows, columns), min(rows, columns)

    @cached_attribute
    def singular_values(self) -> list[np.ndarray]:
        """σ of each matrix, float64, descending, from the Gram product; those below about 1e-7·σ_1 are 0."""
        return [gram_singular_values(w) for w in self.matrices]

    @cached_attribute
    def resolved_singular_values(self) -> list[np.ndarray]:
        """σ of each matrix, float64, descending, with the smallest ones resolved, by an SVD if needed."""
        return [
            s if resolved(s) else svd_singular_values(w)
            for s, w in zip(self.singular_values, self.matrices, strict=True)
        ]

    @cached_attribute
    def pooled_singular_values(self) -> np.ndarray:
        """σ of all matrices, one array."""
        return np.concatenate(self.singular_values) if self.singular_values else np.empty(0)

    @cached_attribute
    def pooled_resolved_singular_values(self) -> np.ndarray:
        """σ of all matrices, one array, with the smallest ones resolved."""
        return np.concatenate(self.resolved_singular_values) if self.resolved_singular_values else np.empty(0)

    @cached_attribute
    def eigenvalues(self) -> np.ndarray:
        """Eigenvalues λ = σ² of all matrices pooled, float64, ascending."""
        with np.errstate(over="ignore", under="ignore"):
            return np.sort(np.concatenate([s**2 for s in self.singular_values]))

    @cached_attribute
    def initial_singular_values(self) -> list[np.ndarray]:
        """σ of each matrix of W_0, as :attr:`singular_values`; empty without a baseline."""
        if self.initial is None:
            return []
        return (
            self.singular_values if self.initial is self.matrices else [gram_singular_values(w) for w in self.initial]
        )

    @property
    def largest_singular_value(self) -> float:
        """σ_1, the largest over all matrices; NaN for an empty layer."""
        return max((float(s[0]) for s in self.singular_values if len(s)), default=np.nan)

    @cached_attribute
    def log_spectral_norm(self) -> float:
        """log10 λ_1 = 2·log10 σ_1; NaN for W = 0."""
        return 2.0 * float(np.log10(self.largest_singular_value)) if self.largest_singular_value > 0.0 else np.nan

    @cached_attribute
    def relative_eigenvalues(self) -> np.ndarray:
        """λ/λ_1 of all matrices pooled, ascending, from (σ/σ_1)² to avoid over- and underflow; 0 for W = 0."""
        values = np.sort(np.concatenate(self.singular_values))
        return (values / values[-1]) ** 2 if len(values) and values[-1] > 0.0 else values

    @cached_attribute
    def relative_power_law(self) -> PowerLawFit:
        """The power law fitted to λ/λ_1 with default settings; independent of the scale of W."""
        return clauset_fit(self.relative_eigenvalues)

    @cached_attribute
    def power_law(self) -> PowerLawFit:
        """The power law fitted to the pooled eigenvalues, with default settings."""
        return self.relative_power_law.rescaled(float(self.eigenvalues[-1]) if len(self.eigenvalues) else np.nan)

    @cached_attribute
    def norm(self) -> float:
        """‖W‖_F over all matrices; scaled by a power of two if squares would over- or underflow."""
        exponent = scaling_exponent(self.largest)
        blocks = ((scaled(w, exponent) for (w,) in row_blocks(matrix)) for matrix in self.matrices)
        squares = (float(sum(dot(w, w) for w in matrix)) for matrix in blocks)
        return float(np.ldexp(np.sqrt(sum(squares)), exponent))

    @cached_attribute
    def element_mean(self) -> float:
        """Mean of the elements of all matrices."""
        total = sum(float(sum(w.sum() for (w,) in row_blocks(matrix))) for matrix in self.matrices)
        return total / self.elements

    @cached_attribute
    def element_variance(self) -> float:
        """Variance s² of the elements of all matrices about their mean."""
        mean = self.element_mean
        centred = ((w - mean for (w,) in row_blocks(matrix)) for matrix in self.matrices)
        return sum(float(sum(dot(c, c) for c in matrix)) for matrix in centred) / self.elements

    @property
    def elements(self) -> int:
        """Number of elements of all matrices."""
        return sum(int(w.shape[0]) * int(w.shape[1]) for w in self.matrices)

    @cached_attribute
    def from_initial(self) -> Difference:
        """W compared with W_0."""
        return Difference.between(self.matrices, self.initial)

    @cached_attribute
    def from_previous(self) -> Difference:
        """W compared with the weights of the last snapshot."""
        return Difference.between(self.matrices, self.previous)


@dataclass(frozen=True)
class Difference:
    """Inner products of W with other weights V of the same shapes, over all matrices.

    Attributes:
        norm: ‖V‖_F.
        distance: ‖W−V‖_F, computed from the differences, because norms would cancel.
        product: ⟨W, V⟩.
    """

    norm: float
    distance: float
    product: float

    @classmethod
    def between(cls, matrices: Sequence[Array], others: Sequence[Array] | None) -> Difference:
        """Compare; all NaN if there is nothing to compare with."""
        if others is None:
            return cls(np.nan, np.nan, np.nan)
        sums = [0.0, 0.0, 0.0]
        for matrix, other in zip(matrices, others, strict=True):
            if is_small(matrix) and is_small(other):
                w, v = np.asarray(matrix).ravel().astype(np.float64), np.asarray(other).ravel().astype(np.float64)
                d = w - v
                sums = [sums[0] + float(v.dot(v)), sums[1] + float(d.dot(d)), sums[2] + float(w.dot(v))]
                continue
            blocks = ((w, v, w - v) for w, v in row_blocks(matrix, other))
            parts = [(dot(v, v), dot(d, d), dot(w, v)) for w, v, d in blocks]
            sums = [total + float(sum(part)) for total, part in zip(sums, zip(*parts, strict=True), strict=True)]
        return cls(sqrt(sums[0]), sqrt(sums[1]), sums[2])
