"""The callback for Keras 3."""

from ww_callbacks.keras.callback import SpectralCallback

__all__ = ["SpectralCallback"]
