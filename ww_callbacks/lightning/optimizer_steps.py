"""Detects which batches updated the weights under manual optimisation."""

from __future__ import annotations

from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch.optim.optimizer import register_optimizer_step_post_hook


class OptimizerSteps:
    """Detects which batches of a manual optimisation ended in a step, with or without Lightning's optimiser wrapper.

    Uses torch's global hook after each optimiser step; optimisers of other models are ignored.

    Args:
        module: the model.
        optimizers: the optimisers of the Trainer.
    """

    def __init__(self, module: torch.nn.Module, optimizers: list[Any]) -> None:
        self._module = module
        self._ours: WeakKeyDictionary[Any, bool] = WeakKeyDictionary()
        self._stepped = self._any = False
        self._trusted = any(isinstance(o, torch.optim.Optimizer) for o in optimizers)
        self._handle = register_optimizer_step_post_hook(self._note)

    def _note(self, optimizer: Any, *arguments: Any) -> None:
        if optimizer not in self._ours:
            known = {id(p) for p in self._module.parameters()}
            self._ours[optimizer] = any(id(p) in known for group in optimizer.param_groups for p in group["params"])
        self._stepped |= self._ours[optimizer]

    def take(self) -> bool | None:
        """Whether there was a step since the last call; None if no torch optimiser steps this model."""
        stepped, self._stepped = self._stepped, False
        self._any |= stepped
        return stepped if self._trusted or self._any else None

    def end_epoch(self) -> None:
        """Stop relying on the hook if a whole epoch had no step: the user updates the weights directly."""
        self._trusted = self._any

    def close(self) -> None:
        """Remove the hook."""
        self._handle.remove()
