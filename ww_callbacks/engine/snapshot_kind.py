"""What a snapshot measures."""

from __future__ import annotations

from typing import Literal

Kind = Literal["full", "cheap"]
