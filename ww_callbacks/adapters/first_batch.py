"""Models whose weights exist, or are final, only after the first batch."""

from __future__ import annotations

from typing import Any


def is_lazy(model: Any) -> bool:
    """Whether a torch module has parameters without a shape yet (``nn.LazyLinear``)."""
    from torch.nn.parameter import is_lazy as lazy

    return any(lazy(parameter) for parameter in model.parameters())


def normalises_at_the_first_batch(model: Any) -> bool:
    """Whether a torch module has a spectral norm whose σ is unknown before the first forward pass in training.

    ``torch.nn.utils.spectral_norm`` starts from random vectors, so weights read earlier appear many times too large;
    ``torch.nn.utils.parametrizations.spectral_norm`` iterates when it is created.
    """
    hooks = (hook for module in model.modules() for hook in dict(module._forward_pre_hooks).values())
    return any(hasattr(hook, "n_power_iterations") and hasattr(hook, "compute_weight") for hook in hooks)
