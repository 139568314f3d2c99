"""Checkpoints as training loops write them: exactly the weights are measured, whatever is next to them."""

import argparse
import copy
import random

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import nn

from ww_callbacks.spectral.layers import inspect


class Small(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(9, 6)
        self.norm = nn.BatchNorm1d(6)
        self.layers = nn.ModuleList([nn.Linear(6, 6), nn.Linear(6, 4)])
        self.register_buffer("position_ids", torch.arange(9).expand(1, -1))
        self.register_buffer("cos_cached", torch.rand(1, 1, 9, 6))
        self.scale = nn.Parameter(torch.ones(1, 6))

    def forward(self, x):
        for layer in self.layers:
            x = layer(self.norm(x) * self.scale)
        return x


WEIGHTS = ["embed.weight", "layers.0.weight", "layers.1.weight"]


@pytest.fixture(scope="module")
def trained():
    torch.manual_seed(0)
    model = Small()
    optimizer = torch.optim.AdamW(model.parameters(), amsgrad=True)
    model(torch.randn(5, 6)).sum().backward()
    optimizer.step()
    return model, optimizer


def state(model, prefix=""):
    return {f"{prefix}{name}": value for name, value in model.state_dict().items()}


def random_states():
    return {
        "random_rng_state": random.getstate(),
        "np_rng_state": torch.from_numpy(np.random.default_rng(0).integers(0, 9, (8, 8))),
        "torch_rng_state": torch.get_rng_state(),
        "cuda_rng_state": [torch.rand(4, 4)],
    }


def averaged(model):
    ema = copy.deepcopy(model)
    for parameter in ema.parameters():
        parameter.data *= 0.9
    return ema


LOOPS = {
    "pytorch_imagenet": lambda m, o: {
        "epoch": 3,
        "state_dict": state(m, "module."),
        "best_acc1": torch.tensor(71.0),
        "class_means": torch.rand(5, 5),
        "optimizer": o.state_dict(),
        "scheduler": {"last_epoch": 3, "table": torch.rand(3, 3)},
    },
    "timm": lambda m, o: {
        "epoch": 3,
        "arch": "small",
        "state_dict": state(m),
        "optimizer": o.state_dict(),
        "version": 2,
        "args": argparse.Namespace(lr=0.1),
        "amp_scaler": {"scale": torch.tensor(1.0), "history": torch.rand(3, 3)},
        "state_dict_ema": state(averaged(m)),
        "metric": torch.tensor(0.3),
    },
    "basicsr": lambda m, o: {"params_ema": state(averaged(m)), "params": state(m)},
    "composer": lambda m, o: {
        "state": {
            "model": state(m, "module."),
            "optimizers": {"AdamW": o.state_dict()},
            "algorithms": [("EMA", {"ema_started": True})],
            "rank_zero_seed": 3,
        },
        "rng": [random_states()],
    },
    "nested": lambda m, o: {"state": {"model": state(m), "optim": o.state_dict()}, "rng": random_states()},
    "deepspeed": lambda m, o: {
        "module": state(m),
        "buffer_names": [],
        "optimizer": {"fp32_flat_groups": [torch.rand(9, 9)], "base": o.state_dict()},
        "random": random_states(),
    },
    "compiled": lambda m, o: {
        "model": state(m, "_orig_mod."),
        "optimizer": o.state_dict(),
        "model_args": {"n_layer": 2},
        "best_val_loss": torch.tensor(2.0),
    },
    "accelerate_flat": lambda m, o: {
        **state(m),
        **{f"optimizer.state.{n}.exp_avg": torch.rand_like(p) for n, p in m.named_parameters()},
        **{f"{n}.exp_avg_sq": torch.rand_like(p) for n, p in m.named_parameters()},
    },
    "buffers_of_an_average": lambda m, o: {
        "state_dict": {
            **state(m, "model."),
            "model_ema.decay": torch.tensor(0.99),
            "model_ema.num_updates": torch.tensor(3),
            **{f"model_ema.{n.replace('.', '')}": p * 0.9 for n, p in m.named_parameters()},
        },
        "optimizer_states": [o.state_dict()],
    },
    "teacher_beside_student": lambda m, o: {
        "student": state(m, "module.backbone."),
        "teacher": state(averaged(m), "backbone."),
        "optimizer": o.state_dict(),
        "dino_loss": {"center": torch.rand(1, 7)},
    },
    "averaged_by_lightning": lambda m, o: {
        "state_dict": state(m),
        "averaging_state": {"n_averaged": torch.tensor(3)},
        "callbacks": {"EMA": {"ema_weights": state(averaged(m))}},
        "optimizer_states": [o.state_dict()],
    },
    "moments_by_name": lambda m, o: {"weights": state(m), "m": state(averaged(m)), "v": state(averaged(m))},
    "module_itself": lambda m, o: {"epoch": 3, "model": m, "ema": averaged(m), "optimizer": o.state_dict()},
    "swa": lambda m, o: {"swa_model": torch.optim.swa_utils.AveragedModel(m).state_dict(), "optimizer": o.state_dict()},
    "results_beside": lambda m, o: {"model": state(m), "results": {"predictions": torch.rand(9, 4)}, "ema": None},
    "average_of_a_part": lambda m, o: {
        "state_dict": {
            **state(m, "net."),
            **state(averaged(m), "ema_net.module."),
            "ema_net.n_averaged": torch.tensor(3),
        }
    },
    "shadow_parameters": lambda m, o: {
        "model": state(m),
        "ema": {"decay": 0.9, "shadow_params": [p.detach() for p in m.parameters()], "collected_params": None},
    },
    "metrics_and_queues": lambda m, o: {
        "state_dict": {
            **state(m),
            "val_metric.confmat": torch.rand(4, 4),
            "fid.real_features_cov_sum": torch.rand(9, 9),
            "queue": torch.rand(6, 32),
            "norm.running_cov.running_var": torch.rand(6, 6),
            "vq.embed_avg": torch.rand(9, 6),
            "attn.mask": torch.rand(9, 9),
            "attn.inv_freq": torch.rand(2, 3),
            "mixer.A_log": torch.rand(6, 4),
            "attn.embed_positions": torch.rand(9, 6),
            "attn.bias": torch.rand(1, 1, 9, 9),
            "layers.0.ia3_l.default": torch.rand(6, 1),
        }
    },
}


def measured(path):
    return [spec.name for spec in inspect(path) if not spec.skipped]


def ends(names):
    """The names without what leads to the model."""
    return sorted(name[max(name.find(w) for w in ("embed.", "layers.")) :] for name in names)


@pytest.mark.parametrize("loop", LOOPS)
def test_exactly_the_weights_are_measured(trained, tmp_path, loop):
    path = tmp_path / "checkpoint.pt"
    torch.save(LOOPS[loop](*trained), path)
    names = measured(path)
    assert ends(names) == WEIGHTS
    assert {name.removesuffix(end) for name, end in zip(sorted(names), WEIGHTS, strict=True)} <= {
        "",
        "model.",
        "backbone.",
        "net.",
    }
    tree = torch.load(path, weights_only=False)
    if loop != "module_itself":  # a dict that was loaded by its owner is read the same way
        assert measured(tree) == names


def test_averages_are_shown_and_can_be_chosen(trained, tmp_path):
    model, _ = trained
    for loop, ema in (
        ("timm", "state_dict_ema"),
        ("basicsr", "params_ema"),
        ("teacher_beside_student", "teacher"),
        ("buffers_of_an_average", "state_dict/model_ema"),
        ("module_itself", "ema"),
    ):
        path = tmp_path / f"{loop}.pt"
        torch.save(LOOPS[loop](*trained), path)
        (shown,) = [spec for spec in inspect(path) if "choose it as" in spec.skipped]
        assert f"`…:{shown.name}`" in shown.skipped
        assert ema.endswith(shown.name)
        (weight,) = [s for s in inspect(f"{path}:{shown.name}") if s.name.replace(".", "").endswith("layers1weight")]
        np.testing.assert_allclose(weight.matrices()[0], model.layers[1].weight.detach() * 0.9, rtol=1e-6)


def test_several_models_are_all_measured_and_one_can_be_chosen(trained, tmp_path):
    model, optimizer = trained
    path = tmp_path / "gan.pt"
    torch.save(
        {
            "generator": state(model),
            "discriminator": nn.Sequential(nn.Linear(6, 1, bias=False), nn.Linear(3, 5)).state_dict(),
            "g_optimizer": optimizer.state_dict(),
            "optim_d": optimizer.state_dict(),
        },
        path,
    )
    assert measured(path) == [
        *(f"generator/{name}" for name in WEIGHTS),
        "discriminator/0.weight",
        "discriminator/1.weight",
    ]
    assert measured(f"{path}:generator") == WEIGHTS
    with pytest.raises(ValueError, match=r"gan\.pt.*no weights under 'generators'.*'generator', 'discriminator'"):
        inspect(f"{path}:generators")


def test_the_nesting_of_megatron(tmp_path):
    layers = {f"layers.{i}.attention.query_key_value.weight": torch.rand(6, 4) for i in range(2)}
    tree = {
        "args": argparse.Namespace(hidden_size=4),
        "checkpoint_version": 3.0,
        "model": {
            "language_model": {
                "embedding": {"word_embeddings": {"weight": torch.rand(9, 4)}},
                "encoder": {**layers, "final_layernorm.weight": torch.ones(4)},
            }
        },
        "optimizer": {"fp32_from_fp16_params": [[torch.rand(6, 4)]]},
        "opt_param_scheduler": {"num_steps": 3},
        "rng_state": [random_states()],
    }
    torch.save(tree, tmp_path / "model_optim_rng.pt")
    assert measured(tmp_path / "model_optim_rng.pt") == [
        "embedding/word_embeddings/weight",
        *(f"encoder/{name}" for name in layers),
    ]


def test_only_the_weights_of_a_safetensors_file_with_scales(tmp_path):
    path = tmp_path / "model.safetensors"
    safetensors.torch.save_file(
        {
            "layers.0.weight": torch.rand(4, 4),
            "layers.1.input_scale": torch.rand(4, 4),
            "layers.1.k_scale": torch.rand(2, 2),
            "layers.2.scales": torch.rand(2, 4),
            "layers.2.weight": torch.ones(4, 4, dtype=torch.int8),
            "norm.scale": torch.rand(4),
            "logit_scale": torch.tensor(1.0),
        },
        path,
    )
    assert "layers.0.weight" in measured(path)
    assert not [name for name in measured(path) if "scale" in name]


def test_a_checkpoint_of_an_optimiser_alone_is_refused(trained, tmp_path):
    path = tmp_path / "optimizer.pt"
    torch.save({"optimizer": trained[1].state_dict()}, path)
    with pytest.raises(ValueError, match=r"optimizer\.pt contains no weights: optimizer: the state of an optimiser"):
        inspect(path)
    torch.save(trained[1].state_dict(), path)
    with pytest.raises(ValueError, match=r"optimizer\.pt contains no weights"):
        inspect(path)


def test_a_mapping_that_holds_itself_ends(trained, tmp_path):
    tree = {"state_dict": state(trained[0])}
    tree["self"], tree["again"] = tree, [tree, tree]
    torch.save(tree, tmp_path / "circle.pt")
    assert measured(tmp_path / "circle.pt") == WEIGHTS
