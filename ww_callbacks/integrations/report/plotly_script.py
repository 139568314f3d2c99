"""plotly.js as the plotly package brings it: the charting library of the page, never fetched from another host."""

from __future__ import annotations

from importlib.resources import files

from ww_callbacks.integrations.extras import require


def plotly_js() -> bytes:
    """The text of plotly.min.js.

    Raises:
        ImportError: if plotly is not installed, with what to install.
    """
    require("plotly", "figures")
    return files("plotly").joinpath("package_data", "plotly.min.js").read_bytes()
