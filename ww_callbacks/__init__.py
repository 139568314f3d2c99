"""One callback that watches the spectra of the weights while a model trains, and says when they go wrong.

``ww_callbacks.lightning``, ``ww_callbacks.keras`` and ``ww_callbacks.huggingface`` each hold a ``SpectralCallback``;
``ww_callbacks.SpectralMonitor`` serves any other loop. Importing this package imports no framework.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ww_callbacks.monitor import SpectralMonitor

__all__ = ["SpectralMonitor", "__version__"]
__version__ = "0.1.0"


def __getattr__(name: str) -> object:
    if name == "SpectralMonitor":
        from ww_callbacks.monitor import SpectralMonitor

        return SpectralMonitor
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
