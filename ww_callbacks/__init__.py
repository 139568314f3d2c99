"""A callback that watches the spectra of the weights during training, and warns when they show a problem.

``ww_callbacks.lightning``, ``ww_callbacks.keras`` and ``ww_callbacks.huggingface`` each provide a ``SpectralCallback``.
Use ``ww_callbacks.SpectralMonitor`` in any other loop. Importing this package imports no framework.
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
