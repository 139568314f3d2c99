"""Optional packages: checked early, imported late."""

from __future__ import annotations

import importlib.util


def require(module: str, extra: str) -> None:
    """Check, without importing it, that ``module`` is installed.

    Raises:
        ImportError: if it is not; the message names the extra that installs it.
    """
    found = importlib.util.find_spec(module)
    if found is None or found.origin is None:  # no origin: a mere folder of that name (wandb creates one)
        raise ImportError(
            f'`{module}` is not installed. It comes with: pip install "ww-callbacks[{extra}]"', name=module
        )
