"""Lightning's two packages: ``lightning.pytorch`` and ``pytorch_lightning`` hold the same classes twice."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec


def callback_classes() -> tuple[type, ...]:
    """The class ``Callback`` of each package that is installed.

    A Trainer runs callbacks of either package; ``LightningCLI`` accepts only those of its own. Importing the second
    package takes about 50 ms.

    Raises:
        ImportError: if neither is installed.
    """
    found: list[type] = []
    for name in ("pytorch_lightning", "lightning.pytorch"):
        if find_spec(name.partition(".")[0]) is None:
            continue
        try:
            found.append(import_module(f"{name}.callbacks").Callback)
        except ImportError:  # `lightning` without its `pytorch` part
            continue
    if not found:
        raise ImportError('ww_callbacks.lightning needs PyTorch Lightning: pip install "ww-callbacks[lightning]"')
    return tuple(found)
