"""Runs a copy of a model in double precision."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

_REFUSES = (
    "Ranks of derivatives need double precision, but `{model}` refuses it ({why}). Remove casts such as `.float()` "
    "from its forward, or measure only the features' ranks."
)

_PROBE_REFUSES = (
    "Expected a model that runs in float64, which `jacobian_rank` and `perturbed_pca_dimension` need, but `{model}` "
    "refuses it ({why}). Remove casts such as `.float()` and checks of the dtype from its forward, or leave these "
    "quantities out."
)


def double_copy(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Parameters and buffers by name, detached, floating-point ones in float64; the model is unchanged."""
    return {
        # Cloned if no conversion is needed, so that a module that writes its buffers writes to the copy.
        name: tensor.detach().to(_double(tensor), copy=True)
        for name, tensor in itertools.chain(model.named_parameters(), model.named_buffers())
    }


def _double(tensor: torch.Tensor) -> torch.dtype:
    import torch

    return torch.float64 if tensor.is_floating_point() else tensor.dtype


def check_runs_in_double(model: torch.nn.Module, inputs: torch.Tensor) -> None:
    """Run ``model`` in float64; it has already run on ``inputs`` in its own precision.

    Raises:
        TypeError: if it cannot; the message contains the model's error.
    """
    import torch
    from torch.func import functional_call

    try:
        functional_call(model, double_copy(model), (inputs,))
    except (MemoryError, torch.cuda.OutOfMemoryError):
        raise
    except Exception as error:  # the user's code may raise anything
        reason = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        raise refusal(model, reason) from error


def refusal(model: torch.nn.Module, why: str) -> TypeError:
    """The error for a model without float64, which names what needs it."""
    return TypeError(_PROBE_REFUSES.format(model=type(model).__name__, why=why))


def evaluate(model: torch.nn.Module, tensors: dict[str, torch.Tensor], inputs: Any) -> Any:
    """The model's output with the float64 ``tensors`` as its parameters and buffers.

    Raises:
        TypeError: if the model refuses float64.
    """
    from torch.func import functional_call

    try:
        return functional_call(model, tensors, (inputs,))
    except RuntimeError as error:
        # torch says "expected m1 and m2 to have the same dtype", "expected scalar type Float but found Double", …
        if any(word in str(error) for word in ("dtype", "scalar type", "Double", "double")):
            raise TypeError(_REFUSES.format(model=type(model).__name__, why=error)) from error
        raise


def check_double(model: torch.nn.Module, output: torch.Tensor) -> torch.Tensor:
    """``output``, checked to be in float64.

    Raises:
        TypeError: if it is not, because the model casts somewhere.
    """
    import torch

    if output.dtype != torch.float64:
        raise TypeError(_REFUSES.format(model=type(model).__name__, why=f"float64 went in and {output.dtype} came out"))
    return output


def check_tensor(model: Any, output: Any) -> Any:
    """``output``, checked to be a tensor.

    Raises:
        ValueError: if it is not; the message contains the remedy.
    """
    import torch

    if not isinstance(output, torch.Tensor):
        raise ValueError(
            f"Expected the output of `{type(model).__name__}` for the probe batch to be a tensor, "
            f"but got {type(output).__name__}. Say where the tensor is, for example `output=lambda out: out.logits`."
        )
    return output
