"""Sinks and views: the record file, TensorBoard, W&B, the console, and the views built on the record."""
