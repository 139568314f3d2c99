"""Top eigenvalues and spectral density of the loss Hessian of a network too large for the matrix itself."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.sparse.linalg import LinearOperator, eigsh

if TYPE_CHECKING:
    import torch

    from ww_callbacks.probes.hessian import Loss


def hessian_operator(
    model: torch.nn.Module, batches: Iterable[tuple[torch.Tensor, torch.Tensor]], loss: Loss = "cross-entropy"
) -> LinearOperator:
    """The Hessian of the mean loss over ``batches`` as a SciPy operator: v ↦ Hv by double backpropagation.

    Parameters are read once, now; later training does not change the operator. Memory is that of one backward pass.

    Args:
        model: the network; it runs in evaluation mode, in float64.
        batches: (inputs, targets), kept; each weighs by its number of samples.
        loss: ``squared``, ½Σ_k(f_k − y_k)²; ``cosh``, Σ_k ln cosh(f_k − y_k); ``cross-entropy``, −ln softmax(f)_y; each
            the mean over samples; or a function (outputs, targets) → mean over samples.

    Returns:
        A symmetric operator, P × P, float64.

    Raises:
        ValueError: if there is no batch, nothing is trainable, the targets do not fit the outputs, the model's output
            is no tensor, or a parameter, a batch or the loss is not finite; from a product, if that is not.
        TypeError: if the model refuses float64, or ``batches`` holds something else than pairs of tensors.
    """
    import torch

    from ww_callbacks.probes.hessian import flatten_model
    from ww_callbacks.probes.state import undisturbed

    with undisturbed(model):
        flats = [(len(x), flatten_model(model, x, y, loss)) for x, y in map(_pair, batches)]
    if not flats:
        raise ValueError("Expected at least one batch (inputs, targets), but got none.")
    total = sum(n for n, _ in flats)
    theta = flats[0][1].theta

    def product(vector: np.ndarray) -> np.ndarray:
        v = torch.as_tensor(np.ravel(vector), dtype=torch.float64, device=theta.device)
        out = torch.zeros_like(v)
        with undisturbed(model), torch.enable_grad():
            for n, flat in flats:
                leaf = flat.theta.detach().requires_grad_()
                gradient = torch.autograd.grad(flat.value(leaf), leaf, create_graph=True)[0]
                out += n / total * torch.autograd.grad(gradient, leaf, v)[0]
        if v.isfinite().all() and not out.isfinite().all():
            raise ValueError(
                "Expected a finite Hessian, but its product with a vector is NaN or infinite: the loss has no second "
                "derivative here, or it overflows. Take a smooth loss or an earlier checkpoint."
            )
        return out.cpu().numpy()

    return LinearOperator((theta.numel(), theta.numel()), matvec=product, rmatvec=product, dtype=np.float64)


def _pair(batch: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """``batch``, if it is inputs and targets. A tensor of two rows would unpack as well, into something else."""
    import torch

    if (
        not isinstance(batch, tuple | list)
        or len(batch) != 2
        or not all(isinstance(part, torch.Tensor) for part in batch)
    ):
        got = f"a tensor of shape {tuple(batch.shape)}" if isinstance(batch, torch.Tensor) else type(batch).__name__
        raise TypeError(
            f"Expected `batches` to hold pairs of tensors (inputs, targets), but got {got} in it. For one batch give a "
            "list of one pair: `hessian_operator(model, [(inputs, targets)])`."
        )
    return batch[0], batch[1]


def top_eigenvalues(operator: LinearOperator, k: int = 10, seed: int = 0, tolerance: float = 1e-6) -> np.ndarray:
    """The k eigenvalues of largest magnitude, sorted by it, by ARPACK's implicitly restarted Lanczos.

    Args:
        operator: symmetric, such as :func:`hessian_operator` gives.
        k: how many, less than its side.
        seed: of the starting vector.
        tolerance: relative accuracy.

    Returns:
        k eigenvalues, signed.

    Raises:
        ValueError: if k is not between 1 and the side − 1.
    """
    side = operator.shape[0]
    if not 1 <= k < side:
        raise ValueError(f"Expected k between 1 and {side - 1}, but got {k}.")
    start = np.random.default_rng(seed).standard_normal(side)
    found = eigsh(operator, k=k, which="LM", v0=start, tol=tolerance, return_eigenvectors=False)
    return found[np.argsort(-np.abs(found))]


@dataclass(frozen=True)
class SpectralDensity:
    """A spectral density as weighted points.

    Attributes:
        nodes: Ritz values θ.
        weights: their weights, which sum to 1: the density is Σ w δ(λ − θ).
    """

    nodes: np.ndarray
    weights: np.ndarray

    def histogram(self, edges: np.ndarray) -> np.ndarray:
        """The share of eigenvalues in each bin."""
        return np.histogram(self.nodes, edges, weights=self.weights)[0]

    def moment(self, order: int) -> float:
        """An estimate of tr(Hᵏ)/P."""
        return float(np.sum(self.weights * self.nodes**order))


def spectral_density(
    operator: LinearOperator,
    steps: int = 80,
    vectors: int = 4,
    seed: int = 0,
    progress: Callable[[int, int], Any] | None = None,
) -> SpectralDensity:
    r"""Spectral density by stochastic Lanczos quadrature.

    From a random unit vector v, Lanczos gives a tridiagonal T of ``steps`` rows; with its eigenpairs (θ_i, u_i),
    :math:`\sum_i u_{i1}^2\,\delta(\lambda-\theta_i)` is the Gauss quadrature of the density that v sees; it is
    averaged over v. Full reorthogonalisation, so no eigenvalue is counted twice; memory is steps·P.

    Args:
        operator: symmetric, P × P.
        steps: Lanczos steps a vector, cut to P.
        vectors: number of random vectors.
        seed: of the vectors.
        progress: called with (vectors done, vectors).

    Returns:
        At most steps·vectors weighted points.

    Raises:
        ValueError: if ``steps`` or ``vectors`` is below 1.

    Source: S. Ubaru, J. Chen, Y. Saad, "Fast estimation of tr(f(A)) via stochastic Lanczos quadrature" (2017).
    """
    if steps < 1 or vectors < 1:
        raise ValueError(f"Expected `steps` and `vectors` ≥ 1, but got {steps} and {vectors}.")
    generator = np.random.default_rng(seed)
    nodes, weights = [], []
    for index in range(vectors):
        theta, first = _lanczos(operator, generator.standard_normal(operator.shape[0]), steps)
        nodes.append(theta)
        weights.append(first**2 / vectors)
        if progress is not None:
            progress(index + 1, vectors)
    return SpectralDensity(np.concatenate(nodes), np.concatenate(weights))


def _lanczos(operator: LinearOperator, start: np.ndarray, steps: int) -> tuple[np.ndarray, np.ndarray]:
    """Ritz values and the first components of T's eigenvectors."""
    from scipy.linalg import eigh_tridiagonal

    side = operator.shape[0]
    basis = np.zeros((min(steps, side), side))
    basis[0] = start / np.linalg.norm(start)
    diagonal: list[float] = []
    off: list[float] = []
    for j in range(len(basis)):
        w = operator.matvec(basis[j])
        diagonal.append(float(basis[j] @ w))
        for _ in range(2):  # the second pass takes out what rounding left of the first
            w = w - basis[: j + 1].T @ (basis[: j + 1] @ w)
        norm = float(np.linalg.norm(w))
        if j + 1 == len(basis) or norm <= 1e-10 * max(1e-300, *np.abs(diagonal), *off):
            break  # an invariant subspace: T is exact
        off.append(norm)
        basis[j + 1] = w / norm
    theta, vectors = eigh_tridiagonal(np.array(diagonal), np.array(off))
    return theta, vectors[0]
