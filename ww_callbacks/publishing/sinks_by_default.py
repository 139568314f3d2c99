"""Where records go besides the record itself, where the loop has no loggers of its own."""

from __future__ import annotations

import sys
from importlib.util import find_spec

from ww_callbacks.integrations.sinks.sink import Sink
from ww_callbacks.settings import Settings


def default_sinks(settings: Settings) -> list[Sink]:
    """TensorBoard event files beside the record, where that is installed, and the W&B run that is open, if one is."""
    sinks: list[Sink] = []
    if find_spec("tensorboard") is not None:
        from ww_callbacks.integrations.sinks.tensorboard import TensorBoardSink

        sinks.append(TensorBoardSink(per_layer=settings.per_layer, histograms=settings.histograms))
    wandb = sys.modules.get("wandb")
    if wandb is not None and getattr(wandb, "run", None) is not None:
        from ww_callbacks.integrations.sinks.wandb import WandbSink

        sinks.append(WandbSink(wandb.run, per_layer=settings.per_layer, histograms=settings.histograms))
    return sinks
