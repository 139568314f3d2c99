"""Text in figures: escaped for plotly's HTML, wrapped for hover labels."""

from __future__ import annotations

import html
import re
import textwrap

from ww_callbacks.integrations.quantity_info import quantity_info


def escape(text: object) -> str:
    """``text`` escaped for plotly's HTML; a layer's name may contain any character."""
    return html.escape(str(text), quote=False)


def wrap(text: str, width: int = 72) -> str:
    """``text`` escaped and wrapped for a hover label, with text in backticks in bold."""
    lines = "<br>".join(escape(line) for line in textwrap.wrap(text, width) or [""])
    return re.sub(r"`([^`]*)`", r"<b>\1</b>", lines)


def explain(name: str) -> str:
    """Title and definition of a quantity, for a hover text."""
    known = quantity_info(name)
    return f"<b>{escape(known.title)}</b> ({escape(name)})" + (
        f"<br>{wrap(known.definition)}" if known.definition else ""
    )
