"""Optional packages: asked for early, imported late."""

from __future__ import annotations

import importlib.util


def require(module: str, extra: str) -> None:
    """Make sure, without importing it, that ``module`` is installed.

    Raises:
        ImportError: if it is not, naming the extra that brings it.
    """
    found = importlib.util.find_spec(module)
    if found is None or found.origin is None:  # without an origin: a mere folder of that name, as wandb makes one
        raise ImportError(
            f'`{module}` is not installed. It comes with: pip install "ww-callbacks[{extra}]"', name=module
        )
