"""plotly.js as the plotly package brings it: the charting library of the page, never fetched from another host."""

from __future__ import annotations

import importlib.util
from pathlib import Path


def plotly_js() -> bytes:
    """The text of plotly.min.js.

    Raises:
        ImportError: if plotly is not installed, with what to install.
    """
    package = importlib.util.find_spec("plotly")
    if package is None or package.origin is None:
        raise ImportError('The views need plotly: pip install "ww-callbacks[figures]" (or [tensorboard]).')
    return (Path(package.origin).parent / "package_data" / "plotly.min.js").read_bytes()
