"""Default sinks besides the record, for loops without loggers."""

from __future__ import annotations

import sys
from importlib.util import find_spec

from ww_callbacks.integrations.sinks.sink import Sink
from ww_callbacks.settings import Settings


def default_sinks(settings: Settings) -> list[Sink]:
    """TensorBoard event files next to the record, if TensorBoard is installed, and the active W&B run, if there is
    one.
    """
    sinks: list[Sink] = []
    if find_spec("tensorboard") is not None:
        from ww_callbacks.integrations.sinks.tensorboard import TensorBoardSink

        sinks.append(TensorBoardSink(per_layer=settings.per_layer, histograms=settings.histograms))
    wandb = sys.modules.get("wandb")
    if wandb is not None and getattr(wandb, "run", None) is not None:
        from ww_callbacks.integrations.sinks.wandb import WandbSink

        sinks.append(WandbSink(wandb.run, per_layer=settings.per_layer, histograms=settings.histograms))
    return sinks
