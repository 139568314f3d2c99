"""Words in figures: escaped where plotly reads HTML, wrapped for hover labels."""

from __future__ import annotations

import html
import re
import textwrap

from ww_callbacks.integrations.quantity_info import quantity_info


def escape(text: object) -> str:
    """``text`` for a place where plotly reads HTML; a layer's name may hold anything."""
    return html.escape(str(text), quote=False)


def wrap(text: str, width: int = 72) -> str:
    """``text`` escaped and broken into lines for a hover label, what stands in backticks in bold."""
    lines = "<br>".join(escape(line) for line in textwrap.wrap(text, width) or [""])
    return re.sub(r"`([^`]*)`", r"<b>\1</b>", lines)


def explain(name: str) -> str:
    """Title and definition of a quantity, for a hover text."""
    known = quantity_info(name)
    return f"<b>{escape(known.title)}</b> ({escape(name)})" + (
        f"<br>{wrap(known.definition)}" if known.definition else ""
    )
