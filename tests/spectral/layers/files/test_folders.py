"""Folders as libraries leave them: what is read of them, what is reported, and what is refused."""

import json

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import nn

from ww_callbacks.spectral.layers import inspect


def measured(path, **options):
    return {spec.name: spec.matrices()[0] for spec in inspect(path, **options) if not spec.skipped}


def save(path, **weights):
    path.parent.mkdir(parents=True, exist_ok=True)
    safetensors.torch.save_file(weights, path)
    return weights


@pytest.fixture
def weights():
    torch.manual_seed(0)
    return {f"layers.{i}.weight": torch.rand(4, 3) for i in range(3)}


def test_the_newest_checkpoint_of_a_trainer_is_taken_and_said(tmp_path, weights):
    for step in (9, 100, 20):
        save(tmp_path / f"checkpoint-{step}" / "model.safetensors", fc=torch.full((2, 2), float(step)))
        torch.save({"state": {0: {"exp_avg": torch.rand(2, 2)}}}, tmp_path / f"checkpoint-{step}" / "optimizer.pt")
    specs = inspect(tmp_path)
    assert specs.remarks == ("from checkpoint-100, the newest",)
    assert measured(tmp_path)["fc"][0, 0] == 100
    assert measured(f"{tmp_path}:checkpoint-20")["fc"][0, 0] == 20
    save(tmp_path / "model.safetensors", fc=torch.zeros(2, 2))  # what `save_model` leaves at the end
    assert measured(tmp_path)["fc"][0, 0] == 0


def test_files_of_the_optimiser_beside_the_weights_are_not_taken_for_them(tmp_path, weights):
    torch.save(weights, tmp_path / "weights.pth")
    for name in ("optimizer.pt", "rng_state_0.pth", "scheduler.pt", "random_states_0.pkl", "training_args.bin"):
        torch.save({"a": torch.rand(2, 2)}, tmp_path / name)
    assert list(measured(tmp_path)) == list(weights)


def test_the_weights_of_the_start_that_the_callback_keeps_are_not_taken_for_those_of_the_run(tmp_path, weights):
    for name in ("w0.safetensors", "w0-1.safetensors"):
        save(tmp_path / name, **weights)
    (tmp_path / "checkpoints").mkdir()
    torch.save(weights, tmp_path / "checkpoints" / "last.ckpt")
    with pytest.raises(ValueError, match=r"has no file of weights\. Its subfolders checkpoints have some: choose one"):
        inspect(tmp_path)
    assert list(measured(tmp_path / "w0.safetensors")) == list(weights)  # who names it gets it
    torch.save(weights, tmp_path / "trained.pt")
    assert list(measured(tmp_path)) == list(weights)


def test_a_diffusers_pipeline(tmp_path, weights):
    index = {"_class_name": "Pipeline", "unet": ["diffusers", "UNet"], "text_encoder": ["transformers", "CLIP"],
             "scheduler": ["diffusers", "DDIM"], "../outside": ["a", "b"]}  # fmt: skip
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "model_index.json").write_text(json.dumps(index))
    save(tmp_path / "root/unet/diffusion_pytorch_model.safetensors", **weights)
    save(tmp_path / "root/text_encoder/model.safetensors", **weights)
    save(tmp_path / "outside/model.safetensors", **weights)
    (tmp_path / "root" / "scheduler").mkdir()
    found = inspect(tmp_path / "root")
    assert [s.name for s in found] == [f"{part}/{name}" for part in ("unet", "text_encoder") for name in weights]
    assert "2 sets of weights (unet, text_encoder), all are measured: choose one" in found.remarks[0]
    assert list(measured(f"{tmp_path / 'root'}:unet")) == list(weights)
    with pytest.raises(ValueError, match=r"no weights under '\.\./outside'"):
        inspect(f"{tmp_path / 'root'}:../outside")


def test_parts_without_an_index(tmp_path, weights):
    names = list(weights)
    save(tmp_path / "model-00002-of-00002.safetensors", **{names[0]: weights[names[0]]})
    with pytest.raises(FileNotFoundError, match="lacks parts of model: number 1 of 2"):
        inspect(tmp_path)
    save(tmp_path / "model-00001-of-00002.safetensors", **{n: weights[n] for n in names[1:]})
    assert list(measured(tmp_path)) == names
    save(tmp_path / "other-00001-of-00002.safetensors", fc=torch.rand(2, 2))
    with pytest.raises(ValueError, match="parts of several files"):
        inspect(tmp_path)


@pytest.mark.parametrize("layout", ["megatron", "deepspeed"])
def test_folders_of_megatron_and_deepspeed(tmp_path, weights, layout):
    mark, step, file = {
        "megatron": ("latest_checkpointed_iteration.txt", "iter_0000012", "mp_rank_00/model_optim_rng.pt"),
        "deepspeed": ("latest", "global_step12", "mp_rank_00_model_states.pt"),
    }[layout]
    (tmp_path / mark).write_text("12" if layout == "megatron" else step)
    path = tmp_path / step / file
    path.parent.mkdir(parents=True)
    optimizer = {"optimizer": {"exp_avg": torch.rand(2, 2)}, "rng_state": [{"torch": torch.rand(2, 2)}]}
    torch.save({"model" if layout == "megatron" else "module": weights, **optimizer}, path)
    assert list(measured(tmp_path)) == list(weights)
    assert inspect(tmp_path).remarks == (f"from {step}, the newest",)
    second = tmp_path / step / file.replace("rank_00", "rank_01")
    second.parent.mkdir(exist_ok=True)
    torch.save({"model": weights}, second)
    with pytest.raises(ValueError, match="split over 2 processes"):
        inspect(tmp_path)
    (tmp_path / mark).write_text("../outside")
    with pytest.raises(ValueError, match="has no file of weights"):
        inspect(tmp_path)


@pytest.mark.filterwarnings("ignore")
def test_a_distributed_checkpoint_is_refused_with_the_remedy(tmp_path, weights):
    from torch.distributed import checkpoint

    checkpoint.save(weights, checkpoint_id=tmp_path / "dcp", no_dist=True)
    with pytest.raises(ValueError, match=r"dcp is a distributed checkpoint of torch.*dcp_to_torch"):
        inspect(tmp_path / "dcp")


def test_a_folder_of_folders_names_them(tmp_path, weights):
    save(tmp_path / "a" / "model.safetensors", **weights)
    with pytest.raises(ValueError, match="Its subfolders a have some"):
        inspect(tmp_path)
    assert list(measured(f"{tmp_path}:a")) == list(weights)


@pytest.fixture
def adapter(tmp_path):
    peft = pytest.importorskip("peft")

    def made(use_dora=False, **options):
        torch.manual_seed(0)
        base = nn.Sequential(nn.Linear(6, 4), nn.Linear(4, 6), nn.Linear(6, 2))
        save(tmp_path / "base" / "model.safetensors", **{f"model.{k}": v.clone() for k, v in base.state_dict().items()})
        config = peft.LoraConfig(
            r=2, lora_alpha=8, init_lora_weights=False, target_modules=["0", "1"], use_dora=use_dora, **options
        )
        model = peft.get_peft_model(base, config)
        model.save_pretrained(tmp_path / "adapter")
        return model.merge_and_unload().state_dict()

    return made


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("options", [{}, {"use_dora": True}, {"use_rslora": True}])
def test_an_adapter_on_its_base_is_their_sum(adapter, tmp_path, options):
    merged = adapter(**options)
    found = inspect(tmp_path / "adapter", base=tmp_path / "base")
    assert found.remarks == ("the base with the updates of the adapter",)
    weights = {spec.name: spec.matrices()[0] for spec in found if not spec.skipped}
    assert list(weights) == ["model.0.merged_weight", "model.1.merged_weight", "model.2.weight"]
    for i, matrix in enumerate(weights.values()):
        np.testing.assert_allclose(matrix, merged[f"{i}.weight"].numpy(), rtol=1e-5, atol=1e-6)


@pytest.mark.filterwarnings("ignore")
def test_the_file_of_an_adapter_is_read_as_its_folder(adapter, tmp_path):
    adapter()
    file, folder = measured(tmp_path / "adapter/adapter_model.safetensors"), measured(tmp_path / "adapter")
    assert list(file) == list(folder)
    for name, matrix in file.items():
        np.testing.assert_array_equal(matrix, folder[name])


@pytest.mark.filterwarnings("ignore")
def test_an_adapter_of_adalora_has_its_singular_values(tmp_path):
    peft = pytest.importorskip("peft")
    config = peft.AdaLoraConfig(init_r=3, target_r=2, target_modules=["0"], total_step=10, init_lora_weights=False)
    model = peft.get_peft_model(nn.Sequential(nn.Linear(6, 4)), config)
    layer = model.base_model.model[0]
    model.save_pretrained(tmp_path)
    (matrix,) = measured(tmp_path).values()
    a, e, b = (getattr(layer, f"lora_{name}")["default"].detach() for name in "AEB")
    np.testing.assert_allclose(matrix, (b @ (a * e)).numpy(), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(
    "names", ["lora_unet_mid_attn.lora_{}.weight", "unet.mid.attn_lora.{}.weight", "mid.lora.{}.weight"]
)
def test_factors_named_up_and_down(tmp_path, names):
    torch.manual_seed(0)
    up, down = torch.rand(5, 2), torch.rand(2, 7)
    tensors = {names.format("up"): up, names.format("down"): down}
    if names.startswith("lora_unet"):
        tensors["lora_unet_mid_attn.alpha"] = torch.tensor(4.0)
    ((name, matrix),) = measured_of(tensors, tmp_path).items()
    assert name.endswith(".lora_update")
    np.testing.assert_allclose(matrix, (up @ down).numpy() * (2 if len(tensors) == 3 else 1), rtol=1e-6)


def measured_of(tensors, folder):
    safetensors.torch.save_file(tensors, folder / "pytorch_lora_weights.safetensors")
    return measured(folder)


@pytest.mark.filterwarnings("ignore")
def test_an_adapter_of_another_base_is_refused(adapter, tmp_path):
    adapter()
    save(tmp_path / "other" / "model.safetensors", **{"9.weight": torch.rand(4, 6)})
    with pytest.raises(ValueError, match=r"adapter changes layers that the base does not have: 0\.weight, 1\.weight"):
        inspect(tmp_path / "adapter", base=tmp_path / "other")
