import numpy as np
import pytest
import torch
from scipy.sparse.linalg import aslinearoperator
from torch import nn

from examples.reproductions.hessian_rank import INITIALISATIONS, LOSSES, NETWORKS, batch, network
from spectral.hessian_theory import linear_network_ranks
from ww_callbacks.probes.hessian import hessian_parts, hessian_ranks, symmetric_rank
from ww_callbacks.probes.lanczos import hessian_operator, spectral_density, top_eigenvalues


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("widths, rank", NETWORKS)
def test_measured_ranks_equal_the_formulas(widths, rank, loss):
    theory = linear_network_ranks(widths, rank, "cross-entropy" if loss == "cross-entropy" else "squared")
    for seed, initialisation in enumerate(INITIALISATIONS):
        inputs, targets = batch(widths, rank, loss, 50, seed)
        found = hessian_ranks(network(widths, initialisation, seed), inputs, targets, loss)
        assert (found.outer, found.functional, found.loss) == (theory.outer, theory.functional, theory.loss)
        assert found.parameters == theory.parameters


@pytest.mark.parametrize(
    "widths, rank, expected",
    [
        ([12, 5, 7, 4], None, (48, 80, 112)),
        ([12, 6, 5, 7, 3], None, (36, 90, 117)),
        ([12, 8, 8, 4], 6, (24, 112, 120)),
        ([25, 5, 10, 10], None, (150, 175, 250)),
    ],
)
def test_the_published_ranks(widths, rank, expected):
    theory = linear_network_ranks(widths, rank)
    assert (theory.outer, theory.functional, theory.loss) == expected


def test_a_single_matrix_has_no_functional_hessian():
    theory = linear_network_ranks([6, 3])
    inputs, targets = batch([6, 3], None, "squared", 20, 0)
    found = hessian_ranks(network([6, 3], "default uniform", 0), inputs, targets)
    assert (found.outer, found.functional, found.loss) == (theory.outer, theory.functional, theory.loss) == (18, 0, 18)


def tanh_network():
    torch_state = torch.get_rng_state()
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.BatchNorm1d(8), nn.Dropout(), nn.Linear(8, 3))
    torch.set_rng_state(torch_state)
    return model


def data():
    g = torch.Generator().manual_seed(0)
    return torch.randn(30, 6, generator=g), torch.randint(0, 3, (30,), generator=g)


def test_the_parts_against_autograds_own_hessian_and_the_model_untouched():
    model, (inputs, targets) = tanh_network(), data()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    parts = hessian_parts(model, inputs, targets, "cross-entropy", chunk=7)
    assert model.training and all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert all(p.dtype == torch.float32 and p.grad is None for p in model.parameters())

    double = tanh_network().double().eval()
    names, values = zip(*double.named_parameters(), strict=True)

    def loss(*given):
        out = torch.func.functional_call(double, dict(zip(names, given, strict=True)), (inputs.double(),))
        return nn.functional.cross_entropy(out, targets)

    blocks = torch.autograd.functional.hessian(loss, values)
    expected = torch.cat(
        [torch.cat([b.reshape(v.numel(), -1) for b in row], 1) for v, row in zip(values, blocks, strict=True)]
    )
    assert parts.loss == pytest.approx(expected.detach().numpy(), abs=1e-12)
    assert parts.outer + parts.functional == pytest.approx(parts.loss, abs=1e-15)
    assert np.linalg.eigvalsh(parts.outer)[0] > -1e-12  # cross-entropy is convex in the outputs


def test_lanczos_against_the_whole_matrix():
    model, (inputs, targets) = tanh_network(), data()
    exact = np.linalg.eigvalsh(hessian_parts(model, inputs, targets, "cross-entropy").loss)
    operator = hessian_operator(model, [(inputs[:20], targets[:20]), (inputs[20:], targets[20:])])
    largest = exact[np.argsort(-np.abs(exact))][:4]
    assert top_eigenvalues(operator, 4) == pytest.approx(largest, abs=1e-8)
    density = spectral_density(operator, steps=20, vectors=1, seed=4)
    assert density.weights.sum() == pytest.approx(1)
    start = np.random.default_rng(4).standard_normal(len(exact))
    start /= np.linalg.norm(start)
    hessian = hessian_parts(model, inputs, targets, "cross-entropy").loss
    for order in (1, 2, 3, 10):  # Gauss quadrature is exact up to 2·steps − 1
        expected = start @ np.linalg.matrix_power(hessian, order) @ start
        assert density.moment(order) == pytest.approx(expected, rel=1e-8)
    assert density.nodes.min() >= exact[0] - 1e-10 and density.nodes.max() <= exact[-1] + 1e-10
    assert density.histogram(np.array([-1.0, 1.0, 100.0])).sum() == pytest.approx(1)
    assert all(p.grad is None for p in model.parameters()) and model.training


def test_lanczos_ends_at_an_invariant_subspace():
    """A matrix with two eigenvalues: after two steps nothing is left."""
    operator = aslinearoperator(np.diag([2.0] * 5 + [-1.0] * 3))
    density = spectral_density(operator, steps=8, vectors=3)
    assert sorted(set(density.nodes.round(9))) == [-1.0, 2.0]
    assert spectral_density(aslinearoperator(np.zeros((4, 4)))).nodes == pytest.approx(0)


def test_frozen_parameters_are_left_out():
    model, (inputs, targets) = tanh_network(), data()
    model[0].requires_grad_(False)
    assert hessian_parts(model, inputs, targets, "cross-entropy").loss.shape == (43, 43)
    model.requires_grad_(False)
    with pytest.raises(ValueError, match="frozen"):
        hessian_parts(model, inputs, targets, "cross-entropy")


def test_bad_input():
    model, (inputs, targets) = tanh_network(), data()
    with pytest.raises(ValueError, match="squared, cosh, cross-entropy"):
        hessian_parts(model, inputs, targets, "hinge")
    with pytest.raises(ValueError, match="at least one batch"):
        hessian_operator(model, [])
    with pytest.raises(ValueError, match="finite Hessian"):
        symmetric_rank(np.full((2, 2), np.nan))
    with pytest.raises(ValueError, match="between 1 and 98"):
        top_eigenvalues(hessian_operator(model, [(inputs, targets)]), 99)
    with pytest.raises(ValueError, match="input_rank"):
        linear_network_ranks([5, 3], input_rank=6)
    with pytest.raises(ValueError, match="two or more outputs"):
        linear_network_ranks([5, 1], loss="cross-entropy")

    class Casts(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(6, 3)

        def forward(self, x):
            return self.linear(x).half()

    with pytest.raises(TypeError, match="refuses it"):
        hessian_parts(Casts(), inputs, targets, "cross-entropy")
