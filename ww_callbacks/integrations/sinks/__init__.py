"""Sinks: where a run sends its snapshots, alerts and verdict. TensorBoard, W&B, the console, any logger of scalars."""
