"""State dicts and checkpoints in memory: which arrays are weights, which make one weight together, and their layers."""
