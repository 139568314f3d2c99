"""Localisation of the singular vectors: the power law's tail against the bulk, both on W's smaller side."""

from __future__ import annotations

from typing import cast

import numpy as np

from spectral.arrays import as_array, on_accelerator
from spectral.localisation import Localisation, localisation, tail_and_bulk
from spectral.registry import quantity
from spectral.sample import LayerSample

_MEASURES = {
    "vector_entropy": ("entropy", "vector entropy", "−Σv² ln v²/ln n"),
    "vector_localization_ratio": ("localization_ratio", "localisation ratio", "‖v‖₁/‖v‖_∞"),
    "vector_participation_ratio": ("participation_ratio", "participation ratio", "‖v‖₂/‖v‖₄"),
}
"""Name of the quantity → attribute of ``Localisation``, title, formula."""


def _vectors(sample: LayerSample) -> list[Localisation]:
    if "localisation" not in sample.scratch:
        hosts = [as_array(w.cpu() if on_accelerator(w) else w) for w in sample.matrices]
        sample.scratch["localisation"] = [localisation(w) for w in hosts]
    return cast(list[Localisation], sample.scratch["localisation"])


def _tail_and_bulk(sample: LayerSample, attribute: str) -> tuple[float, float]:
    vectors = _vectors(sample)
    values = np.concatenate([getattr(v, attribute) for v in vectors])
    return tail_and_bulk(values, np.concatenate([v.eigenvalues for v in vectors]), sample.power_law.xmin)


def _declare(name: str, attribute: str, title: str, formula: str) -> None:
    def in_tail(sample: LayerSample) -> float:
        return _tail_and_bulk(sample, attribute)[0]

    def in_bulk(sample: LayerSample) -> float:
        return _tail_and_bulk(sample, attribute)[1]

    for part, function, range_ in (("tail", in_tail, "λ ≥ xmin"), ("bulk", in_bulk, "λ < xmin")):
        definition = f"mean {formula} of the singular vectors with {range_}"
        function.__doc__ = f"{definition[0].upper()}{definition[1:]} (see ``spectral.localisation``)."
        quantity(
            f"{name}_{part}", title=f"{title}, {part}", definition=definition, family="localisation", cost="request"
        )(function)


for _name, (_attribute, _title, _formula) in _MEASURES.items():
    _declare(_name, _attribute, _title, _formula)
