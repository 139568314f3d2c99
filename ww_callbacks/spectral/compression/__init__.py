"""Low-rank compression of a layer: factors, error bounds and suggested ranks."""

from ww_callbacks.spectral.compression.factors import Factors, truncated_svd
from ww_callbacks.spectral.compression.randomised import (
    certified_error,
    expected_error,
    expected_truncation_error,
    randomised_svd,
    range_finder,
    range_to_tolerance,
)
from ww_callbacks.spectral.compression.suggest import SuggestedRanks, suggest_ranks
from ww_callbacks.spectral.compression.table import compression_table

__all__ = [
    "Factors",
    "SuggestedRanks",
    "certified_error",
    "compression_table",
    "expected_error",
    "expected_truncation_error",
    "randomised_svd",
    "range_finder",
    "range_to_tolerance",
    "suggest_ranks",
    "truncated_svd",
]
