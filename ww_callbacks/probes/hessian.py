"""The Hessian of a small network's loss and its two parts, in float64, and its rank.

Source: S. P. Singh, G. Bachmann, T. Hofmann, "Analytic Insights into Structure and Rank of Neural Network Hessian
Maps" (2021).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import torch

Loss = str | Callable[["torch.Tensor", Any], "torch.Tensor"]


def squared(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    r""":math:`\tfrac12\lVert f - y\rVert^2`, mean over samples."""
    return 0.5 * (outputs - targets).square().flatten(1).sum(1).mean()


def cosh(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    r""":math:`\sum_k \ln\cosh(f_k - y_k)`, mean over samples."""
    import torch

    difference = outputs - targets
    # ln cosh z = z + ln(1 + exp(−2z)) − ln 2, which does not overflow and is smooth at 0, unlike a form with |z|.
    return (difference + torch.nn.functional.softplus(-2 * difference) - np.log(2)).flatten(1).sum(1).mean()


def _loss_function(loss: Loss) -> Callable[[torch.Tensor, Any], torch.Tensor]:
    import torch

    known: dict[str, Callable[..., torch.Tensor]] = {
        "squared": squared,
        "cosh": cosh,
        "cross-entropy": torch.nn.functional.cross_entropy,
    }
    if callable(loss):
        return loss
    if loss not in known:
        raise ValueError(f"Expected `loss` to be a function or one of {', '.join(known)}, but got {loss!r}.")
    return known[loss]


@dataclass(frozen=True)
class FlatModel:
    """A model as a function of one flat float64 vector of its trainable parameters, leaving the model alone."""

    theta: torch.Tensor
    outputs: Callable[[torch.Tensor], torch.Tensor]
    value: Callable[[torch.Tensor], torch.Tensor]
    of_outputs: Callable[[torch.Tensor], torch.Tensor]


def flatten_model(model: torch.nn.Module, inputs: torch.Tensor, targets: torch.Tensor, loss: Loss) -> FlatModel:
    """``model`` and its loss on one batch as functions of its trainable parameters.

    Raises:
        ValueError: if nothing is trainable or the loss is unknown.
    """
    import torch

    from ww_callbacks.probes.double import check_double, check_tensor, double_copy, evaluate

    criterion = _loss_function(loss)
    tensors = double_copy(model)
    names = [name for name, p in model.named_parameters() if p.requires_grad]
    if not names:
        raise ValueError("Expected a model with trainable parameters, but every parameter is frozen.")
    shapes = [tensors[name].shape for name in names]
    sizes = [tensors[name].numel() for name in names]
    theta = torch.cat([tensors[name].reshape(-1) for name in names])
    inputs = inputs.detach().double() if inputs.is_floating_point() else inputs.detach()
    targets = targets.detach().double() if targets.is_floating_point() else targets.detach()

    def outputs(vector: torch.Tensor) -> torch.Tensor:
        parts = {n: part.view(s) for n, s, part in zip(names, shapes, vector.split(sizes), strict=True)}
        return check_double(model, check_tensor(model, evaluate(model, {**tensors, **parts}, inputs)))

    return FlatModel(
        theta, outputs, lambda vector: criterion(outputs(vector), targets), lambda out: criterion(out, targets)
    )


@dataclass(frozen=True)
class HessianParts:
    """The Hessian of the loss and what it is made of; all P × P, float64, symmetric.

    Attributes:
        loss: H = outer + functional.
        outer: the outer-product (generalised Gauss–Newton) part, Jᵀ(∇²ℓ)J.
        functional: the rest: the loss gradient times the network's second derivatives.
    """

    loss: np.ndarray
    outer: np.ndarray
    functional: np.ndarray


def hessian_parts(
    model: torch.nn.Module, inputs: torch.Tensor, targets: torch.Tensor, loss: Loss = "squared", chunk: int = 64
) -> HessianParts:
    """Loss, outer-product and functional Hessian over the trainable parameters, in float64.

    The model is read, not changed: parameters and buffers are copied to float64, and it runs in evaluation mode.

    Args:
        model: a small network; memory grows as 8·P² bytes a part.
        inputs: the batch.
        targets: what the loss takes.
        loss: ``squared``, ``cosh``, ``cross-entropy``, or a function (outputs, targets) → scalar.
        chunk: rows computed at a time; less takes less memory.

    Returns:
        The three matrices.

    Raises:
        ValueError: if nothing is trainable, the loss is unknown, or the model's output is no tensor.
        TypeError: if the model refuses float64.
    """
    import torch

    from ww_callbacks.probes.jacobian import identity_blocks
    from ww_callbacks.probes.state import undisturbed

    with undisturbed(model), torch.enable_grad():
        flat = flatten_model(model, inputs, targets, loss)
        size = flat.theta.numel()
        theta = flat.theta.requires_grad_()
        gradient = torch.autograd.grad(flat.value(theta), theta, create_graph=True)[0]
        full = torch.empty(size, size, dtype=torch.float64, device=theta.device)
        for rows, basis in identity_blocks(size, chunk, theta.device):
            full[rows] = _pull_rows(gradient, theta, basis)
        jacobian, curvature = _outputs_jacobian(flat, chunk)
        outer = jacobian.T @ (curvature @ jacobian)
        full, outer = (0.5 * (h + h.T) for h in (full, outer))
        return HessianParts(full.cpu().numpy(), outer.cpu().numpy(), (full - outer).cpu().numpy())


def _outputs_jacobian(flat: FlatModel, chunk: int) -> tuple[torch.Tensor, torch.Tensor]:
    """∂(all outputs of the batch)/∂θ, one row an output, and the loss's Hessian with respect to those outputs."""
    import torch

    from ww_callbacks.probes.jacobian import identity_blocks

    theta = flat.theta
    out = flat.outputs(theta)
    flattened = out.reshape(-1)
    jacobian = torch.empty(flattened.numel(), theta.numel(), dtype=torch.float64, device=theta.device)
    for rows, basis in identity_blocks(flattened.numel(), chunk, theta.device):
        jacobian[rows] = _pull_rows(flattened, theta, basis)
    leaf = out.detach().requires_grad_()
    gradient = torch.autograd.grad(flat.of_outputs(leaf), leaf, create_graph=True)[0].reshape(-1)
    if not gradient.requires_grad:  # a loss linear in the outputs
        return jacobian, torch.zeros(len(gradient), len(gradient), dtype=torch.float64, device=theta.device)
    curvature = _pull_rows(gradient, leaf, torch.eye(len(gradient), dtype=torch.float64, device=theta.device))
    return jacobian, curvature.reshape(len(gradient), -1)


def _pull_rows(values: torch.Tensor, at: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    """Rows · ∂values/∂at."""
    import torch

    return torch.autograd.grad(values, at, rows, retain_graph=True, is_grads_batched=True, materialize_grads=True)[0]


def symmetric_rank(matrix: np.ndarray, eps: float | None = None, scale: float | None = None) -> int:
    r"""Numerical rank of a symmetric matrix: :math:`\#\{|\lambda_i| \ge \varepsilon\,s\}`, at λ ≠ 0.

    Args:
        matrix: symmetric, float64.
        eps: relative threshold; None for the side times float64's resolution, 2.2e-16.
        scale: s; None for the largest |λ|. For a difference of matrices it is that of the minuend, whose rounding
            remains.

    Returns:
        The rank; 0 for a zero matrix.

    Raises:
        ValueError: if an element is not finite.
    """
    eigenvalues = _magnitudes(matrix)
    threshold = len(matrix) * np.finfo(np.float64).eps if eps is None else eps
    largest = eigenvalues.max(initial=0.0) if scale is None else scale
    return int(np.count_nonzero((eigenvalues >= threshold * largest) & (eigenvalues > 0)))


def _magnitudes(matrix: np.ndarray) -> np.ndarray:
    import torch

    if not np.isfinite(matrix).all():
        raise ValueError("Expected a finite Hessian, but got NaN or infinity: the loss or its derivatives overflow.")
    # torch's LAPACK reduces to tridiagonal form about three times as fast as SciPy's at this size.
    return torch.linalg.eigvalsh(torch.from_numpy(np.ascontiguousarray(matrix))).abs().numpy()


@dataclass(frozen=True)
class MeasuredRanks:
    """Numerical ranks of the three parts, and the number of parameters."""

    outer: int
    functional: int
    loss: int
    parameters: int


def hessian_ranks(
    model: torch.nn.Module, inputs: torch.Tensor, targets: torch.Tensor, loss: Loss = "squared"
) -> MeasuredRanks:
    """Numerical ranks of the loss, outer-product and functional Hessian (see :func:`hessian_parts`).

    Raises:
        ValueError, TypeError: as :func:`hessian_parts`, and if the Hessian is not finite.
    """
    parts = hessian_parts(model, inputs, targets, loss)
    magnitudes = _magnitudes(parts.loss)
    scale = float(magnitudes.max(initial=0.0))
    eps = len(parts.loss) * np.finfo(np.float64).eps
    return MeasuredRanks(
        outer=symmetric_rank(parts.outer),
        functional=symmetric_rank(parts.functional, scale=scale),
        loss=int(np.count_nonzero((magnitudes >= eps * scale) & (magnitudes > 0))),
        parameters=len(parts.loss),
    )
