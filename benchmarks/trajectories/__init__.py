"""Small real training runs, kept as trajectories so that detectors can be replayed on them in seconds."""
