"""Models whose weights exist only after the first batch."""

from __future__ import annotations

from typing import Any


def is_lazy(model: Any) -> bool:
    """Whether a torch module has parameters without a shape yet (``nn.LazyLinear``)."""
    from torch.nn.parameter import is_lazy as lazy

    return any(lazy(parameter) for parameter in model.parameters())
