import numpy as np
import pytest
import torch
from scipy.sparse.linalg import aslinearoperator
from torch import nn

from examples.reproductions.hessian_rank import INITIALISATIONS, LOSSES, NETWORKS, batch, network
from ww_callbacks.probes.hessian import hessian_parts, hessian_ranks, symmetric_rank
from ww_callbacks.probes.lanczos import hessian_operator, spectral_density, top_eigenvalues
from ww_callbacks.spectral.hessian_theory import linear_network_ranks


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

    for widths in ([25.5, 3], [5, 2.0], ["5", 3]):
        with pytest.raises(ValueError, match="whole numbers"):
            linear_network_ranks(widths)
    with pytest.raises(ValueError, match="whole number"):
        linear_network_ranks([5, 3], input_rank=2.5)
    assert linear_network_ranks(np.array([25, 5, 10, 10])).loss == 250

    class Casts(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(6, 3)

        def forward(self, x):
            return self.linear(x).half()

    with pytest.raises(TypeError, match="refuses it"):
        hessian_parts(Casts(), inputs, targets, "cross-entropy")


ENTRIES = [
    hessian_parts,
    hessian_ranks,
    lambda model, inputs, targets, loss: hessian_operator(model, [(inputs, targets)], loss),
]


@pytest.mark.parametrize("entry", ENTRIES)
@pytest.mark.parametrize("loss", ["squared", "cosh"])
def test_targets_of_another_shape_are_refused_instead_of_broadcast(entry, loss):
    model, (inputs, _) = nn.Linear(6, 1), data()
    with pytest.raises(ValueError, match=r"\(30, 1\), but got \(30,\).*targets\[:, None\]"):
        entry(model, inputs, inputs[:, 0], loss)
    for targets in (torch.ones(1), torch.ones(1, 1), torch.ones(30, 2)):
        with pytest.raises(ValueError, match="outputs' shape"):
            entry(model, inputs, targets, loss)
    entry(model, inputs, inputs[:, :1], loss)


@pytest.mark.parametrize("entry", ENTRIES)
def test_classes_that_do_not_fit_are_refused(entry):
    model, (inputs, targets) = tanh_network(), data()
    for wrong, remedy in [
        (targets[:1], r"Give targets of shape \(30,\)"),
        (targets[:, None], r"targets\[..., 0\].long"),
        (targets.float(), r"targets.long\(\)"),
        (torch.ones(30, 2), r"Give targets of shape \(30, 3\)"),
    ]:
        with pytest.raises(ValueError, match=remedy):
            entry(model, inputs, wrong, "cross-entropy")
    entry(model, inputs, torch.full((30, 3), 1 / 3), "cross-entropy")


def test_the_factors_of_the_losses():
    """By hand, for one linear layer: ½Σ(o − y)² has the Hessian mean x xᵀ for each output, Σ ln cosh at 0 the same."""
    inputs = data()[0].double()
    model = nn.Linear(6, 2, bias=False)
    expected = np.kron(np.eye(2), (inputs.T @ inputs / 30).numpy())
    assert hessian_parts(model, inputs, torch.zeros(30, 2)).loss == pytest.approx(expected, abs=1e-12)
    fitted = inputs @ model.weight.detach().double().T
    assert hessian_parts(model, inputs, fitted, "cosh").loss == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("entry", ENTRIES)
def test_values_that_are_not_finite_are_refused_by_name(entry):
    model, (inputs, targets) = tanh_network(), data()
    broken = inputs.clone()
    broken[3, 2] = torch.nan
    with pytest.raises(ValueError, match="the inputs to be finite, but 1 of 180"):
        entry(model, broken, targets, "cross-entropy")
    with pytest.raises(ValueError, match="the loss to be finite"):
        entry(model, inputs, targets, lambda out, _: out.sum() / 0)
    model[4].weight.data[0, 0] = torch.inf
    with pytest.raises(ValueError, match=r"parameter `4\.weight` to be finite"):
        entry(model, inputs, targets, "cross-entropy")


def test_a_product_that_is_not_finite_is_refused():
    """|z|^1.5 has a value and a gradient at 0, and no second derivative."""
    model, (inputs, targets) = nn.Linear(6, 3), data()
    operator = hessian_operator(model, [(inputs, targets)], lambda out, _: (out - out.detach()).pow(1.5).mean())
    with pytest.raises(ValueError, match="Expected a finite Hessian"):
        top_eigenvalues(operator, 2)


def test_a_batch_without_its_list_is_refused():
    model, (inputs, targets) = tanh_network(), data()
    for count in (30, 2):  # two rows would unpack as inputs and targets
        with pytest.raises(TypeError, match=r"hessian_operator\(model, \[\(inputs, targets\)\]\)"):
            hessian_operator(model, (inputs[:count], targets[:count]))
    with pytest.raises(TypeError, match="got dict"):
        hessian_operator(model, [{"x": inputs, "y": targets}])
    assert hessian_operator(model, [[inputs, targets]]).shape == (99, 99)


@pytest.mark.parametrize("entry", ENTRIES[:2])
def test_matrices_beyond_the_memory_are_refused_before_they_are_made(entry):
    with pytest.raises(ValueError, match=r"72,048,008,000,000 bytes a matrix.*top_eigenvalues"):
        entry(nn.Linear(3000, 1000), torch.ones(2, 3000), torch.zeros(2, 1000), "squared")
