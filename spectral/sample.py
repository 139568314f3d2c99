"""One layer at one moment, with what is computed from its weights kept so that no quantity computes it twice."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from spectral.layers.spec import Array
from spectral.spectrum import singular_values


@dataclass
class LayerSample:
    """The weights of one layer at one moment: what every quantity function receives.

    Attributes:
        matrices: the layer's matrices W (rows = outputs, columns = inputs), all finite.
        initial: the same matrices at the baseline, W_0, or None.
        previous: the same matrices at the last snapshot, or None.
        seed: seed of the generator from which random nulls of this layer are drawn.
    """

    matrices: Sequence[Array]
    initial: Sequence[Array] | None = None
    previous: Sequence[Array] | None = None
    seed: int = 0
    scratch: dict[str, object] = field(default_factory=dict, repr=False)

    @cached_property
    def singular_values(self) -> list[np.ndarray]:
        """Singular values σ of each matrix, float64, descending."""
        return [singular_values(w) for w in self.matrices]

    @cached_property
    def eigenvalues(self) -> np.ndarray:
        """Eigenvalues λ = σ² of all matrices pooled, float64, ascending."""
        return np.sort(np.concatenate([s**2 for s in self.singular_values]))
