"""Numbers over the layers of a model, and over models."""

from spectral.across.correlation_flow import CorrelationFlow, correlation_flow
from spectral.across.model_series import ModelSeries, model_series
from spectral.across.tail_rank import TailRank, tail_rank

__all__ = ["CorrelationFlow", "ModelSeries", "TailRank", "correlation_flow", "model_series", "tail_rank"]
