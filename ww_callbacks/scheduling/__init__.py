"""When and where a snapshot is taken: cadence, budget, background, processes."""
