"""Explains which Keras backend is missing: Keras installs none, and its error does not say how to choose one."""

from __future__ import annotations

import os
from importlib.util import find_spec

BACKENDS = ("tensorflow", "torch", "jax")
"""The tested backends; each is also the name of its package."""


def what_is_missing(error: ImportError) -> str:
    """What is missing for ``import keras``, and how to install it.

    Args:
        error: what ``import keras`` raised.

    Examples:
        >>> what_is_missing(ModuleNotFoundError(name="keras")).partition(": ")[2]
        'pip install "ww-callbacks[keras]" and one of tensorflow, torch, jax.'
    """
    missing = (error.name or "").partition(".")[0]
    if missing == "keras":
        return (
            'ww_callbacks.keras needs Keras 3 and one of its backends: pip install "ww-callbacks[keras]" and one of '
            f"{', '.join(BACKENDS)}."
        )
    asked = os.environ.get("KERAS_BACKEND")
    if missing not in BACKENDS:
        return f"Keras cannot be imported: {error}"
    chosen = (
        f"KERAS_BACKEND={asked} asks for the backend `{missing}`"
        if asked
        else f"The environment variable KERAS_BACKEND is not set, so Keras uses `{missing}`"
    )
    installed = [name for name in BACKENDS if name != missing and _is_installed(name)]
    other = (
        f"set KERAS_BACKEND={installed[0]} before Keras is imported ({' and '.join(installed)} "
        f"{'is' if len(installed) == 1 else 'are'} installed)"
        if installed
        else f"install another ({', '.join(name for name in BACKENDS if name != missing)}) and set KERAS_BACKEND to it"
    )
    return f"{chosen}, which is not installed: {other}, or pip install {missing}."


def _is_installed(name: str) -> bool:
    try:
        return find_spec(name) is not None
    except (ImportError, ValueError):
        return False
