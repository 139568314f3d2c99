"""Power laws: exact Clauset fit, given limits, Hill, truncated; comparison, bootstrap, sufficiency."""
