"""A run from start to end: initial weights, saved state, resuming, exit hooks."""
