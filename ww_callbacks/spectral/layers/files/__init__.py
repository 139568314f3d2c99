"""Weights in files → layers: safetensors, torch, GGUF, ONNX, Keras, folders, and state dicts in memory."""
