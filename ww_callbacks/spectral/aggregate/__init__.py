"""Statistics over the layers of a model, and over models."""

from ww_callbacks.spectral.aggregate.alpha_flow import CorrelationFlow, correlation_flow
from ww_callbacks.spectral.aggregate.model_ranking import ModelSeries, model_series
from ww_callbacks.spectral.aggregate.tail_start import TailRank, tail_rank

__all__ = ["CorrelationFlow", "ModelSeries", "TailRank", "correlation_flow", "model_series", "tail_rank"]
