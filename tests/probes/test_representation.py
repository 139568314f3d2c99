import random

import numpy as np
import pytest
import torch
from torch import nn

from ww_callbacks.probes.representation import RepresentationProbe
from ww_callbacks.spectral.detectors.base import Observation
from ww_callbacks.spectral.detectors.layerwise.representation_collapse import RepresentationCollapse
from ww_callbacks.spectral.layers import inspect


def seeded(make, seed=0):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return make()


def images(n=16, side=16, seed=0):
    return torch.randn(n, 3, side, side, generator=torch.Generator().manual_seed(seed))


def mlp(d=20, width=30, classes=5):
    return seeded(
        lambda: nn.Sequential(
            nn.Linear(d, width), nn.BatchNorm1d(width), nn.ReLU(), nn.Dropout(), nn.Linear(width, classes)
        )
    )


def cnn():
    return seeded(
        lambda: nn.Sequential(
            nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(8, 12, 3),
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(12, 5),
        )
    )  # fmt: skip


def transformer():
    def make():
        layer = nn.TransformerEncoderLayer(16, 4, 24, batch_first=True)
        return nn.Sequential(nn.Linear(6, 16), nn.TransformerEncoder(layer, 2), nn.Flatten(), nn.Linear(16 * 7, 5))

    return seeded(make)


def vectors(n=40, d=20, seed=0):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed))


LABELS = np.arange(40) % 5


class Restless(nn.Module):
    """Writes a buffer and draws random numbers of every kind even in evaluation mode."""

    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm1d(20, track_running_stats=True)
        self.linear = nn.Linear(20, 5)
        self.register_buffer("calls", torch.zeros((), dtype=torch.long))

    def forward(self, x):
        self.calls += 1
        self.norm.running_mean += random.random() + np.random.rand() + float(torch.rand(()))
        return self.linear(self.norm(x))


@pytest.mark.parametrize(
    "make, batch", [(Restless, vectors()), (mlp, vectors()), (cnn, images(40)), (transformer, None)]
)
@pytest.mark.parametrize("fails", [False, True])
def test_a_probe_leaves_no_trace(make, batch, fails, monkeypatch):
    model = make()
    batch = torch.randn(40, 7, 6) if batch is None else batch
    model.train()
    next(iter(model.children())).eval()  # a mixture of modes, as with frozen parts
    model(batch).sum().backward()
    probe = RepresentationProbe(batch, LABELS, quantities="all", perturbations=20, points=1, patch=4)
    tensors = {k: v.clone() for k, v in model.state_dict().items()}
    gradients = {k: p.grad.clone() for k, p in model.named_parameters()}
    modes = {k: m.training for k, m in model.named_modules()}
    versions = {k: p._version for k, p in model.named_parameters()}
    attributes = {k: set(vars(m)) for k, m in model.named_modules()}
    before = (torch.get_rng_state(), random.getstate(), np.random.get_state()[1].copy(), torch.is_grad_enabled())
    if fails:
        monkeypatch.setattr("ww_callbacks.probes.torch_driver.forward_grams", lambda *_: 1 / 0)
        monkeypatch.setattr("ww_callbacks.probes.torch_driver.reverse_grams", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            probe.observe(model)
    else:
        probe.validate(model)
        probe.observe(model)
    assert all(torch.equal(v, tensors[k]) for k, v in model.state_dict().items())
    assert all(torch.equal(p.grad, gradients[k]) for k, p in model.named_parameters())
    assert {k: m.training for k, m in model.named_modules()} == modes
    assert {k: p._version for k, p in model.named_parameters()} == versions
    assert {k: set(vars(m)) for k, m in model.named_modules()} == attributes
    assert not any(m._forward_hooks or m._forward_pre_hooks or m._backward_hooks for m in model.modules())
    assert torch.equal(torch.get_rng_state(), before[0]) and random.getstate() == before[1]
    assert np.array_equal(np.random.get_state()[1], before[2]) and torch.is_grad_enabled() == before[3]
    assert torch.backends.mha.get_fastpath_enabled()


def test_training_with_a_probe_is_bit_for_bit_that_without():
    def weights(probed):
        torch.manual_seed(3)
        model = mlp()
        optimiser = torch.optim.Adam(model.parameters())
        probe = RepresentationProbe(vectors(), quantities=["feature_rank", "jacobian_rank"], points=1)
        for _ in range(5):
            optimiser.zero_grad()
            model(vectors()).square().mean().backward()
            optimiser.step()
            if probed:
                probe.observe(model)
        return torch.cat([v.double().reshape(-1) for v in model.state_dict().values()])

    state = torch.get_rng_state()
    try:
        assert torch.equal(weights(False), weights(True))
    finally:
        torch.set_rng_state(state)


def test_features_are_the_layers_outputs_in_evaluation_mode():
    model = mlp()
    found = RepresentationProbe(vectors()).observe(model.train())
    names = [s.name for s in inspect(model) if not s.skipped]
    assert list(found)[:-1] == names == ["0.weight", "4.weight"]
    model.eval()
    output = model(vectors()).detach().double().numpy()
    sigma = np.linalg.svd(output - output.mean(0), compute_uv=False)
    p = sigma / sigma.sum()
    assert found["4.weight"]["feature_effective_rank"] == pytest.approx(np.exp(-(p * np.log(p)).sum()), rel=1e-6)
    whole = found["model"]
    assert whole["feature_rank/max"] == max(found[n]["feature_rank"] for n in names)
    assert whole["probe_seconds"] > 0


def test_a_convolution_counts_positions_as_samples():
    found = RepresentationProbe(images()).observe(cnn())
    assert found["0.weight"]["feature_rank"] == 8
    assert found["4.weight"]["feature_rank"] == 12


def test_every_layer_of_a_transformer_is_seen_although_the_fused_kernel_would_skip_it():
    model = transformer().eval()
    found = RepresentationProbe(torch.randn(8, 7, 6)).observe(model)
    assert {"1.layers.0.self_attn.out_proj.weight", "1.layers.1.linear1.weight", "3.weight"} <= set(found)


class TwoLayers(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(20, 30), nn.Linear(30, 5)

    def forward(self, x):
        return self.second(torch.relu(self.first(x)))


@pytest.mark.parametrize("in_place", [False, True])
def test_a_compiled_model_is_probed_as_itself_and_not_compiled_anew(in_place):
    compiled = []

    def backend(graph, _inputs):
        compiled.append(graph)
        return graph.forward

    plain, model = seeded(TwoLayers).eval(), seeded(TwoLayers).eval()
    expected = RepresentationProbe(vectors(), quantities=["default", "jacobian_rank"], points=1).observe(plain)
    with torch.no_grad():
        if in_place:
            model.compile(backend=backend)
            model(vectors())
        else:
            model = torch.compile(model, backend=backend)
            model(vectors())
    before = len(compiled)
    assert before > 0
    found = RepresentationProbe(vectors(), quantities=["default", "jacobian_rank"], points=1).observe(model)
    expected["model"].pop("probe_seconds"), found["model"].pop("probe_seconds")
    assert found == expected
    with torch.no_grad():
        model(vectors())
    assert len(compiled) == before


@pytest.mark.parametrize("patch", [3, 8])
def test_the_jacobians_rank_is_that_of_the_exact_jacobian(patch):
    model = cnn().double()
    sample = images(1).double()
    probe = RepresentationProbe(sample, quantities=["jacobian_rank"], patch=patch, corner=(2, 5))
    found = probe.observe(model)
    model.eval()

    def of_patch(part):
        x = sample.clone()
        x[0, :, 2 : 2 + patch, 5 : 5 + patch] = part
        return model[4](model[3](model[2](model[1](model[0](x))))).reshape(-1)

    start = sample[0, :, 2 : 2 + patch, 5 : 5 + patch]
    jacobian = torch.autograd.functional.jacobian(of_patch, start).reshape(-1, 3 * patch * patch)
    sigma = torch.linalg.svdvals(jacobian)
    expected = int((sigma >= 1.19e-7 * len(sigma) * sigma[0]).sum())
    assert 0 < found["4.weight"]["jacobian_rank"] == expected


def test_forward_and_reverse_mode_agree():
    """Few features (reverse) against the same layers together with a wide one (forward)."""
    model = mlp(d=20, width=200)
    narrow = RepresentationProbe(vectors(3), quantities=["jacobian_rank"], layers=["4.*"]).observe(model)
    both = RepresentationProbe(vectors(3), quantities=["jacobian_rank"]).observe(model)
    assert narrow["4.weight"] == both["4.weight"] == {"jacobian_rank": 5.0}
    assert both["0.weight"]["jacobian_rank"] == 20


def test_layers_that_do_not_fit_together_are_done_in_several_passes():
    probe = {"quantities": ["jacobian_rank"], "patch": 4, "points": 2}
    model = cnn()
    roomy = RepresentationProbe(images(), **probe).observe(model)
    tight = RepresentationProbe(images(), memory=8 * 48 * 8 * 14 * 14 + 1, **probe).observe(model)
    roomy["model"].pop("probe_seconds"), tight["model"].pop("probe_seconds")
    assert roomy == tight
    with pytest.raises(ValueError, match=r"`0.weight` has 1568"):
        RepresentationProbe(images(), memory=1e4, **probe).observe(model)


def test_perturbed_pca_of_a_linear_network_is_the_rank_of_its_product():
    model = seeded(lambda: nn.Sequential(nn.Linear(12, 4), nn.Linear(4, 9)))
    probe = RepresentationProbe(torch.randn(3, 12), quantities=["perturbed_pca_dimension"], perturbations=400)
    assert probe.observe(model)["1.weight"]["perturbed_pca_dimension"] == 4


def test_classes_of_a_model_that_separates_them():
    centres = 4 * torch.eye(5, 20)
    batch = centres[LABELS] + 0.1 * vectors()
    model = nn.Sequential(nn.Linear(20, 20), nn.Linear(20, 5))
    with torch.no_grad():
        model[0].weight.copy_(torch.eye(20)), model[0].bias.zero_()
        model[1].weight.copy_(centres), model[1].bias.zero_()
    probe = RepresentationProbe(batch, LABELS, quantities=["classification_dimension", "independence_deficit"])
    probe.validate(model)
    whole = probe.observe(model)["model"]
    assert whole["classification_dimension"] in (3, 4)
    assert 0 <= whole["independence_deficit"] <= 1


def test_the_cadence_counts_epochs_and_survives_a_resume():
    probe = RepresentationProbe(vectors(), every_n_epochs=5)
    assert [e for e in range(12) if probe.due(e)] == [0, 5, 10]
    again = RepresentationProbe(vectors(), every_n_epochs=5)
    again.load_state_dict(probe.state_dict())
    assert [e for e in range(12, 21) if again.due(e)] == [15, 20]


def test_a_second_run_begins_with_the_untrained_model():
    probe, model = RepresentationProbe(vectors()), mlp()
    for _ in range(2):
        probe.validate(model)
        assert [e for e in range(7) if probe.due(e)] == [0, 5]


def test_features_that_are_not_finite_give_nan_and_no_error():
    model = mlp()
    with torch.no_grad():
        model[4].weight[0, 0] = float("nan")
    found = RepresentationProbe(vectors(), LABELS, quantities=["default", "classification_dimension"]).observe(model)
    assert np.isnan(found["4.weight"]["feature_effective_rank"])
    assert np.isnan(found["model"]["classification_dimension"])
    assert found["0.weight"]["feature_rank"] > 0


def test_a_learning_rate_that_kills_the_network_is_an_alert_and_a_good_one_is_not():
    from examples.data import digits

    (train, labels), _ = digits()
    x, y = torch.from_numpy(train.reshape(-1, 64)), torch.from_numpy(labels)

    def findings(rate):
        model = seeded(
            lambda: nn.Sequential(nn.Linear(64, 60), nn.ReLU(), nn.Linear(60, 60), nn.ReLU(), nn.Linear(60, 10))
        )
        optimiser = torch.optim.Adam(model.parameters(), rate)
        probe, detector = RepresentationProbe(x[:100], every_n_epochs=1), RepresentationCollapse()
        found = []
        for epoch in range(6):
            values = probe.observe(model)
            whole = values.pop("model")
            assert whole["feature_effective_rank/min"] >= 0
            found += detector.update(Observation(epoch, float(epoch), values))
            for i in range(0, len(x), 64):
                loss = nn.functional.cross_entropy(model(x[i : i + 64]), y[i : i + 64])
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
        return found

    assert findings(0.3)
    assert not findings(1e-3)


# -- bad input --------------------------------------------------------------------------------------------------------


class Returns(nn.Module):
    def __init__(self, wrap):
        super().__init__()
        self.linear, self.wrap = nn.Linear(20, 5), wrap

    def forward(self, x):
        return self.wrap(self.linear(x))


class Casts(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(20, 5)

    def forward(self, x):
        return self.linear(x.float())


def test_an_output_that_is_no_tensor_is_refused_with_the_remedy():
    model = Returns(lambda out: {"logits": out})
    with pytest.raises(ValueError, match=r"to be a tensor, but got dict.*output=lambda"):
        RepresentationProbe(vectors()).validate(model)
    RepresentationProbe(vectors(), output=lambda out: out["logits"]).validate(model)


@pytest.mark.parametrize("model", [Casts(), Returns(lambda out: out.float())])
@pytest.mark.parametrize("quantity", ["jacobian_rank", "perturbed_pca_dimension"])
def test_a_model_that_refuses_double_precision_is_refused(model, quantity):
    probe = RepresentationProbe(vectors(), quantities=[quantity])
    if isinstance(model, Casts):
        with pytest.raises(TypeError, match="refuses it"):
            probe.validate(model)
    else:
        probe.validate(model)  # every layer's features are in double precision: a cast after them does not matter
    RepresentationProbe(vectors()).validate(model)


@pytest.mark.parametrize("quantity", ["classification_dimension", "independence_deficit"])
def test_missing_classes_and_labels_are_refused(quantity):
    with pytest.raises(ValueError, match="`labels`"):
        RepresentationProbe(vectors(), quantities=[quantity])
    with pytest.raises(ValueError, match=r"all 5 classes, but got none of: \[4\]"):
        RepresentationProbe(vectors(), np.arange(40) % 4, quantities=[quantity]).validate(mlp())
    with pytest.raises(ValueError, match="one label"):
        RepresentationProbe(vectors(), LABELS[:7], quantities=[quantity]).validate(mlp())
    with pytest.raises(ValueError, match=r"nn\.Linear"):
        RepresentationProbe(vectors(), LABELS, quantities=[quantity]).validate(Returns(torch.exp))


@pytest.mark.parametrize(
    "batch", [vectors(d=7), {"x": vectors(), "mask": vectors()}, np.arange(480.0).reshape(4, 3, 20, 2)]
)
def test_a_batch_that_the_model_does_not_take_is_refused(batch):
    with pytest.raises(ValueError, match="forward takes, but it fails on the first sample"):
        RepresentationProbe(batch).validate(mlp())


def test_a_layer_without_a_matrix_is_refused():
    with pytest.raises(ValueError, match=r"'1.weight' has none: `1.weight` is a vector"):
        RepresentationProbe(vectors(), layers=["1.weight"]).validate(mlp())
    with pytest.raises(ValueError, match="matches nothing"):
        RepresentationProbe(vectors(), layers=["encoder.*"]).validate(mlp())


def test_what_cannot_be_differentiated_or_does_not_fit_is_refused():
    tokens = torch.randint(0, 9, (4, 7))
    embedding = nn.Sequential(nn.Embedding(9, 6), nn.Linear(6, 6))
    RepresentationProbe(tokens).validate(embedding)
    with pytest.raises(ValueError, match="floating-point tensor"):
        RepresentationProbe(tokens, quantities=["jacobian_rank"]).validate(embedding)
    with pytest.raises(ValueError, match="inside the 16×16 image"):
        RepresentationProbe(images(), quantities=["jacobian_rank"], corner=(10, 10), patch=8).validate(cnn())
    probe = RepresentationProbe(images(), quantities=["perturbed_pca_dimension"], memory=100)
    with pytest.raises(ValueError, match=r"100 bytes, but 5000 of them take \d+\.\d MB"):
        probe.validate(cnn())
    with pytest.raises(ValueError, match="fewer perturbations"):
        RepresentationProbe(images(), quantities=["perturbed_pca_dimension"], memory=1e6).validate(cnn())


class Insists(nn.Module):
    """Runs in float32 only, and reports it in its own way."""

    def __init__(self, error):
        super().__init__()
        self.linear, self.error = nn.Linear(20, 5), error

    def forward(self, x):
        if x.dtype != torch.float32:
            raise self.error
        return self.linear(x)


@pytest.mark.parametrize(
    "error", [AssertionError(), ValueError("need float32"), TypeError("need float32"), RuntimeError("only single")]
)
def test_a_model_that_checks_the_precision_itself_is_refused_with_its_own_error(error):
    said = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    with pytest.raises(TypeError, match=rf"float64, which `jacobian_rank`.*`Insists` refuses it \({said}\)"):
        RepresentationProbe(vectors(), quantities=["jacobian_rank"]).validate(Insists(error))
    RepresentationProbe(vectors()).validate(Insists(error))


def test_an_output_function_that_fails_is_named_and_not_the_forward():
    model = Returns(lambda out: {"logits": out})
    with pytest.raises(ValueError, match=r"probe's `output`.*keys \['logits'\].*KeyError: 'logit'"):
        RepresentationProbe(vectors(), output=lambda out: out["logit"]).validate(model)


@pytest.mark.parametrize("batch", [(vectors(), LABELS), [vectors(), vectors()], {"x": [1.0, 2.0]}, {}, "x", None])
def test_a_batch_that_is_no_tensor_is_refused_with_the_two_arguments(batch):
    with pytest.raises(TypeError, match=r"RepresentationProbe\(inputs, labels\)"):
        RepresentationProbe(batch)


def holding(value):
    batch = vectors()
    batch[3, 2] = value
    return batch


@pytest.mark.parametrize(
    "batch, said",
    [
        (vectors()[:0], "samples along its first axis"),
        (vectors()[:0].numpy(), "samples along its first axis"),
        (torch.tensor(1.0), "samples along its first axis"),
        (holding(float("nan")), "1 of 40 samples contain NaN or infinity, first sample 3"),
        (holding(float("inf")).bfloat16(), "1 of 40 samples contain NaN or infinity"),
        ({"input": holding(float("nan"))}, "`input` of the probe batch"),
        (vectors()[:1], "two different samples.*got one:"),
        (vectors()[:1].repeat(9, 1), "two different samples.*got 9 equal ones"),
    ],
)
def test_a_batch_that_can_never_be_measured_is_refused(batch, said):
    with pytest.raises(ValueError, match=said):
        RepresentationProbe(batch, quantities=["default", "jacobian_rank"]).validate(mlp())


def test_one_sample_does_for_a_jacobian():
    RepresentationProbe(vectors()[:1], quantities=["jacobian_rank"]).validate(mlp())


def test_a_mask_of_minus_infinity_is_taken():
    class Masked(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(20, 5)

        def forward(self, x, mask):
            return self.linear(torch.softmax(x + mask, dim=1))

    mask = torch.zeros(40, 20).masked_fill(vectors() > 1, -float("inf"))
    RepresentationProbe({"x": vectors(), "mask": mask}).validate(Masked())


@pytest.mark.parametrize("labels", [LABELS + 0.5, np.where(LABELS == 0, np.nan, LABELS), np.array(list("ab") * 20)])
def test_labels_that_are_no_classes_are_refused_where_they_are_needed(labels):
    with pytest.raises(ValueError, match="`labels` to be the classes as whole numbers"):
        RepresentationProbe(vectors(), labels, quantities=["independence_deficit"])
    RepresentationProbe(vectors(), labels).validate(mlp())


def test_whole_labels_of_any_type_are_taken():
    for labels in (LABELS.astype(float), torch.as_tensor(LABELS), LABELS.tolist()):
        RepresentationProbe(vectors(), labels, quantities=["classification_dimension"]).validate(mlp())


@pytest.mark.parametrize(
    "arguments",
    [
        {"every_n_epochs": 0},
        {"points": 1.5},
        {"quantities": []},
        {"quantities": "alpha"},
        {"delta": 0},
        {"patch": True},
    ],
)
def test_arguments_are_checked_when_given(arguments):
    with pytest.raises(ValueError, match="Expected"):
        RepresentationProbe(vectors(), **arguments)


def test_only_torch_and_keras_models_are_probed():
    with pytest.raises(TypeError, match="dict"):
        RepresentationProbe(vectors()).validate({})
