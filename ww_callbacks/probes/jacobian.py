"""Gram matrices of Jacobians with respect to a patch of the input, by forward- or reverse-mode differentiation."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

Local = Callable[[torch.Tensor], tuple[torch.Tensor, ...]]
"""The patch's elements → features of each layer, flat."""


def to_numpy(tensor: torch.Tensor) -> np.ndarray:
    """``tensor`` in float64 on the host."""
    return tensor.detach().double().cpu().numpy()


@dataclass(frozen=True)
class Patch:
    """A square patch of the input images, or the whole input where it is no image.

    Attributes:
        size: side in pixels.
        corner: row and column of its upper left corner; None for the centre.
    """

    size: int = 16
    corner: tuple[int, int] | None = None

    def mask(self, sample: torch.Tensor) -> torch.Tensor:
        """Flat indices of the patch's elements in one sample (channels, rows, columns) or of any other shape.

        Raises:
            ValueError: if the patch is not inside the image.
        """
        index = torch.arange(sample.numel(), device=sample.device).reshape(sample.shape)
        if sample.ndim != 3:
            return index.reshape(-1)
        rows, columns = sample.shape[1:]
        size = min(self.size, rows, columns) if self.corner is None else self.size
        top, left = self.corner or ((rows - size) // 2, (columns - size) // 2)
        if top < 0 or left < 0 or top + size > rows or left + size > columns:
            raise ValueError(f"Expected the patch inside the {rows}×{columns} image, but got {self}.")
        return index[:, top : top + size, left : left + size].reshape(-1)


def groups(names: Sequence[str], sizes: Mapping[str, int], limit: float) -> Iterator[list[str]]:
    """Consecutive names whose sizes together stay below ``limit``.

    Raises:
        ValueError: if a single one does not.
    """
    group: list[str] = []
    used = 0
    for name in names:
        if sizes[name] > limit:
            raise ValueError(
                f"Expected a layer with at most {limit:.0f} features for a Jacobian in memory, but `{name}` has "
                f"{sizes[name]}: allow more `memory`, or choose a smaller patch or other layers."
            )
        if group and used + sizes[name] > limit:
            yield group
            group, used = [], 0
        group.append(name)
        used += sizes[name]
    if group:
        yield group


def identity_blocks(side: int, chunk: int, device: torch.device) -> Iterator[tuple[slice, torch.Tensor]]:
    """The rows of the float64 identity, ``chunk`` at a time, with their positions."""
    for start in range(0, side, chunk):
        rows = slice(start, min(start + chunk, side))
        block = torch.zeros(rows.stop - start, side, dtype=torch.float64, device=device)
        block[torch.arange(len(block)), torch.arange(start, rows.stop)] = 1
        yield rows, block


def forward_grams(
    local: Local, at: torch.Tensor, wanted: Sequence[int], sizes: Sequence[int], chunk: int
) -> list[np.ndarray]:
    """JᵀJ of each wanted output, J column by column."""
    side = at.numel()
    columns = [torch.empty(side, size, dtype=torch.float64, device=at.device) for size in sizes]

    def push(direction: torch.Tensor) -> tuple[torch.Tensor, ...]:
        tangents = torch.func.jvp(local, (at,), (direction,))[1]
        return tuple(tangents[i] for i in wanted)

    for rows, basis in identity_blocks(side, chunk, at.device):
        pushed: tuple[torch.Tensor, ...] = torch.func.vmap(push, randomness="same")(basis)
        for kept, new in zip(columns, pushed, strict=True):
            kept[rows] = new
    return [to_numpy(c @ c.T) for c in columns]


def reverse_grams(local: Local, at: torch.Tensor, chunk: int) -> list[np.ndarray]:
    """JJᵀ of each output, J row by row."""
    outputs, pull = torch.func.vjp(local, at)[:2]
    grams = []
    for i, out in enumerate(outputs):

        def pull_one(cotangent: torch.Tensor, i: int = i) -> torch.Tensor:
            return pull(tuple(cotangent if j == i else torch.zeros_like(o) for j, o in enumerate(outputs)))[0]

        blocks = [
            torch.func.vmap(pull_one, randomness="same")(basis)
            for _, basis in identity_blocks(out.numel(), chunk, at.device)
        ]
        jacobian = torch.cat(blocks)
        grams.append(to_numpy(jacobian @ jacobian.T))
    return grams
