"""Which batches updated the weights, where the user steps the optimisers."""

from __future__ import annotations

from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch.optim.optimizer import register_optimizer_step_post_hook


class OptimizerSteps:
    """Tells which batches of a manual optimisation ended in a step, Lightning's wrapper around the optimiser or not.

    Torch calls us after each step of any optimiser; those of other models are left out.

    Args:
        module: the model.
        optimizers: the optimisers that the Trainer knows.
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
        """Whether there was a step since the last call; None where no optimiser of torch steps this model."""
        stepped, self._stepped = self._stepped, False
        self._any |= stepped
        return stepped if self._trusted or self._any else None

    def end_epoch(self) -> None:
        """Trust what is seen no longer where a whole epoch has shown nothing: the user updates weights by hand."""
        self._trusted = self._any

    def close(self) -> None:
        """Be called no more."""
        self._handle.remove()
