"""The callback for PyTorch Lightning."""

from ww_callbacks.lightning.callback import SpectralCallback

__all__ = ["SpectralCallback"]
