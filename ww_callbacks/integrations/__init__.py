"""Sinks and views: the record, TensorBoard, W&B, the console, and the views built on the record."""
