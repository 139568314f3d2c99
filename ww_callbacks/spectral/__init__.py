"""Spectra of weights: the mathematics and the judgement of time series; arrays in, numbers out.

``analyze(model)`` measures every layer of a model or of a file once, ``compare(before, after)`` two of them layer by
layer, ``describe(model)`` says which parameters become which matrices, ``inspect(model)`` gives those matrices;
``@quantity`` declares a quantity.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

# Bound here and not on demand: the modules of the same name would otherwise take their place once they are imported.
from ww_callbacks.spectral.analysis import Analysis, analyze
from ww_callbacks.spectral.comparison import Comparison, compare

if TYPE_CHECKING:
    from ww_callbacks.spectral.layers import inspect
    from ww_callbacks.spectral.layers.parameter_table import describe
    from ww_callbacks.spectral.measuring.registry import all_quantities, quantity

__all__ = ["Analysis", "Comparison", "all_quantities", "analyze", "compare", "describe", "inspect", "quantity"]

_ON_DEMAND = {
    "all_quantities": "ww_callbacks.spectral.measuring.registry",
    "describe": "ww_callbacks.spectral.layers.parameter_table",
    "inspect": "ww_callbacks.spectral.layers",
    "quantity": "ww_callbacks.spectral.measuring.registry",
}


def __getattr__(name: str) -> Any:
    if name in _ON_DEMAND:
        return getattr(import_module(_ON_DEMAND[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
