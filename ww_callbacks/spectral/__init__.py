"""Spectra of weights: formulas and detectors, independent of any trainer.

``analyze(model)`` measures every layer of a model or a file. ``compare(before, after)`` compares two sets of weights
layer by layer. ``describe(model)`` lists which parameters become which matrices, and ``inspect(model)`` returns these
matrices. ``@quantity`` declares a new quantity.

The formulas are functions of arrays: ``effective_rank(singular_values)``, ``fit_power_law(eigenvalues)``,
``distance_from_init(w, w0)``, …; :data:`FORMULAS` lists them. Each is imported on first use.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from ww_callbacks.spectral.analysis import Analysis, analyze
from ww_callbacks.spectral.comparison import Comparison, compare

if TYPE_CHECKING:
    from ww_callbacks.spectral.fits.bootstrap import bootstrap_interval, bootstrap_p_value
    from ww_callbacks.spectral.fits.clauset import PowerLawFit
    from ww_callbacks.spectral.fits.clauset import clauset_fit as fit_power_law
    from ww_callbacks.spectral.fits.hill import hill_alpha, hill_fit
    from ww_callbacks.spectral.fits.interval import alpha_interval
    from ww_callbacks.spectral.fits.truncated import truncated_fit
    from ww_callbacks.spectral.layers import inspect
    from ww_callbacks.spectral.layers.parameter_table import describe
    from ww_callbacks.spectral.linalg.spectrum import singular_values
    from ww_callbacks.spectral.measuring.registry import all_quantities, quantity
    from ww_callbacks.spectral.quantities.change.distance import (
        cosine_to_init,
        distance_from_init,
        relative_distance_from_init,
    )
    from ww_callbacks.spectral.quantities.change.scale import scale_collapse
    from ww_callbacks.spectral.quantities.norms import log_median_singular_value, log_norm, log_spectral_norm
    from ww_callbacks.spectral.quantities.ranks import (
        effective_rank,
        entropy,
        matrix_entropy,
        matrix_rank,
        participation_ratio,
        stable_rank,
    )
    from ww_callbacks.spectral.quantities.tail.determinant import determinant_tail
    from ww_callbacks.spectral.random_matrix import marchenko_pastur, tracy_widom
    from ww_callbacks.spectral.random_matrix.spikes import find_spikes
    from ww_callbacks.spectral.random_matrix.traps import correlation_traps

FORMULAS = {
    "alpha_interval": "fits.interval",
    "bootstrap_interval": "fits.bootstrap",
    "bootstrap_p_value": "fits.bootstrap",
    "correlation_traps": "random_matrix.traps",
    "cosine_to_init": "quantities.change.distance",
    "determinant_tail": "quantities.tail.determinant",
    "distance_from_init": "quantities.change.distance",
    "effective_rank": "quantities.ranks",
    "entropy": "quantities.ranks",
    "find_spikes": "random_matrix.spikes",
    "fit_power_law": "fits.clauset",
    "hill_alpha": "fits.hill",
    "hill_fit": "fits.hill",
    "log_median_singular_value": "quantities.norms",
    "log_norm": "quantities.norms",
    "log_spectral_norm": "quantities.norms",
    "matrix_entropy": "quantities.ranks",
    "matrix_rank": "quantities.ranks",
    "participation_ratio": "quantities.ranks",
    "relative_distance_from_init": "quantities.change.distance",
    "scale_collapse": "quantities.change.scale",
    "singular_values": "linalg.spectrum",
    "stable_rank": "quantities.ranks",
    "truncated_fit": "fits.truncated",
}
"""The formulas on arrays, and the module of each."""

_OTHERS = {
    "PowerLawFit": "fits.clauset",
    "all_quantities": "measuring.registry",
    "describe": "layers.parameter_table",
    "inspect": "layers",
    "quantity": "measuring.registry",
}
_MODULES = {"marchenko_pastur": "random_matrix.marchenko_pastur", "tracy_widom": "random_matrix.tracy_widom"}

__all__ = [
    "FORMULAS",
    "Analysis",
    "Comparison",
    "PowerLawFit",
    "all_quantities",
    "alpha_interval",
    "analyze",
    "bootstrap_interval",
    "bootstrap_p_value",
    "compare",
    "correlation_traps",
    "cosine_to_init",
    "describe",
    "determinant_tail",
    "distance_from_init",
    "effective_rank",
    "entropy",
    "find_spikes",
    "fit_power_law",
    "hill_alpha",
    "hill_fit",
    "inspect",
    "log_median_singular_value",
    "log_norm",
    "log_spectral_norm",
    "marchenko_pastur",
    "matrix_entropy",
    "matrix_rank",
    "participation_ratio",
    "quantity",
    "relative_distance_from_init",
    "scale_collapse",
    "singular_values",
    "stable_rank",
    "tracy_widom",
    "truncated_fit",
]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return import_module(f"{__name__}.{_MODULES[name]}")
    where = FORMULAS.get(name) or _OTHERS.get(name)
    if where is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{where}"), {"fit_power_law": "clauset_fit"}.get(name, name))


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
