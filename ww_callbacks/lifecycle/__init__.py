"""A run from start to end: saved state, resuming, exit hooks, errors of our own."""
