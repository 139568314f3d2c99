"""The Hessian of a small network's loss and its two parts, in float64, and its rank.

Source: S. P. Singh, G. Bachmann, T. Hofmann, "Analytic Insights into Structure and Rank of Neural Network Hessian
Maps" (2021).
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import torch

Loss = str | Callable[["torch.Tensor", Any], "torch.Tensor"]


def squared(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    r""":math:`\tfrac12\sum_k (f_k - y_k)^2`, sum over outputs, mean over samples.

    torch's ``mse_loss`` is this times 2 / (number of outputs). The factor scales eigenvalues, not ranks.

    Raises:
        ValueError: if the two differ in shape.
    """
    _check_same_shape(outputs, targets)
    return 0.5 * (outputs - targets).square().sum() / len(outputs)


def cosh(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    r""":math:`\sum_k \ln\cosh(f_k - y_k)`, sum over outputs, mean over samples.

    Raises:
        ValueError: if the two differ in shape.
    """
    import torch

    _check_same_shape(outputs, targets)
    difference = outputs - targets
    # ln cosh z = z + ln(1 + exp(−2z)) − ln 2, which does not overflow and is smooth at 0, unlike a form with |z|.
    return (difference + torch.nn.functional.softplus(-2 * difference) - np.log(2)).sum() / len(outputs)


def cross_entropy(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    r""":math:`-\ln\operatorname{softmax}(f)_y`, natural logarithm, mean over samples (and positions).

    Raises:
        ValueError: if the targets are neither one class a sample nor one probability a sample and class.
    """
    import torch

    one_a_sample = outputs.shape[:1] + outputs.shape[2:]
    expected = outputs.shape if targets.is_floating_point() else one_a_sample
    if outputs.ndim < 2 or targets.shape != expected:
        raise ValueError(
            "Expected outputs of shape (samples, classes, …) and as targets one class a sample, as integers, or one "
            f"probability a sample and class, but got outputs of shape {tuple(outputs.shape)} and {targets.dtype} "
            f"targets of shape {tuple(targets.shape)}. {_remedy(targets, expected, one_a_sample)}"
        )
    return torch.nn.functional.cross_entropy(outputs, targets)


def _remedy(targets: torch.Tensor, expected: tuple[int, ...], one_a_sample: tuple[int, ...]) -> str:
    if targets.is_floating_point() and targets.shape == one_a_sample:
        return "Give classes as integers: `targets.long()`."
    if targets.shape == (*one_a_sample, 1):
        return "Drop the last axis: `targets[..., 0].long()`."
    return f"Give targets of shape {tuple(expected)}."


def _check_same_shape(outputs: torch.Tensor, targets: torch.Tensor) -> None:
    # Broadcasting would pair every output with every target: a wrong loss, without an error.
    if outputs.shape == targets.shape:
        return
    column = outputs.shape == (*targets.shape, 1)
    raise ValueError(
        f"Expected targets of the outputs' shape {tuple(outputs.shape)}, but got {tuple(targets.shape)}. "
        + ("Make them a column: `targets[:, None]`." if column else "Give one target for each output of each sample.")
    )


def _loss_function(loss: Loss) -> Callable[[torch.Tensor, Any], torch.Tensor]:
    known: dict[str, Callable[..., torch.Tensor]] = {
        "squared": squared,
        "cosh": cosh,
        "cross-entropy": cross_entropy,
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
    rows: int  # outputs of the whole batch


def flatten_model(model: torch.nn.Module, inputs: torch.Tensor, targets: torch.Tensor, loss: Loss) -> FlatModel:
    """``model`` and its loss on one batch as functions of its trainable parameters; runs the model once as a check.

    Raises:
        ValueError: if nothing is trainable, the loss is unknown, the targets do not fit the outputs, the model's output
            is no tensor, or a parameter, the batch or the loss is not finite.
        TypeError: if the model refuses float64.
    """
    import torch

    from ww_callbacks.probes.double_precision import check_double, check_tensor, double_copy, evaluate

    criterion = _loss_function(loss)
    tensors = double_copy(model)
    names = [name for name, p in model.named_parameters() if p.requires_grad]
    if not names:
        raise ValueError("Expected a model with trainable parameters, but every parameter is frozen.")
    for name, _ in model.named_parameters():
        _check_finite(f"the parameter `{name}`", tensors[name], "Load a checkpoint from before it diverged.")
    _check_finite("the inputs", inputs, "Remove or fix these samples.")
    _check_finite("the targets", targets, "Remove or fix these samples.")
    shapes = [tensors[name].shape for name in names]
    sizes = [tensors[name].numel() for name in names]
    theta = torch.cat([tensors[name].reshape(-1) for name in names])
    inputs = inputs.detach().double() if inputs.is_floating_point() else inputs.detach()
    targets = targets.detach().double() if targets.is_floating_point() else targets.detach()

    def outputs(vector: torch.Tensor) -> torch.Tensor:
        parts = {n: part.view(s) for n, s, part in zip(names, shapes, vector.split(sizes), strict=True)}
        return check_double(model, check_tensor(model, evaluate(model, {**tensors, **parts}, inputs)))

    with torch.no_grad():
        out = outputs(theta)
        _check_finite("the loss", criterion(out, targets), "The model overflows: check its outputs and buffers.")
    return FlatModel(
        theta,
        outputs,
        lambda vector: criterion(outputs(vector), targets),
        lambda out: criterion(out, targets),
        out.numel(),
    )


def _check_finite(what: str, tensor: torch.Tensor, remedy: str) -> None:
    bad = int((~tensor.isfinite()).sum())
    if bad:
        raise ValueError(
            f"Expected {what} to be finite, but {bad} of {tensor.numel()} values are NaN or infinite. {remedy}"
        )


@dataclass(frozen=True)
class HessianParts:
    """The Hessian of the loss and its two parts; all P × P, float64, symmetric.

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
        model: a small network; each part takes 8·P² bytes.
        inputs: the batch.
        targets: of the outputs' shape for ``squared`` and ``cosh``; one class a sample for ``cross-entropy``.
        loss: ``squared``, ½Σ_k(f_k − y_k)²; ``cosh``, Σ_k ln cosh(f_k − y_k); ``cross-entropy``, −ln softmax(f)_y; each
            the mean over samples; or a function (outputs, targets) → scalar.
        chunk: rows computed at a time; fewer need less memory.

    Returns:
        The three matrices.

    Raises:
        ValueError: if nothing is trainable, the loss is unknown, the targets do not fit the outputs, the model's output
            is no tensor, a parameter, the batch or the loss is not finite, or the matrices do not fit in memory.
        TypeError: if the model refuses float64.
    """
    import torch

    from ww_callbacks.probes.jacobian import identity_blocks
    from ww_callbacks.probes.state import undisturbed

    with undisturbed(model), torch.enable_grad():
        flat = flatten_model(model, inputs, targets, loss)
        size = flat.theta.numel()
        _check_memory(flat)
        theta = flat.theta.requires_grad_()
        gradient = torch.autograd.grad(flat.value(theta), theta, create_graph=True)[0]
        full = torch.empty(size, size, dtype=torch.float64, device=theta.device)
        for rows, basis in identity_blocks(size, chunk, theta.device):
            full[rows] = _pull_rows(gradient, theta, basis)
        jacobian, curvature = _outputs_jacobian(flat, chunk)
        outer = jacobian.T @ (curvature @ jacobian)
        full, outer = (0.5 * (h + h.T) for h in (full, outer))
        return HessianParts(full.cpu().numpy(), outer.cpu().numpy(), (full - outer).cpu().numpy())


def _check_memory(flat: FlatModel) -> None:
    """Raise if the matrices exceed the memory of the machine (of the GPU, if the model is on one)."""
    import torch

    size, device = flat.theta.numel(), flat.theta.device
    if device.type == "cuda":
        memory = torch.cuda.get_device_properties(device).total_memory
    elif hasattr(os, "sysconf"):  # not available on Windows, where the allocation itself fails
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    else:
        return
    # The three parts and one copy on the way, the Jacobian, and the loss's curvature in the outputs.
    needed = 8 * (4 * size**2 + flat.rows * size + flat.rows**2)
    if needed > memory:
        raise ValueError(
            f"Expected matrices that fit in memory, but {size:,} parameters take {8 * size**2:,} bytes a matrix, and "
            f"with {flat.rows:,} outputs of the batch {needed:,} bytes in all, where there are {memory:,}. Use "
            "`hessian_operator` and `top_eigenvalues` of `ww_callbacks.probes.lanczos`, which make no matrix, or a "
            "smaller network or batch."
        )


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

    The factor and mean of the losses (see :func:`hessian_parts`) scale the Hessian and leave its ranks.
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
