"""ONNX files as graphs: each stored tensor is followed to the node that applies it."""
