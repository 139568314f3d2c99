"""State dicts: finds the weights in a checkpoint, dequantises and composes them (GPTQ, LoRA, weight norm), → layers."""
