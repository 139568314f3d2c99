"""PEFT adapters in folders: their scaling, and the base weights with their updates."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import orjson

from ww_callbacks.spectral.layers.names import renaming

Scaling = Callable[[str, int], float]

_FACTOR = re.compile(r"^(?P<layer>.*?)\.(?P<rest>lora_(embedding_)?[AB]\b.*|lora_magnitude_vector\b.*)$")


def scaling_of(config: Path) -> Scaling | None:
    """PEFT's scaling α/r (α/√r if rank-stabilised) of a layer, from the adapter's configuration; None without LoRA.

    Raises:
        ValueError: if the configuration is not readable.
    """
    try:
        settings = orjson.loads(config.read_bytes())
        if settings.get("peft_type", "LORA") != "LORA":
            return None
        alpha, patterns = float(settings["lora_alpha"]), dict(settings.get("alpha_pattern") or {})
        stabilised = bool(settings.get("use_rslora"))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{config} is not a readable adapter configuration: {error}.") from error

    def scaling(layer: str, rank: int) -> float:
        own = next((float(a) for key, a in patterns.items() if layer == key or layer.endswith(f".{key}")), alpha)
        return own / (math.sqrt(rank) if stabilised else rank)

    return scaling


def on_base(adapter: Mapping[str, Any], base: Mapping[str, Any]) -> dict[str, Any]:
    """The arrays of ``base``, with the factors of ``adapter`` added next to the weights that they change.

    Raises:
        ValueError: if the adapter changes layers that the base does not have.
    """
    named = {name.removeprefix("base_model.model."): value for name, value in adapter.items()}
    factors = {name: match for name in named if (match := _FACTOR.match(name))}
    changed = {f"{match['layer']}.weight": None for match in factors.values()}
    whole = {name: tuple(value.shape) for name, value in named.items() if name not in factors}
    theirs = renaming({**changed, **whole}, {name: tuple(value.shape) for name, value in base.items()}).theirs
    if missing := [name for name in changed if name not in theirs]:
        raise ValueError(
            f"The adapter changes layers that the base does not have: {', '.join(missing[:3])}"
            f"{', …' if len(missing) > 3 else ''}. Pass the model that it was trained on."
        )
    merged = dict(base)
    for name, value in named.items():
        if name in factors:
            match = factors[name]
            layer = theirs[f"{match['layer']}.weight"].removesuffix(".weight")
            merged[f"{layer}.{match['rest']}"] = value
        else:
            merged[theirs.get(name, name)] = value
    return merged
