"""PEFT under the HF Trainer: updates apart from weights, what is frozen is called so, factors that are no matrices."""

import pytest

peft = pytest.importorskip("peft", reason="needs peft")
transformers = pytest.importorskip("transformers", reason="needs the extra huggingface")
import torch
from torch import nn

from tests.huggingface.small import Classifier, train
from ww_callbacks.huggingface import SpectralCallback
from ww_callbacks.spectral.layers import inspect


class Wide(nn.Module):
    """Layers of a rank that no update of rank 2 comes near, and a position table that no one trains."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Sequential(nn.Linear(12, 48), nn.Tanh(), nn.Linear(48, 48), nn.Tanh())
        self.positions = nn.Parameter(torch.randn(8, 48), requires_grad=False)
        self.head = nn.Linear(48, 3)

    def forward(self, x, labels=None):
        logits = self.head(self.body(x) + self.positions[0])
        return {"loss": nn.functional.cross_entropy(logits, labels), "logits": logits}


def adapted(**options):
    torch.manual_seed(0)
    config = {"r": 2, "target_modules": ["0", "2"], "init_lora_weights": False, "modules_to_save": ["head"]}
    return peft.get_peft_model(Wide(), peft.LoraConfig(**(config | options)))


def test_low_rank_updates_are_summed_up_apart_from_the_weights(tmp_path):
    plain, lora = SpectralCallback(verbose=0), SpectralCallback(verbose=0)
    train(tmp_path / "plain", plain, model=Wide())
    train(tmp_path / "lora", lora, model=adapted(modules_to_save=None, init_lora_weights=True))
    last = lora.history[lora.history.step == 16].set_index("layer")["effective_rank"]
    updates = last[last.index.str.contains("lora_update")]
    weights = last[~last.index.str.contains("lora_update")]
    summary = lora.summary.iloc[-1]
    assert len(updates) == 2 and (updates <= 2.0 + 1e-6).all()
    assert summary["effective_rank/mean"] == pytest.approx(weights.mean())
    assert summary["lora/effective_rank/mean"] == pytest.approx(updates.mean())
    # the layers are those that there are without adapters
    start = [callback.summary["effective_rank/mean"].iloc[0] for callback in (plain, lora)]
    assert start[0] == pytest.approx(start[1]) and summary["effective_rank/mean"] == pytest.approx(start[0], rel=0.15)
    assert lora.run.scalars()["spectral/lora/effective_rank/median"] == pytest.approx(updates.median())


def test_a_value_of_the_updates_can_choose_the_best_model(tmp_path):
    callback = SpectralCallback(verbose=0)
    trained = train(
        tmp_path,
        callback,
        model=adapted(),
        eval_strategy="epoch",
        save_strategy="epoch",
        load_best_model_at_end=True,
        metric_for_best_model="spectral/lora/log_spectral_norm/max",
        label_names=["labels"],
    )
    assert trained.state.best_metric == callback.summary["lora/log_spectral_norm/max"].iloc[1:].max()


def test_frozen_layers_are_called_frozen_and_nothing_is_dead(tmp_path):
    callback = SpectralCallback(verbose=0)
    train(tmp_path, callback, model=adapted(), num_train_epochs=8)
    frozen = callback.history.groupby("layer")["frozen"].all()
    assert frozen.to_dict() == {
        "base_model.model.body.0.lora_update[default]": False,
        "base_model.model.body.0.merged_weight": False,
        "base_model.model.body.2.lora_update[default]": False,
        "base_model.model.body.2.merged_weight": False,
        "base_model.model.positions": True,
        "base_model.model.head.original_module.weight": True,
        "base_model.model.head.modules_to_save.default.weight": False,
    }
    assert not [a for a in callback.alerts if a.kind == "dead layer"]

    from ww_callbacks.integrations.figures.layer_status import layer_statuses
    from ww_callbacks.integrations.figures.run_view import RunView
    from ww_callbacks.integrations.record import read_run

    said = {s.layer: s.in_words for s in layer_statuses(RunView(read_run(callback.directory), "run"))}
    assert said["base_model.model.positions"] == "frozen"


def test_a_layer_that_the_optimiser_lacks_is_still_told_apart(tmp_path):
    """Nobody froze it: that is the mistake the alert is for."""
    callback, model = SpectralCallback(verbose=0), Classifier(dropout=0.0)
    rest = [p for name, p in model.named_parameters() if not name.startswith("net.2")]
    optimisers = torch.optim.SGD(rest, lr=0.1), None
    train(tmp_path, callback, model=model, num_train_epochs=8, more={"optimizers": optimisers})
    assert [a.layers for a in callback.alerts if a.kind == "dead layer"] == [("net.2.weight",)]


def test_thawing_is_seen(tmp_path):
    class Thaws(transformers.TrainerCallback):
        def on_epoch_begin(self, args, state, control, model=None, **others):
            model.net[0].weight.requires_grad_(state.global_step >= 8)

    callback, model = SpectralCallback(verbose=0, every_n_epochs=1), Classifier()
    model.net[0].weight.requires_grad_(False)
    train(tmp_path, Thaws(), callback, model=model, more={"optimizers": (torch.optim.SGD(model.parameters()), None)})
    rows = callback.history.query("layer == 'net.0.weight'")
    assert rows.frozen.tolist() == [True, True, True, False, False]
    assert rows.changed.tolist()[1:] == [False, False, True, True]


def test_factors_of_ia3_are_no_matrices(tmp_path):
    config = peft.IA3Config(target_modules=["0", "2"], feedforward_modules=["2"])
    model = peft.get_peft_model(Wide(), config)
    specs = {s.name.removeprefix("base_model.model."): s for s in inspect(model)}
    for factor in ("body.0.ia3_l.default", "body.2.ia3_l.default"):
        assert "a vector" in specs[factor].skipped
    callback = SpectralCallback(verbose=0)
    train(tmp_path, callback, model=model, label_names=["labels"])
    assert not callback.history.layer.str.contains("ia3").any()


def assert_four_bit(model):
    specs = {s.name: s for s in inspect(model)}
    base = specs["base_model.model.0.base_layer.weight"]
    update = specs["base_model.model.0.lora_update[default]"]
    assert base.shape == (48, 64) and "bitsandbytes" in base.skipped
    assert update.shape == (48, 64) and update.matrix_shapes == ((48, 64),)
    assert [w.shape for w in update.matrices()] == [(48, 64)]


def test_four_bit_storage_has_its_real_shape():
    bnb = pytest.importorskip("bitsandbytes", reason="needs bitsandbytes")
    layer = bnb.nn.Linear4bit(64, 48, bias=False, quant_type="nf4", compute_dtype=torch.float32)
    layer.weight = bnb.nn.Params4bit(torch.randn(48, 64), requires_grad=False, quant_type="nf4")
    layer = layer.to("cpu")  # packs
    assert tuple(layer.weight.shape) == (1536, 1)
    assert_four_bit(peft.get_peft_model(nn.Sequential(layer), peft.LoraConfig(r=4, target_modules=["0"])))


def test_four_bit_storage_as_documented():
    """Packed (n/2, 1) bytes with the shape in ``quant_state``, where bitsandbytes is not installed."""
    model = peft.get_peft_model(
        nn.Sequential(nn.Linear(64, 48, bias=False)), peft.LoraConfig(r=4, target_modules=["0"])
    )
    packed = nn.Parameter(torch.zeros(1536, 1, dtype=torch.uint8), requires_grad=False)
    packed.quant_state = type("QuantState", (), {"shape": torch.Size((48, 64))})()
    model.base_model.model[0].base_layer._parameters["weight"] = packed
    assert_four_bit(model)
