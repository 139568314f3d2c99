"""Localisation of the singular vectors: the power law's tail against the bulk, both on W's smaller side."""

from __future__ import annotations

import numpy as np

from ww_callbacks.spectral.linalg.singular_vectors import Localisation, localisation, tail_and_bulk
from ww_callbacks.spectral.measuring.layer_weights import LayerWeights
from ww_callbacks.spectral.measuring.registry import quantity
from ww_callbacks.spectral.quantities.shared import on_host, once

_MEASURES = {
    "vector_entropy": ("entropy", "vector entropy", "−Σv² ln v²/ln n"),
    "vector_localization_ratio": ("localization_ratio", "localisation ratio", "‖v‖₁/‖v‖_∞"),
    "vector_participation_ratio": ("participation_ratio", "participation ratio", "‖v‖₂/‖v‖₄"),
}
"""Name of the quantity → attribute of ``Localisation``, title, formula."""


@once
def _vectors(sample: LayerWeights) -> list[Localisation]:
    return [localisation(on_host(w)) for w in sample.matrices]


def _tail_and_bulk(sample: LayerWeights, attribute: str) -> tuple[float, float]:
    vectors = _vectors(sample)
    if not np.isfinite(sample.power_law.alpha):
        return np.nan, np.nan
    values = np.concatenate([getattr(v, attribute) for v in vectors])
    return tail_and_bulk(values, np.concatenate([v.eigenvalues for v in vectors]), sample.power_law.tail)


def _declare(name: str, attribute: str, title: str, formula: str) -> None:
    def in_tail(sample: LayerWeights) -> float:
        return _tail_and_bulk(sample, attribute)[0]

    def in_bulk(sample: LayerWeights) -> float:
        return _tail_and_bulk(sample, attribute)[1]

    for part, function, range_ in (("tail", in_tail, "λ ≥ xmin"), ("bulk", in_bulk, "λ < xmin")):
        definition = f"mean {formula} of the singular vectors with {range_}"
        function.__doc__ = (
            f"{definition[0].upper()}{definition[1:]} (see ``ww_callbacks.spectral.linalg.singular_vectors``)."
        )
        quantity(
            f"{name}_{part}", title=f"{title}, {part}", definition=definition, family="localisation", cost="request"
        )(function)


for _name, (_attribute, _title, _formula) in _MEASURES.items():
    _declare(_name, _attribute, _title, _formula)
