"""Running a model on the side without leaving a trace."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch


@contextmanager
def random_states_kept(model: torch.nn.Module | None = None) -> Iterator[None]:
    """Restore the random states of Python, NumPy and torch (on the devices of ``model``) at the end.

    Imports count too: some libraries draw numbers when they are first loaded.
    """
    import torch

    python_state, numpy_state = random.getstate(), np.random.get_state()
    devices = [] if model is None else sorted({p.device.index or 0 for p in model.parameters() if p.is_cuda})
    with torch.random.fork_rng(devices=devices):
        try:
            yield
        finally:
            random.setstate(python_state)
            np.random.set_state(numpy_state)


@contextmanager
def undisturbed(model: torch.nn.Module) -> Iterator[None]:
    """Put ``model`` into evaluation mode and restore afterwards, also after an exception, bit for bit.

    Restored: each module's own train/eval flag, every buffer (BatchNorm's statistics and counter, and those that a
    module writes in evaluation mode too), and the random states of Python, NumPy and torch on every device in use, for
    modules that draw random numbers in evaluation mode. Parameters and their gradients are not written.

    Inside, compiled code and the fused attention kernels are bypassed: they would skip hooks and forward-mode
    derivatives.
    """
    import torch

    modes = [(module, module.training) for module in model.modules()]
    buffers = [(buffer, buffer.detach().clone()) for buffer in model.buffers()]
    fast_path = torch.backends.mha.get_fastpath_enabled()
    with ExitStack() as stack:
        stack.enter_context(random_states_kept(model))
        stack.enter_context(torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH))
        if hasattr(torch.compiler, "set_stance"):  # torch 2.6
            stack.enter_context(torch.compiler.set_stance("force_eager"))
        try:
            torch.backends.mha.set_fastpath_enabled(False)
            # Set one by one: train() and eval() may be overridden, or return early.
            for module, _ in modes:
                module.training = False
            yield
        finally:
            for module, training in modes:
                module.training = training
            _restore(buffers)
            torch.backends.mha.set_fastpath_enabled(fast_path)


def _restore(buffers: list[tuple[torch.Tensor, torch.Tensor]]) -> None:
    import torch

    with torch.no_grad():
        for buffer, before in buffers:
            # Written only if it differs: an in-place write counts as a change in autograd's eyes. NaN equals nothing,
            # so a buffer that holds one is written, which is harmless.
            if not torch.equal(buffer, before):
                buffer.copy_(before)
