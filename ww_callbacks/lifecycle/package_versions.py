"""The versions of the packages that are stored in a record."""

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
    """Package → version, for Python and the installed packages."""
    found = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found
