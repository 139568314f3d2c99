"""The versions of the packages that a record should name."""

from __future__ import annotations

import platform
from importlib import metadata

_PACKAGES = (
    "ww-callbacks",
    "numpy",
    "scipy",
    "torch",
    "pytorch-lightning",
    "lightning",
    "keras",
    "jax",
    "transformers",
)


def versions() -> dict[str, str]:
    """Package → version, of Python and of those that are installed."""
    found = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found
