"""Saves figures to files."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from ww_callbacks.integrations.extras import require

if TYPE_CHECKING:
    import plotly.graph_objects as go

IMAGES = (".png", ".svg", ".pdf", ".jpg", ".webp")


def save(
    figure: go.Figure, path: str | os.PathLike[str], width: int = 1100, height: int | None = None, scale: float = 2
) -> Path:
    """Write ``figure`` in the format of the file extension: PNG, SVG, PDF, JPG, WEBP, HTML or JSON.

    Images are drawn by kaleido, which needs Chrome or Chromium. HTML is a single file that opens without a network.

    Args:
        figure: the figure.
        path: the file.
        width: in pixels.
        height: in pixels; None keeps the figure's height.
        scale: bitmap pixels per pixel of the figure.

    Raises:
        ValueError: if the extension is none of these.
        ImportError: if kaleido is needed and not installed.
    """
    target = Path(path)
    ending = target.suffix.lower()
    if ending == ".html":
        # Without plotly's button that uploads the figure.
        figure.write_html(target, include_plotlyjs=True, config={"showSendToCloud": False, "plotlyServerURL": ""})
    elif ending == ".json":
        figure.write_json(target)
    elif ending in IMAGES:
        require("kaleido", "figures")
        figure.write_image(target, width=width, height=height or figure.layout.height, scale=scale)
    else:
        raise ValueError(f"Expected a name that ends with {', '.join(IMAGES)}, .html or .json, got `{target.name}`.")
    return target
