"""The callback for the Hugging Face Trainer."""

from ww_callbacks.huggingface.callback import SpectralCallback

__all__ = ["SpectralCallback"]
